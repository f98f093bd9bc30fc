"""Polygons that touch at a corner only are parted there."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.vector.part import PartedRows
from tests.vector.random_maps import ArrayRows, class_maps


def parted(codes, classes, strip):
    rows = PartedRows(ArrayRows(codes), frozenset(classes))
    strips = [rows.read_rows(y, min(y + strip, len(codes))) for y in range(0, len(codes), strip)]
    return np.concatenate(strips), rows.changed_px


def crossings(codes, classes):
    a, b, c, d = codes[:-1, :-1], codes[:-1, 1:], codes[1:, :-1], codes[1:, 1:]
    crosses = (a == d) & (b == c) & (a != b) & (a >= 0) & (b >= 0)
    return (crosses & (np.isin(a, classes) | np.isin(b, classes))).sum()


def test_the_lower_pixel_becomes_what_is_beside_it():
    codes = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], np.int32)
    found, changed = parted(codes, [1], 4)
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]]
    assert changed == 1


def test_a_slit_of_single_pixels_becomes_a_way_through():
    codes = np.ones((6, 6), np.int32) - np.eye(6, dtype=np.int32)
    found, _ = parted(codes, [1], 6)
    assert crossings(found, [1]) == 0
    assert (found[1:][np.eye(6, dtype=bool)[:-1]] == 0).all()  # the pixel below each is open now


def test_other_classes_and_ground_without_a_class_stay():
    codes = np.array([[2, 3], [3, 2]], np.int32)
    found, changed = parted(codes, [1], 2)
    assert (found == codes).all()
    assert changed == 0
    empty = np.array([[1, -1], [-1, 1]], np.int32)
    found, changed = parted(empty, [1], 2)
    assert (found == empty).all()
    assert changed == 0


@given(
    codes=class_maps(),
    classes=st.sets(st.integers(0, 3), min_size=1, max_size=3),
    strip=st.integers(1, 9),
)
@settings(max_examples=100, deadline=None)
def test_no_crossing_is_left_and_strips_change_nothing(codes, classes, strip):
    classes = sorted(classes)
    whole, changed = parted(codes, classes, len(codes))
    by_strips, _ = parted(codes, classes, strip)
    assert (whole == by_strips).all()
    assert ((whole < 0) == (codes < 0)).all()
    assert changed >= (whole != codes).sum()
    if codes.shape[0] > 1 and codes.shape[1] > 1:
        assert crossings(whole, classes) == 0
