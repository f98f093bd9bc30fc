"""Resampling shifts nothing and depends on nothing but position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.raster.resample import AxisMap, resample_axis

maps = st.builds(
    lambda source, ratio: AxisMap(source, max(1, round(source * ratio))),
    st.integers(1, 400),
    st.sampled_from([0.25, 0.3, 0.5, 0.77, 1.0, 1.3, 2.0, 3.7, 4.0]),
)


@given(maps)
def test_weights_sum_to_one_within_the_support(axis_map):
    index, weight = axis_map.taps(0, axis_map.target)
    assert np.allclose(weight.sum(axis=1), 1, atol=1e-6)
    for i in range(0, axis_map.target, max(1, axis_map.target // 20)):
        low, high = axis_map.support(i, i + 1)
        used = index[i][weight[i] > 0]
        assert low <= used.min()
        assert used.max() < high


@given(maps)
def test_complete_counts_the_targets_whose_support_is_known(axis_map):
    for stop in range(0, axis_map.source + 1, max(1, axis_map.source // 25)):
        count = axis_map.complete(stop)
        if count and stop < axis_map.source:
            assert axis_map.support(count - 1, count)[1] <= stop
        if count < axis_map.target:
            assert axis_map.support(count, count + 1)[1] > stop


@given(maps, st.data())
def test_a_window_gives_the_bits_of_the_whole(axis_map, data):
    values = np.random.default_rng(0).random((2, axis_map.source), dtype=np.float32)
    first = data.draw(st.integers(0, axis_map.target - 1))
    stop = data.draw(st.integers(first + 1, axis_map.target))
    low, high = axis_map.support(first, stop)
    whole = resample_axis(values, axis_map, 0, axis_map.target, axis=-1, offset=0)
    part = resample_axis(values[:, low:high], axis_map, first, stop, axis=-1, offset=low)
    assert np.array_equal(part, whole[:, first:stop])


@pytest.mark.parametrize("target", [50, 77, 130, 400])
def test_a_constant_stays_and_a_blob_keeps_its_centre(target):
    axis_map = AxisMap(100, target)
    ones = resample_axis(np.ones((1, 100), np.float32), axis_map, 0, target, axis=1, offset=0)
    assert np.allclose(ones, 1, atol=1e-6)
    positions = (np.arange(100) + 0.5) / 100
    blob = np.exp(-(((positions - 0.37) / 0.08) ** 2)).astype(np.float32)[None]
    made = resample_axis(blob, axis_map, 0, target, axis=1, offset=0)[0]
    centre = ((np.arange(target) + 0.5) / target * made).sum() / made.sum()
    assert centre == pytest.approx(0.37, abs=1e-3)


def test_equal_grids_are_copied():
    values = np.random.default_rng(0).random((3, 40), dtype=np.float32)
    same = resample_axis(values[:, 5:30], AxisMap(40, 40), 8, 20, axis=1, offset=5)
    assert np.array_equal(same, values[:, 8:20])
