"""Sizes on the ground, beside PROJ's own geodesics."""

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS

from geoseg.errors import GeoreferenceError
from geoseg.vector.ground import build_ground
from tests.conftest import ROTATED
from tests.vector.batches import batch_of, box

GEOD = Geod(ellps="WGS84")
MAPS = {
    "utm": ("EPSG:32633", Affine(3, 0, 500000, 0, -3, 5000000), 4000),
    "web mercator": ("EPSG:3857", Affine(1.19, 0, -8843764, 0, -1.19, 4848553), 4000),
    "degrees": ("EPSG:4326", Affine(0.0001, 0, 30, 0, -0.0001, 65), 4000),
    "feet": ("EPSG:2263", Affine(3, 0, 980000, 0, -3, 200000), 4000),
    "rotated": ("EPSG:32633", ROTATED @ Affine.scale(10), 4000),
    "across the antimeridian": ("EPSG:3832", Affine(90, 0, 3300000, 0, -90, 100000), 4000),
    "round the pole": ("EPSG:3031", Affine(1000, 0, -2500000, 0, -1000, 2500000), 5000),
}


def by_geod(batch, crs, transform):
    """Return area and perimeter of each feature; holes have edges too, as in QGIS."""
    xs, ys = transform.a * batch.xy[:, 0], transform.e * batch.xy[:, 1]
    xs, ys = xs + transform.b * batch.xy[:, 1], ys + transform.d * batch.xy[:, 0]
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lonlat = np.stack(to_degrees.transform(xs + transform.c, ys + transform.f), axis=1)
    offsets = batch.ring_offsets, batch.polygon_offsets
    shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, lonlat, offsets)
    areas = [abs(GEOD.geometry_area_perimeter(shape)[0]) for shape in shapes]
    return areas, [GEOD.geometry_length(shape.boundary) for shape in shapes]


def random_polygons(side, count=60, largest=40):
    rng = np.random.default_rng(0)
    polygons = []
    for width, height in rng.integers(3, largest, (count, 2)):
        x, y = rng.integers(0, side - 2 * largest, 2)
        outer = box(x, y, x + 2 * width, y + 2 * height)
        holed = outer - box(x + 1, y + 1, x + width - 1, y + height - 1)
        polygons += [outer, shapely.orient_polygons(holed, exterior_cw=True)]
    return batch_of(polygons)


@pytest.mark.parametrize("name", MAPS)
def test_areas_and_perimeters_are_geodesic(name):
    crs, transform, side = MAPS[name]
    batch = random_polygons(side)
    ground = build_ground(CRS.from_user_input(crs), transform, side, side)
    area, perimeter = ground.measure(batch)
    expected = by_geod(batch, crs, transform)
    np.testing.assert_allclose(area, expected[0], rtol=1e-6)
    np.testing.assert_allclose(perimeter, expected[1], rtol=2e-7)


def test_long_edges_are_left_to_proj():
    crs, transform = "EPSG:32633", Affine(100, 0, 200000, 0, -100, 7000000)
    batch = batch_of([box(0, 0, 5000, 3), box(10, 10, 12, 4000), box(5, 5, 7, 7)])
    area, perimeter = build_ground(CRS.from_user_input(crs), transform, 5000, 5000).measure(batch)
    expected = by_geod(batch, crs, transform)
    np.testing.assert_allclose(area, expected[0], rtol=1e-9)
    np.testing.assert_allclose(perimeter, expected[1], rtol=1e-9)


def test_the_whole_world_has_its_area():
    transform = Affine(0.5, 0, -180, 0, -0.5, 90)
    halves = batch_of([box(0, 0, 720, 180), box(0, 180, 720, 360)])
    area, _ = build_ground(CRS.from_epsg(4326), transform, 360, 720).measure(halves)
    np.testing.assert_allclose(area, 510_065_621_724_088 / 2, rtol=1e-6)


def test_tiny_pixels_keep_their_area():
    # PROJ itself is off by a thousandth here: areas of the earth in float64 are its limit.
    transform = Affine(0.01, 0, 330000, 0, -0.01, 3060000)
    ground = build_ground(CRS.from_epsg(32645), transform, 4000, 4000)
    area, _ = ground.measure(batch_of([box(100, 100, 101, 101), box(0, 0, 1000, 1000)]))
    assert area[0] * 1e6 == pytest.approx(area[1], rel=1e-6)


def test_metres_in_degrees_and_feet():
    ground = build_ground(CRS.from_epsg(4326), Affine(1e-4, 0, 30, 0, -1e-4, 60.05), 1000, 1000)
    east = GEOD.inv(30, 60, 30 + 1e-4, 60)[2]
    north = GEOD.inv(30, 60 - 5e-5, 30, 60 + 5e-5)[2]
    assert (ground.pixel_width, ground.pixel_height) == pytest.approx((east, north), rel=1e-5)
    assert ground.middle_area == pytest.approx(east * north, rel=1e-5)
    feet = build_ground(CRS.from_epsg(2263), Affine(1, 0, 980000, 0, -1, 200000), 100, 100)
    assert feet.pixel_width == pytest.approx(0.3048, rel=1e-3)


def test_rows_of_degrees_weigh_by_their_area():
    ground = build_ground(CRS.from_epsg(4326), Affine(0.01, 0, 0, 0, -0.01, 65), 1000, 100)
    areas, _ = ground.measure(batch_of([box(49, row, 50, row + 1) for row in (0, 250, 999)]))
    weights = ground.row_areas[[0, 250, 999]]
    np.testing.assert_allclose(areas / ground.middle_area, weights, rtol=1e-4)


def test_lengths_hold_where_pixels_are_largest():
    ground = build_ground(CRS.from_epsg(4326), Affine(0.01, 0, 0, 0, -0.01, 70), 2000, 100)
    width, _ = ground.largest  # at the lower border, 50 degrees north
    assert width == pytest.approx(GEOD.inv(0, 50, 0.01, 50)[2], rel=0.01)
    assert width > 1.2 * ground.pixel_width


def test_without_a_crs_there_are_pixels():
    ground = build_ground(None, Affine.identity(), 10, 10)
    area, perimeter = ground.measure(batch_of([box(0, 0, 2, 2)]))
    assert (ground.unit, ground.pixel_width, ground.largest) == ("px", 1.0, (1.0, 1.0))
    assert np.isnan([*area, *perimeter]).all()


def test_a_map_off_the_earth_is_refused():
    with pytest.raises(GeoreferenceError, match="lies on the earth"):
        build_ground(CRS.from_epsg(4326), Affine(1, 0, 0, 0, -1, 700), 100, 100)


def test_ground_beyond_the_horizon_has_no_area():
    crs = CRS.from_proj4("+proj=ortho +lat_0=45 +lon_0=10")
    ground = build_ground(crs, Affine(10000, 0, -7e6, 0, -10000, 7e6), 1400, 1400)
    area, perimeter = ground.measure(batch_of([box(700, 700, 701, 701), box(0, 0, 2, 2)]))
    assert area[0] == pytest.approx(1e8, rel=1e-4)
    assert np.isnan([area[1], perimeter[1]]).all()
