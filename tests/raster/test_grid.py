"""The prediction grid covers every pixel once, however it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import UsageError
from geoseg.raster.grid import chunks, plan_axis, plan_panels, plan_windows, shard_of


@st.composite
def axes(draw):
    tile = draw(st.integers(1, 300))
    overlap = draw(st.integers(0, tile - 1))
    halo = draw(st.integers(0, overlap // 2))
    length = draw(st.integers(1, 3000))
    shift = draw(st.integers(0, tile - overlap - 1))
    return plan_axis(length, tile, overlap, halo_px=halo, shift_px=shift), overlap


@given(axes())
def test_cells_tile_the_axis(planned):
    axis, _ = planned
    assert axis.bounds[0] == 0
    assert axis.bounds[-1] == axis.length_px
    assert all(a < b for a, b in zip(axis.bounds, axis.bounds[1:], strict=False))


@given(axes())
def test_no_tile_reaches_past_the_edge_and_neighbours_overlap(planned):
    axis, overlap = planned
    for i in range(len(axis)):
        start, stop = axis.span(i)
        assert 0 <= start < stop <= axis.length_px
        assert stop - start == min(axis.tile_px, axis.length_px)
    for a, b in zip(axis.starts, axis.starts[1:], strict=False):
        assert a < b
        assert a + axis.tile_px - b >= overlap
    for i in range(len(axis) - 1):
        assert axis.core(i)[1] >= axis.core(i + 1)[0]


@given(axes(), st.data())
def test_needed_tiles_are_those_whose_cores_touch(planned, data):
    axis, _ = planned
    first = data.draw(st.integers(0, axis.length_px - 1))
    stop = data.draw(st.integers(first + 1, axis.length_px))
    expected = [i for i in range(len(axis)) if axis.core(i)[0] < stop and axis.core(i)[1] > first]
    assert list(axis.needed(first, stop)) == expected


def test_aligned_strides_keep_the_phase_of_strided_networks():
    axis = plan_axis(2000, 512, 128)
    assert all(start % 32 == 0 for start in axis.starts[:-1])
    assert axis.starts[-1] == 2000 - 512


def test_a_small_raster_is_one_tile():
    axis = plan_axis(20, 512, 128)
    assert axis.starts == (0,)
    assert axis.span(0) == axis.core(0) == (0, 20)


def test_a_shifted_grid_differs_and_still_covers():
    plain, shifted = plan_axis(2000, 512, 128), plan_axis(2000, 512, 128, shift_px=192)
    assert set(plain.starts) != set(shifted.starts)
    assert shifted.starts[:2] == (0, 192)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_panels_cover_each_cell_once(rows, cols, tile_rows, tile_cols):
    grid = plan_windows(rows * 10, cols * 10, 12, overlap_px=2)
    seen = [
        (r, c)
        for panel in plan_panels(grid, tile_rows=tile_rows, tile_cols=tile_cols)
        for r in panel.rows
        for c in panel.cols
    ]
    assert sorted(seen) == [(r, c) for r in range(len(grid.rows)) for c in range(len(grid.cols))]


@given(st.integers(1, 50), st.integers(1, 60))
def test_shards_share_the_panels(panels, shards):
    shares = [shard_of(panels, (i, shards)) for i in range(1, shards + 1)]
    assert [p for share in shares for p in share] == list(range(panels))


def test_chunks():
    assert list(chunks(7, 3)) == [range(3), range(3, 6), range(6, 7)]


@pytest.mark.parametrize(
    ("arguments", "halo", "message"),
    [
        ((0, 64, 16), 0, "at least 1 px to cover; got 0"),
        ((10, 64, 64), 0, "overlap 64 px and tile 64 px"),
        ((10, 64, -1), 0, "overlap -1 px"),
        ((10, 64, 16), 9, "twice the halo of 9 px; got 16 px. Give --overlap 18"),
    ],
)
def test_impossible_plans_are_refused(arguments, halo, message):
    with pytest.raises(UsageError, match=message):
        plan_axis(*arguments, halo_px=halo)
