"""Tiles hold the raster's own pixels, from whatever thread and strip they come."""

import tracemalloc

import numpy as np
import pytest

from geoseg.errors import RasterReadError
from geoseg.raster import check_input, inspect_raster, open_raster, plan_windows
from geoseg.raster.resample import AxisMap
from geoseg.raster.segments import Source, reader_bytes
from geoseg.raster.tiles import TileReader
from geoseg.types import Window
from tests.conftest import make_spec


def source_of(path, bands, *, crop=None, model_size=None, dtype="uint8"):
    with open_raster(str(path)) as dataset:
        info = inspect_raster(dataset, str(path))
    selection = check_input(info, make_spec(bands, dtype=dtype))
    crop = crop or Window(0, 0, info.height, info.width)
    rows, cols = model_size or (crop.height, crop.width)
    return Source(info, selection, crop, AxisMap(crop.height, rows), AxisMap(crop.width, cols))


def grid_of(source, tile=64, overlap=16):
    return plan_windows(source.rows.target, source.cols.target, tile, overlap_px=overlap)


@pytest.mark.parametrize("overlap", [0, 16, 48])  # the last: a row lies under four tiles
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 32, "blockysize": 32}])
def test_every_tile_is_its_part_of_the_raster(make_raster, threads, layout, overlap):
    values = np.random.default_rng(0).integers(0, 255, (2, 150, 3000)).astype(np.uint8)
    source = source_of(make_raster(values, **layout), 2)
    grid = grid_of(source, overlap=overlap)
    with TileReader(source, grid, threads=threads) as reader:
        reader.start(range(len(grid.rows)), range(3, len(grid.cols)))
        for r in range(len(grid.rows)):
            for c in range(3, len(grid.cols)):
                tile, valid = reader.read_tile(r, c)
                y, x = grid.rows.starts[r], grid.cols.starts[c]
                assert np.array_equal(tile, values[:, y : y + 64, x : x + 64])
                assert valid is None


def test_a_crop_is_read_from_its_place(make_raster):
    values = np.arange(100 * 120, dtype=np.uint16).reshape(1, 100, 120)
    source = source_of(make_raster(values), 1, crop=Window(10, 20, 64, 64), dtype="uint16")
    grid = grid_of(source)
    with TileReader(source, grid, threads=2) as reader:
        reader.start(range(1), range(1))
        assert np.array_equal(reader.read_tile(0, 0)[0], values[:, 10:74, 20:84])


@pytest.mark.parametrize("overlap", [0, 16, 48])
def test_validity_travels_with_its_pixels(make_raster, overlap):
    values = np.random.default_rng(0).integers(1, 255, (1, 130, 130)).astype(np.uint8)
    values[0, 40:90, 50:70] = 0
    source = source_of(make_raster(values, nodata=0), 1)
    grid = grid_of(source, overlap=overlap)
    with TileReader(source, grid, threads=2) as reader:
        reader.start(range(len(grid.rows)), range(len(grid.cols)))
        for r, y in enumerate(grid.rows.starts):
            for c, x in enumerate(grid.cols.starts):
                _, valid = reader.read_tile(r, c)
                expected = values[0, y : y + 64, x : x + 64] > 0
                found = np.ones_like(expected) if valid is None else valid
                assert np.array_equal(found, expected)


@pytest.mark.parametrize(("size", "mode"), [((10, 40), "reflect"), ((1, 1), "edge"), ((1, 64), "")])
def test_a_raster_smaller_than_a_tile_is_extended(make_raster, size, mode):
    values = np.random.default_rng(0).integers(0, 255, (1, *size)).astype(np.uint8)
    source = source_of(make_raster(values), 1)
    grid = grid_of(source)
    with TileReader(source, grid, threads=1) as reader:
        reader.start(range(1), range(1))
        tile, _ = reader.read_tile(0, 0)
    assert tile.shape == (1, 64, 64)
    assert np.array_equal(tile[:, : size[0], : size[1]], values)
    if mode:
        pad = [(0, 0), (0, 64 - size[0]), (0, 64 - size[1])]
        assert np.array_equal(tile, np.pad(values, pad, mode=mode))


@pytest.mark.parametrize("model_size", [(60, 55), (300, 333)])
def test_resampled_tiles_agree_with_each_other_and_ignore_holes(make_raster, model_size):
    values = np.full((1, 150, 160), 50, np.uint8)
    values[0, 30:60, 40:90] = 0
    source = source_of(make_raster(values, nodata=0), 1, model_size=model_size)
    grid = grid_of(source, 48, 16)
    made = np.full(model_size, np.nan, np.float32)
    with TileReader(source, grid, threads=2) as reader:
        reader.start(range(len(grid.rows)), range(len(grid.cols)))
        for r, y in enumerate(grid.rows.starts):
            for c, x in enumerate(grid.cols.starts):
                tile, valid = reader.read_tile(r, c)
                tile = np.where(np.ones_like(tile[0], bool) if valid is None else valid, tile, 0)[0]
                part = made[y : y + 48, x : x + 48]
                known = ~np.isnan(part)
                assert np.array_equal(part[known], tile[known])
                part[:] = tile
    assert set(np.unique(made.round(3))) == {0.0, 50.0}
    share = (made == 0).mean()
    assert share == pytest.approx(30 * 50 / (150 * 160), rel=0.2)


