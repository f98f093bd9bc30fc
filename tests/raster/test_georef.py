"""Metres per pixel anywhere on earth, boxes in any transform, and what a GeoTIFF keeps."""

import pytest
from affine import Affine
from pyproj import Geod
from rasterio.crs import CRS

from geoseg.errors import GeoreferenceError, GsdMismatchError, InputError
from geoseg.raster.georef import (
    Georef,
    bounds_of,
    box_of_bounds,
    choose_gsd,
    crop_transform,
    local_gsd,
    storable,
)
from geoseg.types import BBox, Window
from tests.conftest import NORTH_UP, ROTATED, SOUTH_UP

UTM = CRS.from_epsg(32633)


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_metres_of_a_projected_raster(transform):
    gsd = local_gsd(Georef(UTM, transform), 50, 50)
    assert gsd == pytest.approx((0.3, 0.3), rel=1e-3)  # UTM's own scale is up to 4e-4 off


@pytest.mark.parametrize("lat", [-75.0, 0.0, 27.6, 60.0, 84.9])
def test_degrees_become_ground_metres(lat):
    step = 1e-6
    georef = Georef(CRS.from_epsg(4326), Affine(step, 0, 85.0, 0, -step, lat))
    geod = Geod(ellps="WGS84")
    x = geod.inv(85.0, lat, 85.0 + 1000 * step, lat)[2] / 1000
    y = geod.inv(85.0, lat, 85.0, lat + 1000 * step)[2] / 1000
    assert local_gsd(georef, 0, 0) == pytest.approx((x, y), rel=1e-3)


def test_a_metre_of_web_mercator_is_not_one_of_ground():
    georef = Georef(CRS.from_epsg(3857), Affine(1, 0, 0, 0, -1, 8399737.9))  # 60 degrees north
    assert local_gsd(georef, 0, 0) == pytest.approx((0.5, 0.5), rel=0.01)


def test_feet():
    # Virginia North in metres and in US survey feet, at the same place.
    metres = Georef(CRS.from_epsg(2853), Affine(1, 0, 3621793.2, 0, -1, 2137033.3))
    feet = Georef(CRS.from_epsg(2924), Affine(1, 0, 11882500, 0, -1, 7011250))
    assert local_gsd(metres, 0, 0) == pytest.approx((1.0, 1.0), rel=1e-3)
    assert local_gsd(feet, 0, 0) == pytest.approx((0.3048, 0.3048), rel=1e-3)


def test_the_antimeridian_does_not_make_pixels_wide():
    georef = Georef(CRS.from_epsg(4326), Affine(0.001, 0, 179.998, 0, -0.001, -20))
    assert local_gsd(georef, 0, 0)[0] == pytest.approx(104.6, rel=0.01)


def test_what_is_not_on_earth_is_refused():
    with pytest.raises(GeoreferenceError, match="CRS and transform; got none"):
        local_gsd(Georef(None, NORTH_UP), 0, 0)
    with pytest.raises(GeoreferenceError, match="--gsd native"):
        local_gsd(Georef(CRS.from_string("ESRI:54009"), Affine(1, 0, 3e7, 0, -1, 0)), 0, 0)


@pytest.mark.parametrize(
    ("native", "known", "target"),
    [
        ((0.3, 0.3), None, None),
        ((0.3, 0.3), (0.2, 0.4), None),
        ((0.1, 0.1), (0.2, 0.4), 0.2),
        ((1.0, 1.0), (0.2, 0.4), 0.4),
        ((0.15, 0.3), (0.2, 0.4), pytest.approx(0.2121, rel=1e-3)),  # its mean is inside
    ],
)
def test_auto_resamples_only_outside_of_the_range(native, known, target):
    assert choose_gsd(native, known) == target


@pytest.mark.parametrize("native", [0.04, 1.7])
def test_more_than_four_times_off_is_refused(native):
    with pytest.raises(GsdMismatchError, match=r"knows 0.2 to 0.4 m per pixel; the raster has"):
        choose_gsd((native, native), (0.2, 0.4))


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_a_box_holds_its_bounds(transform):
    georef = Georef(UTM, transform)
    wanted = bounds_of(transform @ Affine.translation(20, 30), 15, 10)
    box = box_of_bounds(wanted, georef, 200, 100)
    if transform is not ROTATED:
        assert box == Window(30, 20, 15, 10)
    held = bounds_of(crop_transform(transform, box), box.height, box.width)
    assert held.left <= wanted.left + 1e-6
    assert held.top >= wanted.top - 1e-6


def test_bounds_are_cut_at_the_raster_and_refused_outside():
    georef = Georef(UTM, NORTH_UP)
    box = box_of_bounds(BBox(499990, 4999980, 500003, 5000010), georef, 100, 100)
    assert box == Window(0, 0, 67, 10)
    with pytest.raises(InputError, match="overlaps the raster; got 0, 0, 1, 1, and the raster"):
        box_of_bounds(BBox(0, 0, 1, 1), georef, 100, 100)


def test_a_crop_at_the_origin_keeps_the_transform_to_the_bit():
    assert crop_transform(ROTATED, Window(0, 0, 5, 5)) is ROTATED


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
@pytest.mark.parametrize("kind", ["Area", "Point", None])
def test_storable_georeferences_come_back_the_same(transform, kind):
    georef = Georef(UTM, transform, kind)
    kept = storable(georef, "x.tif")
    assert (kept.crs, kept.transform) == (georef.crs, georef.transform)


def test_a_crs_that_geotiff_changes_is_refused():
    odd = CRS.from_wkt(
        'ENGCRS["site",EDATUM["corner"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
        'LENGTHUNIT["metre",1]]'
    )
    try:
        kept = storable(Georef(odd, NORTH_UP), "x.tif")
    except GeoreferenceError as error:
        assert "cannot hold this CRS" in str(error)
    else:
        assert kept.crs == odd
