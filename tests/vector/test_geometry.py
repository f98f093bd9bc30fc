import itertools

import numpy as np
import pytest
import shapely
from affine import Affine

from geoseg.vector.geometry import Geometries, parts_of, planar_areas, to_wkb
from tests.conftest import NORTH_UP, ROTATED, SOUTH_UP
from tests.vector.batches import batch_of, box


@pytest.fixture
def ragged():
    holed = box(0, 0, 9, 9) - box(2, 2, 4, 5) - box(6, 6, 7, 7)
    return batch_of([box(10, 0, 12, 1), shapely.orient_polygons(holed, exterior_cw=True)])


def split(wkb, offsets):
    return [wkb[a:b].tobytes() for a, b in itertools.pairwise(offsets)]


def test_wkb_is_what_shapely_writes(ragged):
    found = split(*to_wkb(Geometries.of(ragged), multi=False))
    offsets = ragged.ring_offsets, ragged.polygon_offsets
    polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, ragged.xy, offsets)
    assert found == list(shapely.to_wkb(polygons, byte_order=1))


def test_multipolygon_wkb_is_what_shapely_writes(ragged):
    both = Geometries(ragged.xy, ragged.ring_offsets, ragged.polygon_offsets, np.array([0, 2]))
    for features in (both, Geometries.of(ragged)):
        offsets = features.ring_offsets, features.polygon_offsets, features.feature_offsets
        kind = shapely.GeometryType.MULTIPOLYGON
        shapes = shapely.from_ragged_array(kind, features.xy, offsets)
        expected = list(shapely.to_wkb(shapes, byte_order=1))
        assert split(*to_wkb(features, multi=True)) == expected


def test_areas_in_pixels_are_exact(ragged):
    assert planar_areas(ragged).tolist() == [2.0, 81.0 - 6.0 - 1.0]


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED, Affine.identity()])
def test_exteriors_run_counter_clockwise_on_the_ground(ragged, transform):
    placed = Geometries.of(ragged).transformed(transform)
    wkb = split(*to_wkb(placed, multi=False))
    for polygon in shapely.from_wkb(wkb):
        assert polygon.exterior.is_ccw
        assert not any(hole.is_ccw for hole in polygon.interiors)
    outline = shapely.from_wkb(wkb[0])
    corners = sorted(transform @ corner for corner in [(10, 0), (12, 0), (12, 1), (10, 1)])
    np.testing.assert_allclose(sorted(outline.exterior.coords[:-1]), corners)


@pytest.mark.parametrize("most", [1, 6, 11, 100])
def test_parts_of_a_batch_are_the_batch(most):
    batch = batch_of([box(i, 0, i + 1, 1) for i in range(7)], list(range(7)))
    parts = list(parts_of(batch, most))
    assert [i for part in parts for i in part.class_id] == list(range(7))
    assert all(len(part.xy) <= max(most, 5) for part in parts)
    whole = b"".join(to_wkb(Geometries.of(part), multi=False)[0].tobytes() for part in parts)
    assert whole == to_wkb(Geometries.of(batch), multi=False)[0].tobytes()
