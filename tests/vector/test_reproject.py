import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer

from geoseg.errors import GeoreferenceError, UsageError
from geoseg.vector.geometry import Geometries, cut_edges
from geoseg.vector.reproject import Reprojection, is_longitude_latitude
from tests.conftest import NORTH_UP, ROTATED, SOUTH_UP
from tests.vector.batches import batch_of, box

UTM = "EPSG:32633"


def shapes(geometries):
    offsets = geometries.ring_offsets, geometries.polygon_offsets
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, geometries.xy, offsets)


def neighbours(side=2000):
    """Three boxes, their common corner noded, large enough for edges to bend."""
    upper = shapely.Polygon([(0, 0), (0, 900), (700, 900), (side, 900), (side, 0), (0, 0)])
    return Geometries.of(batch_of([upper, box(0, 900, 700, side), box(700, 900, side, side)]))


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
@pytest.mark.parametrize("scale", [1, 100])
def test_borders_stay_shared(transform, scale):
    change = Reprojection(
        transform @ Affine.scale(scale), (2000, 2000), UTM, "EPSG:3035", rounded=False
    )
    placed = shapes(change.apply(neighbours()))
    assert shapely.coverage_is_valid(placed)
    assert shapely.is_ccw(shapely.get_exterior_ring(placed)).all()
    assert len(shapely.coverage_invalid_edges(placed)[0].coords) == 0
    assert change.repaired == 0


def test_edges_follow_the_curve():
    change = Reprojection(
        NORTH_UP @ Affine.scale(100), (2000, 2000), UTM, "EPSG:3035", rounded=False
    )
    outline = shapes(change.apply(neighbours()))[0].exterior
    along = np.stack([np.linspace(0, 2000, 500), np.full(500, 900.0)])
    x, y = 30 * along[0] + 500000, -30 * along[1] + 5000000
    points = Transformer.from_crs(UTM, "EPSG:3035", always_xy=True).transform(x, y)
    off = shapely.distance(shapely.points(*points), outline)
    assert off.max() < 0.011 * 30  # a hundredth of a pixel


def test_edges_are_cut_alike_in_both_directions():
    there = Geometries.of(batch_of([box(0.1, 0.2, 10.3, 7.7)]))
    cut, back = cut_edges(there, 3.0), cut_edges(there.turned(), 3.0)
    np.testing.assert_array_equal(cut.xy, back.xy[::-1])
    assert np.hypot(*np.diff(cut.xy, axis=0).T).max() <= 3.0
    assert cut_edges(there, 100.0) is there


def test_coordinates_for_text_are_rounded_to_a_thousandth_of_a_pixel():
    change = Reprojection(NORTH_UP, (2000, 2000), UTM, "EPSG:4326", rounded=True)
    placed = change.apply(neighbours())
    assert change.digits == 9  # 0.3 m are 2.7e-6 degrees
    np.testing.assert_array_equal(placed.xy, np.round(placed.xy, 9))
    assert shapely.coverage_is_valid(shapes(placed))


def test_what_a_change_of_crs_makes_invalid_is_mended_and_counted():
    notched = [(0, 0), (0, 10), (4, 10), (5, 0.3), (6, 10), (10, 10), (10, 0), (0, 0)]
    transform = Affine(1, 0, 0, 0, -1, 60)
    change = Reprojection(transform, (10, 10), "EPSG:4326", "EPSG:4326", rounded=True)
    change.digits = 0  # the notch's tip comes to lie on the other side
    placed = change.apply(Geometries.of(batch_of([shapely.Polygon(notched), box(20, 0, 30, 10)])))
    assert change.repaired == 1
    assert placed.feature_offsets.tolist() == [0, 2, 3]
    assert shapely.is_valid(shapes(placed)).all()
    assert shapely.area(shapes(placed)).sum() == 200 - 10


def test_what_folds_over_itself_is_refused():
    bow = shapely.Polygon([(0, 0), (0, 4), (10, 0), (10, 4), (0, 0)])
    change = Reprojection(NORTH_UP, (10, 10), UTM, "EPSG:4326", rounded=False)
    with pytest.raises(GeoreferenceError, match="folds over itself in EPSG:4326"):
        change.apply(Geometries.of(batch_of([bow])))


def test_longitudes_that_jump_are_refused():
    transform = Affine(100, 0, 3300000, 0, -100, 100000)  # across 180 degrees
    change = Reprojection(transform, (5000, 2000), "EPSG:3832", "EPSG:4326", rounded=False)
    with pytest.raises(GeoreferenceError, match="crosses the antimeridian"):
        change.apply(Geometries.of(batch_of([box(0, 0, 5000, 2000)])))


def test_ground_beyond_the_horizon_of_the_target_is_refused():
    transform, globe = Affine(1, 0, 0, 0, -1, 90), "+proj=ortho +lat_0=45 +lon_0=10"
    change = Reprojection(transform, (180, 180), "EPSG:4326", globe, rounded=False)
    with pytest.raises(GeoreferenceError, match="no place in .*ortho"):
        change.apply(Geometries.of(batch_of([box(0, 0, 180, 180)])))


def test_an_unknown_crs_is_refused():
    with pytest.raises(UsageError, match="--dst-crs: expected a CRS such as EPSG:4326; got 'X'"):
        Reprojection(NORTH_UP, (10, 10), UTM, "X", rounded=False)


def test_longitude_and_latitude_are_known_by_any_name():
    assert is_longitude_latitude("EPSG:4326")
    assert is_longitude_latitude("OGC:CRS84")
    assert not is_longitude_latitude("EPSG:4258")
