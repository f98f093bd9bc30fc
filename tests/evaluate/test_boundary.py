"""Boundary IoU equals its definition, computed here by eroding masks step by step."""

import numpy as np
import pytest

from geoseg.data.sample import IGNORE
from geoseg.evaluate.boundary import BoundaryCounts, border_band, default_distance_px


def eroded(mask, steps, *, outside):
    for _ in range(steps):
        padded = np.pad(mask, 1, constant_values=outside)
        rows, cols = mask.shape
        shifts = [padded[i : i + rows, j : j + cols] for i in range(3) for j in range(3)]
        mask = np.logical_and.reduce(shifts)
    return mask


def maps(seed=0, shape=(37, 51), classes=4):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (5, 7))
    target = np.kron(coarse, np.ones((8, 8), int))[: shape[0], : shape[1]]
    predicted = np.roll(target, (2, -1), (0, 1))
    return target, predicted


@pytest.mark.parametrize("distance", [1, 2, 5, 40])
def test_boundary_iou_equals_its_definition(distance):
    target, predicted = maps()
    counts = BoundaryCounts(5)
    counts.update(target, predicted, distance)
    for k in range(4):
        bands = [
            mask & ~eroded(mask, distance, outside=False) for mask in (target == k, predicted == k)
        ]
        expected = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
        assert counts.iou()[k] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(counts.iou()[4])


def test_a_wide_band_is_the_plain_iou():
    target, predicted = maps()
    counts = BoundaryCounts(4)
    counts.update(target, predicted, 60)
    both = [((target == k) & (predicted == k)).sum() for k in range(4)]
    either = [((target == k) | (predicted == k)).sum() for k in range(4)]
    np.testing.assert_allclose(counts.iou(), np.divide(both, either))


def test_images_add_up():
    counts, halves = BoundaryCounts(4), BoundaryCounts(4)
    for seed in (1, 2):
        counts.update(*maps(seed), 3)
    halves.both, halves.either = counts.both.copy(), counts.either.copy()
    single = BoundaryCounts(4)
    single.update(*maps(2), 3)
    halves.both -= single.both
    single.update(*maps(1), 3)
    assert (single.both == counts.both).all()
    assert (single.either == counts.either).all()


def test_ignored_ground_makes_no_border_and_is_not_counted():
    target = np.zeros((20, 20), np.uint8)
    predicted = target.copy()
    target[:, 10:] = IGNORE
    predicted[:, 10:] = 1
    counts = BoundaryCounts(2)
    counts.update(target, predicted, 3, outside_is_border=False)
    assert counts.either.tolist() == [0, 0]


def test_the_outside_is_a_border_only_where_asked():
    labels = np.zeros((9, 9), np.uint8)
    assert border_band(labels, 2).sum() == 81 - 25
    assert not border_band(labels, 2, outside_is_border=False).any()


def test_distances_along_rows_and_columns_differ():
    labels = np.zeros((30, 30), np.uint8)
    labels[10:20, 10:20] = 1
    band = border_band(labels, (1, 3)) & (labels == 1)
    assert band.sum() == 100 - 8 * 4


def test_blocks_with_a_halo_count_like_the_whole():
    target, predicted = maps(3)
    whole, blocks = BoundaryCounts(4), BoundaryCounts(4)
    whole.update(target, predicted, 4, outside_is_border=False)
    for row in range(0, 37, 10):
        first, stop = max(0, row - 4), min(37, row + 14)
        part = slice(row - first, min(row + 10, 37) - first), slice(None)
        blocks.update(
            target[first:stop], predicted[first:stop], 4, outside_is_border=False, halo=part
        )
    assert (whole.both == blocks.both).all()
    assert (whole.either == blocks.either).all()


def test_the_default_distance_is_two_percent_of_the_diagonal():
    assert default_distance_px(1024, 2048) == 46
    assert default_distance_px(10, 10) == 1
