"""Errors by place: cells count like the whole, in metres on the ground, and open in a GIS."""

import geopandas
import numpy as np
import pyogrio
import pytest
import torch
from affine import Affine
from rasterio.crs import CRS

from geoseg.data.patches import PatchGrid
from geoseg.data.sample import IGNORE
from geoseg.errors import UsageError
from geoseg.evaluate.cells import (
    CellGrid,
    choose_cell_m,
    place_cells,
    summarise_cells,
    write_cells,
)
from geoseg.evaluate.ground import longest_side_m, metres_in_pixels, pixel_areas_m2
from geoseg.evaluate.metrics import class_scores, count_pairs
from geoseg.spec import ClassSpec
from geoseg.types import Window

CLASSES = tuple(ClassSpec(k, name, "#000000") for k, name in enumerate(("land", "Big House", "c")))


def utm(height, width, size=1.0):
    transform = Affine(size, 0, 500000, 0, -size, 5000000)
    return PatchGrid(CRS.from_epsg(32633).to_wkt(), transform, height, width)


def maps(shape=(50, 70), seed=0):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 3, shape).astype(np.uint8)
    predicted = np.where(rng.random(shape) < 0.7, target, 0).astype(np.uint8)
    target[rng.random(shape) < 0.2] = IGNORE
    target[:20, :20] = IGNORE
    return target, predicted


def test_cells_count_like_a_confusion_matrix_of_their_pixels():
    target, predicted = maps()
    cells = CellGrid(50, 70, (20, 30), 3)
    for row in range(0, 50, 16):  # blocks that cut cells
        window = Window(row, 0, min(16, 50 - row), 70)
        part = slice(row, window.row_end)
        cells.add(window, target[part], predicted[part])
    assert (cells.rows, cells.cols) == (3, 3)
    for cell in range(9):
        w = cells.window(cell)
        part = slice(w.row, w.row_end), slice(w.col, w.col_end)
        counts = count_pairs(*map(torch.from_numpy, (target[part], predicted[part])), 3).numpy()
        np.testing.assert_array_equal(cells.targets[cell], counts.sum(axis=1))
        expected = class_scores(counts)["iou"]
        np.testing.assert_allclose(cells.iou()[cell], expected)
        if counts.sum():
            assert cells.miou()[cell] == pytest.approx(np.nanmean(expected))
            assert cells.accuracy()[cell] == pytest.approx(np.trace(counts) / counts.sum())


def test_cells_without_labels_are_empty():
    cells = CellGrid(50, 70, (20, 20), 3)
    assert summarise_cells(cells, 20.0) is None
    cells.add(Window(0, 0, 50, 70), *maps())
    assert np.isnan(cells.accuracy()[0])
    summary = summarise_cells(cells, 20.0)
    assert summary.cells == 11
    assert (summary.rows, summary.cols, len(summary.accuracy)) == (3, 4, 3)
    assert summary.accuracy_least <= summary.accuracy_quartiles[0] <= summary.accuracy_mean


def test_cells_are_written_as_polygons_with_scores(tmp_path):
    grid = utm(50, 70)
    cells = place_cells(grid, 20.0, 3)
    cells.add(Window(0, 0, 50, 70), *maps())
    path = write_cells(cells, grid, CLASSES, tmp_path / "cells.gpkg")
    write_cells(cells, grid, CLASSES, path)  # replaced
    assert pyogrio.list_layers(path).tolist() == [["cells", "Polygon"]]
    frame = geopandas.read_file(path)
    assert len(frame) == 11
    assert frame.crs.to_epsg() == 32633
    assert frame["pixels"].sum() == cells.pixels.sum()
    worst = frame.sort_values("accuracy").iloc[0]
    assert worst["wrong"] / worst["pixels"] == pytest.approx(1 - worst["accuracy"])
    assert {"miou", "iou_land", "iou_big_house", "iou_c", "labelled_m2"} <= set(frame.columns)
    first = frame[(frame["row"] == 0) & (frame["col"] == 1)].iloc[0]
    assert first.geometry.bounds == (500020, 4999980, 500040, 5000000)
    # UTM shows lengths at its middle meridian 0.04 % too short.
    assert first["labelled_m2"] == pytest.approx(first["pixels"] / 0.9996**2, rel=1e-4)
    assert list(tmp_path.iterdir()) == [path]


def test_a_cell_is_in_metres_of_ground_wherever_it_lies():
    wkt = CRS.from_epsg(3857).to_wkt()
    mercator = PatchGrid(wkt, Affine(1, 0, 0, 0, -1, 8399738), 10, 10)  # 60 degrees north
    rows, cols = metres_in_pixels(mercator, 100.0)
    assert 198 <= rows <= 202
    assert 198 <= cols <= 202
    degrees = PatchGrid(CRS.from_epsg(4326).to_wkt(), Affine(1e-3, 0, 0, 0, -1e-3, 60), 10, 10)
    rows, cols = metres_in_pixels(degrees, 1114.0)
    assert (rows, cols) == (10, 20)
    assert longest_side_m(degrees) == pytest.approx(1114, rel=2e-3)


def test_the_area_of_a_pixel_is_that_of_the_ellipsoid():
    # A cell of one degree at the equator and at 60 degrees, from the integral over the ellipsoid.
    def exact(lat):
        e2, a = 0.00669437999014, 6378137.0
        steps = np.radians(np.linspace(lat, lat + 1, 20001))
        b2 = a * a * (1 - e2)
        band = b2 * np.cos(steps) / (1 - e2 * np.sin(steps) ** 2) ** 2
        return np.trapezoid(band, steps) * np.radians(1)

    wkt = CRS.from_epsg(4326).to_wkt()
    for lat in (0, 60):
        grid = PatchGrid(wkt, Affine(1e-2, 0, 179.5, 0, -1e-2, lat + 1), 100, 100)
        whole, half, other = (
            pixel_areas_m2(grid, [window])[0] * window.height * window.width
            for window in (Window(0, 0, 100, 100), Window(0, 0, 50, 100), Window(50, 0, 50, 100))
        )
        assert whole == pytest.approx(exact(lat), rel=1e-6)
        assert half + other == pytest.approx(whole, rel=1e-9)
        assert half < other


def test_areas_of_many_windows_are_those_of_each():
    grid = utm(60, 40, 0.1)
    windows = [Window(0, 0, 10, 10), Window(50, 20, 7, 3)]
    areas = pixel_areas_m2(grid, windows)
    assert areas == pytest.approx([pixel_areas_m2(grid, [w])[0] for w in windows])
    assert areas[0] == pytest.approx(0.01 / 0.9996**2, rel=1e-5)


def test_the_size_of_a_cell_is_round_unless_given():
    assert choose_cell_m(utm(1000, 2400), None) == 100
    assert choose_cell_m(utm(100, 100, 0.1), None) == pytest.approx(0.5)
    assert choose_cell_m(utm(100, 100), 7.5) == 7.5
    with pytest.raises(UsageError, match=r"--cell-size: expected a length in metres; got -1"):
        choose_cell_m(utm(100, 100), -1.0)


def test_cells_beyond_number_are_refused():
    with pytest.raises(UsageError) as error:
        place_cells(utm(50_000, 50_000), 2.0, 10)
    assert "expected at most 800000 cells; 25000 x 25000 of 2 x 2 px are more" in str(error.value)