def test_tiles_may_be_left_out_and_strips_follow_each_other(make_raster):
    values = np.random.default_rng(0).integers(0, 255, (1, 300, 5000)).astype(np.uint8)
    source = source_of(make_raster(values, tiled=True, blockxsize=64, blockysize=64), 1)
    grid = grid_of(source)
    with TileReader(source, grid, threads=2) as reader:
        for rows, cols in (
            (range(3), range(20, 60)),
            (range(2, 6), range(70)),
            (range(1), range(3)),
        ):
            reader.start(rows, cols)
            for r in rows:
                for c in cols:
                    reader.advance(r, c)
                    if (r + c) % 7 == 0:
                        y, x = grid.rows.starts[r], grid.cols.starts[c]
                        tile, _ = reader.read_tile(r, c)
                        assert np.array_equal(tile, values[:, y : y + 64, x : x + 64])


def peak_of_reading(source, grid, **how):
    """Return the most memory that is held while all tiles are read."""
    tracemalloc.start()
    with TileReader(source, grid, **how) as reader:
        reader.start(range(len(grid.rows)), range(len(grid.cols)))
        for r in range(len(grid.rows)):
            for c in range(len(grid.cols)):
                reader.read_tile(r, c)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_is_what_the_budget_says(make_raster):
    values = np.random.default_rng(0).integers(0, 255, (3, 300, 24_000)).astype(np.uint8)
    source = source_of(make_raster(values, tiled=True, blockxsize=256, blockysize=256), 3)
    grid = grid_of(source, 128, 32)
    how = {"threads": 1, "batch": 1}
    most = reader_bytes(source, grid, 24_000, **how)
    assert most / 2 < peak_of_reading(source, grid, **how) < most * 1.1 + 2**20
    wider = reader_bytes(source, grid, 48_000, **how)
    assert wider - most == 3 * 24_000 * grid.rows.most_shared_px


def test_a_narrow_raster_is_not_read_many_rows_ahead(make_raster):
    values = np.random.default_rng(0).integers(0, 255, (3, 4000, 300)).astype(np.uint8)
    source = source_of(make_raster(values, tiled=True, blockxsize=128, blockysize=128), 3)
    grid = grid_of(source, 128, 32)
    how = {"threads": 4, "batch": 32}
    assert (
        peak_of_reading(source, grid, **how) < 1.5 * reader_bytes(source, grid, 300, **how) + 2**18
    )


def test_what_resampling_holds_is_counted(make_raster):
    values = np.random.default_rng(0).integers(0, 255, (3, 1200, 6000)).astype(np.uint8)
    source = source_of(make_raster(values, tiled=True), 3, model_size=(400, 2000))
    grid = grid_of(source, 128, 32)
    how = {"threads": 2, "batch": 1}
    assert (
        peak_of_reading(source, grid, **how) < 1.1 * reader_bytes(source, grid, 2000, **how) + 2**20
    )


def test_an_error_on_a_reader_thread_reaches_the_caller(make_raster):
    path = make_raster(np.random.default_rng(0).integers(0, 255, (1, 300, 300)).astype(np.uint8))
    source = source_of(path, 1)
    path.write_bytes(path.read_bytes()[:40000])
    grid = grid_of(source)
    with TileReader(source, grid, threads=2) as reader:
        reader.start(range(len(grid.rows)), range(len(grid.cols)))
        with pytest.raises(RasterReadError, match="damaged or cut short"):
            for r in range(len(grid.rows)):
                for c in range(len(grid.cols)):
                    reader.advance(r, c)


def test_a_resampled_pixel_has_the_same_bits_in_any_tile(make_raster):
    rng = np.random.default_rng(3)
    values = rng.normal(100, 30, (1, 300, 200)).astype(np.float32)
    values[0, ::61, 17] = np.nan
    source = source_of(make_raster(values), 1, model_size=(231, 154), dtype="float32")
    found = []
    for tile, overlap in ((64, 16), (96, 32), (231, 0)):
        grid = grid_of(source, tile, overlap)
        whole = np.zeros((231, 154), np.float32)
        with TileReader(source, grid, threads=2) as reader:
            reader.start(range(len(grid.rows)), range(len(grid.cols)))
            for r, y in enumerate(grid.rows.starts):
                for c, x in enumerate(grid.cols.starts):
                    part = reader.read_tile(r, c)[0][0]
                    whole[y : y + tile, x : x + tile] = part[: 231 - y, : 154 - x]
        found.append(whole)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
