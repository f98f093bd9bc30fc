"""The report's pictures: the best and the worst, few and small."""

import math

import numpy as np

from geoseg.data.sample import IGNORE
from geoseg.evaluate.cells import CellGrid
from geoseg.evaluate.examples import (
    PICTURE_PX,
    ExampleKeeper,
    choose_places,
    picture_step,
    to_picture,
)
from geoseg.evaluate.record import Picture
from geoseg.types import Window


def keep(scores, count=2):
    keeper = ExampleKeeper(count)
    made = []
    for i, score in enumerate(scores):

        def make(i=i, score=score):
            made.append(i)
            empty = np.zeros((1, 1), np.uint8)
            return Picture(str(i), "best", score, np.zeros((1, 1, 3), np.uint8), empty, empty)

        keeper.offer(score, make)
    return [(p.name, p.kind) for p in keeper.pictures()], made


def test_the_best_and_the_worst_are_kept_in_order():
    found, _ = keep([0.5, 0.9, 0.1, 0.4, 0.8, 0.2, 0.6])
    assert found == [("1", "best"), ("4", "best"), ("2", "worst"), ("5", "worst")]


def test_pictures_are_made_only_of_what_is_kept():
    _, made = keep([0.9, 0.1, 0.8, 0.2, *[0.5] * 50])
    assert made == [0, 1, 2, 3]


def test_no_sample_is_shown_twice_and_scores_without_meaning_never():
    found, _ = keep([0.3, math.nan, 0.7, 0.7])
    assert found == [("2", "best"), ("3", "best"), ("0", "worst")]
    assert keep([math.nan])[0] == []


def test_the_best_places_have_more_than_one_class():
    places = CellGrid(10, 40, (10, 10), 2)
    target, predicted = np.zeros((10, 40), np.uint8), np.zeros((10, 40), np.uint8)
    target[:5, 10:20] = predicted[:4, 10:20] = 1  # nearly right
    target[:5, 20:30] = 1  # wrong
    target[:8, 30:] = IGNORE  # little labelled
    places.add(Window(0, 0, 10, 40), target, predicted)
    assert choose_places(places, 1) == [("best", 1), ("worst", 2)]
    assert [kind for kind, _ in choose_places(places, 9)] == ["best", "best", "worst"]


def test_eight_bit_images_are_shown_as_they_are():
    values = np.arange(4 * 6, dtype=np.float32).reshape(4, 2, 3)
    valid = np.array([[True, True, False], [True, True, True]])
    picture = to_picture(values, valid, "uint8")
    assert picture.shape == (2, 3, 3)
    assert picture[1, 2].tolist() == [5, 11, 17]
    assert picture[0, 2].tolist() == [0, 0, 0]


def test_other_images_are_stretched_and_one_band_is_grey():
    values = np.linspace(0, 4000, 100, dtype=np.float32).reshape(1, 10, 10)
    values[0, 0, 0] = np.nan
    picture = to_picture(values, np.ones((10, 10), dtype=bool), "uint16")
    assert picture.min() == 0
    assert picture.max() == 255
    assert (picture[..., 0] == picture[..., 2]).all()


def test_pictures_are_small():
    assert picture_step(300, 384) == 1
    assert -(-2000 // picture_step(2000, 100)) <= PICTURE_PX
