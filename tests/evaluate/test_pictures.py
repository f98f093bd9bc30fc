"""Pictures of the report show classes in their colours and errors by kind."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from geoseg.evaluate import pictures
from geoseg.evaluate.pictures import CONFUSED, INVENTED, MISSED
from geoseg.evaluate.record import Picture
from tests.evaluate.records import make_picture, make_record


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@pytest.mark.parametrize("count", [2, 5, 150])
def test_maps_keep_their_colours_and_are_clear_where_nothing_is(count):
    colors = [f"#{k * 7919 % 2**24:06x}" for k in range(count)]
    channels = np.arange(256, dtype=np.uint8).reshape(16, 16) % count
    channels[0, :4] = 255
    uri = pictures.map_uri(channels, colors)
    assert uri.startswith("data:image/png;base64,")
    rgba = np.asarray(decoded(uri).convert("RGBA"))
    expected = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colors])
    known = channels != 255
    assert (rgba[known][:, :3] == expected[channels[known]]).all()
    assert (rgba[..., 3] == np.where(known, 255, 0)).all()


def test_errors_are_parted_by_the_background():
    classes = make_record().classes  # background, building, water
    target = np.array([[0, 0, 1, 1, 1, 255, 2]], np.uint8)
    predicted = np.array([[0, 1, 1, 0, 2, 1, 255]], np.uint8)
    kinds = pictures.find_errors(target, predicted, classes)
    assert kinds.tolist() == [[0, INVENTED, 0, MISSED, CONFUSED, 0, 0]]


def test_without_background_there_is_one_kind_of_error():
    classes = make_record(("roof", "road", "water")).classes
    target, predicted = np.array([[0, 0]], np.uint8), np.array([[0, 1]], np.uint8)
    assert pictures.find_errors(target, predicted, classes).tolist() == [[0, CONFUSED]]
    assert pictures.error_kinds(classes) == [(CONFUSED, "wrong")]


def test_two_classes_cannot_be_confused_otherwise():
    classes = make_record(("background", "roof"), ((1, 0), (0, 1))).classes
    assert [kind for kind, _ in pictures.error_kinds(classes)] == [MISSED, INVENTED]


def test_the_share_of_errors_is_of_the_scored_pixels():
    target = np.array([[0, 0, 1, 255]], np.uint8)
    predicted = np.array([[0, 1, 1, 1]], np.uint8)
    picture = Picture("a", "worst", 0.5, np.zeros((1, 4, 3), np.uint8), target, predicted)
    place = pictures.draw_panels(picture, make_record().classes)
    assert place.wrong == pytest.approx(1 / 3)
    assert [panel.heading for panel in place.panels] == ["Image", "Labels", "Prediction", "Errors"]
    assert place.panels[1].alt == "Labels of a: background 67%, building 33%"
    assert place.panels[3].alt == "Errors of a: 33.3% of the scored pixels are wrong"


def test_a_place_without_labels_has_no_share():
    blank = np.full((2, 2), 255, np.uint8)
    picture = Picture("a", "overview", 0.5, np.zeros((2, 2, 3), np.uint8), blank, blank)
    place = pictures.draw_panels(picture, make_record().classes)
    assert np.isnan(place.wrong)
    assert place.panels[1].alt == "Labels of a: nothing"


def test_errors_stand_in_colour_on_grey():
    image = np.full((8, 8, 3), 100, np.uint8)
    errors = np.zeros((8, 8), np.uint8)
    errors[0, 0] = MISSED
    drawn = pictures.draw_errors(image, errors, np.ones((8, 8), bool))
    assert drawn[0, 0].tolist() == [0, 0x72, 0xB2]
    assert len(np.unique(drawn[1:])) == 1
    striped = pictures.draw_errors(image, errors, np.zeros((8, 8), bool))
    assert len(np.unique(striped[1:])) == 2


def test_the_legend_names_the_classes_that_occur():
    shown = pictures.classes_shown([make_picture()], make_record().classes)
    assert [c.name for c in shown] == ["background", "building"]
