import pickle

import numpy as np
import pyproj
import pytest
from affine import Affine

from geoseg.data.patches import PatchSlice, place_patch, places_in, whole, window_in
from geoseg.types import BBox, Window
from tests.data.marks import grid_of, north_up, rotated, south_up

POLAND = "EPSG:2180"
DEGREES = "EPSG:4326"


@pytest.mark.parametrize("transform", [north_up(0.25), south_up(0.25, 200), rotated(0.25)])
def test_places_in_another_crs_are_exact_to_a_hundredth_of_a_pixel(transform):
    grid = grid_of(transform, 200, 150)
    their = Affine(0.25, 0, 260000, 0, -0.25, 700000)
    rows, cols = places_in(grid, pyproj.CRS(POLAND).to_wkt(), their)
    all_rows, all_cols = np.indices((200, 150)) + 0.5
    x, y = transform @ (all_cols, all_rows)
    x, y = pyproj.Transformer.from_crs("EPSG:32633", POLAND, always_xy=True).transform(x, y)
    wanted_cols, wanted_rows = ~their @ (x, y)
    np.testing.assert_allclose(rows, wanted_rows, atol=0.01)
    np.testing.assert_allclose(cols, wanted_cols, atol=0.01)


def test_places_of_coarse_pixels_in_degrees_are_exact_to_a_hundredth_of_a_pixel():
    grid = grid_of(Affine(10, 0, 334230, 0, -10, 3831580), 512, 512, "EPSG:32652")
    their = Affine(1e-4, 0, 127.1, 0, -1e-4, 34.7)
    rows, cols = places_in(grid, pyproj.CRS(DEGREES).to_wkt(), their)
    x, y = grid.transform @ (300.5, 77.5)
    to_degrees = pyproj.Transformer.from_crs("EPSG:32652", DEGREES, always_xy=True)
    col, row = ~their @ to_degrees.transform(x, y)
    assert rows[77, 300] == pytest.approx(row, abs=0.01)
    assert cols[77, 300] == pytest.approx(col, abs=0.01)


def test_centres_on_an_edge_belong_to_the_next_pixel():
    # Twice as fine: every centre lies on an edge of the finer grid, give or take rounding.
    grid = grid_of(north_up(0.6), 50, 50)
    rows, cols = (whole(p) for p in places_in(grid, grid.crs, north_up(0.3)))
    assert rows[:, 0].tolist() == list(range(1, 100, 2))
    assert cols[0].tolist() == list(range(1, 100, 2))


def test_places_off_the_earth_are_no_pixels():
    grid = grid_of(Affine(1e7, 0, -9e7, 0, -1e7, 9e7), 2, 2, "EPSG:3857")
    rows, _ = (whole(p) for p in places_in(grid, pyproj.CRS(POLAND).to_wkt(), north_up(1)))
    assert rows.shape == (2, 2)


def test_the_window_of_an_aligned_grid_may_reach_beyond_the_raster():
    scene = grid_of(north_up(0.3), 100, 100)
    part = scene.part(Window(-5, 90, 20, 20))
    assert window_in(part, scene.crs, scene.transform) == Window(-5, 90, 20, 20)


@pytest.mark.parametrize(
    "transform",
    [
        north_up(0.3, left=500000.15),
        north_up(0.31),
        south_up(0.3, 20),
        Affine.rotation(1) @ north_up(0.3),
    ],
)
def test_other_pixels_have_no_window(transform):
    scene = grid_of(north_up(0.3), 100, 100)
    assert window_in(grid_of(transform, 20, 20), scene.crs, scene.transform) is None


def test_other_crs_have_no_window():
    scene = grid_of(north_up(0.3), 100, 100)
    assert window_in(grid_of(north_up(0.3), 20, 20, POLAND), scene.crs, scene.transform) is None


def test_coordinates_rounded_by_a_file_still_are_the_same_pixels():
    noisy = Affine(0.29999999999997673, 0, 500000, 0, -0.30000000000009314, 4999999.9999999995)
    scene = grid_of(noisy, 1000, 1000)
    part = grid_of(north_up(0.3), 1000, 1000)
    assert window_in(part, scene.crs, scene.transform) == Window(0, 0, 1000, 1000)


def test_a_patch_index_is_torchgeos_and_survives_the_way_to_a_worker():
    scene = grid_of(north_up(0.5), 100, 100)
    index = place_patch(scene, Window(10, 20, 30, 40), "a.tif", crs=scene.crs)
    assert isinstance(index, tuple)
    assert index == (slice(500010.0, 500030.0), slice(4999980.0, 4999995.0))
    copy = pickle.loads(pickle.dumps(index))
    assert isinstance(copy, PatchSlice)
    assert (copy, copy.grid, copy.image, copy.window) == (
        *(index, index.grid, "a.tif"),
        Window(10, 20, 30, 40),
    )


def test_a_patch_of_another_crs_is_indexed_in_that_of_the_data_set():
    scene = grid_of(north_up(0.5), 100, 100)
    index = place_patch(scene, Window(0, 0, 100, 100), "a.tif", crs=pyproj.CRS(DEGREES).to_wkt())
    x, y = index
    assert 14.9 < x.start < x.stop < 15.1
    assert 45.1 < y.start < y.stop < 45.2


def test_an_outline_bends_with_the_projection():
    outline = grid_of(north_up(100), 50, 20).outline()
    assert BBox(*outline.bounds) == BBox(500000, 4995000, 502000, 5000000)
    assert len(outline.exterior.coords) > 30


def test_a_grid_is_resized_over_the_same_ground():
    grid = grid_of(north_up(0.3), 100, 200)
    smaller = grid.resized(50, 25)
    assert (smaller.height, smaller.width) == (50, 25)
    assert np.allclose(smaller.bounds, grid.bounds)
