"""The picture shows every class in its colour and leaves background and nodata as they are."""

import numpy as np

from geoseg.predict.quicklook import CLASS_OPACITY, GAP_PX, _stretch, side_by_side
from geoseg.spec import ClassSpec

IMAGE = np.full((3, 2, 3), 100, np.uint8)
RED = [round(100 * (1 - CLASS_OPACITY) + 255 * CLASS_OPACITY), 45, 45]


def right_half(ids, classes):
    picture = side_by_side(IMAGE, np.array(ids, np.uint8), classes)
    assert picture.shape == (3, 2, 2 * 3 + GAP_PX)
    assert np.array_equal(picture[:, :, :3], IMAGE)
    return np.moveaxis(picture[:, :, 3 + GAP_PX :], 0, -1)


def test_background_and_nodata_are_transparent():
    classes = [ClassSpec(0, "Background", "#00ff00"), ClassSpec(4, "roof", "#ff0000")]
    found = right_half([[0, 4, 255], [255, 4, 4]], classes)
    assert found[0, 1].tolist() == RED
    assert found[0, 0].tolist() == found[0, 2].tolist() == [100, 100, 100]


def test_without_a_background_every_class_is_drawn():
    classes = [ClassSpec(0, "roof", "#ff0000"), ClassSpec(1, "road", "#0000ff")]
    found = right_half([[0, 0, 0], [1, 1, 1]], classes)
    assert found[0, 0].tolist() == RED
    assert found[1, 0].tolist() == RED[::-1]


def test_nodata_does_not_decide_on_the_contrast():
    image = np.tile(np.linspace(1000, 2000, 50), (3, 20, 1)).astype(np.int16)
    valid = np.ones((20, 50), bool)
    valid[:6] = False
    image[:, :6] = -9999
    found = _stretch(image, valid)
    assert (found[:, :6] == 0).all()
    assert found[0, 10, 1] < 10
    assert found[0, 10, -2] > 245
