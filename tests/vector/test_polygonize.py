"""Polygons of class maps: exact, whatever the strips."""

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.vector.native import NativeTracer
from geoseg.vector.polygonize import iter_polygons
from geoseg.vector.rows import ShapeOptions
from geoseg.vector.trace import ReferenceTracer
from tests.vector.random_maps import ArrayRows, class_maps, features, flatten, trace

TRACERS = [
    ReferenceTracer,
    pytest.param(
        NativeTracer,
        marks=pytest.mark.skipif(not NativeTracer.is_available(), reason="no compiled kernels"),
    ),
]


def polygons(codes, *, tracer=ReferenceTracer, strip=None, confidence=None, **options):
    made = tracer(*codes.shape, ShapeOptions(**options))
    return trace(made, codes, strip or len(codes), confidence)


@pytest.mark.parametrize("tracer", TRACERS)
@given(codes=class_maps(), connectivity=st.sampled_from([4, 8]))
@settings(max_examples=60, deadline=None)
def test_polygons_are_valid_and_give_the_map_back(tracer, codes, connectivity):
    found = list(features(polygons(codes, tracer=tracer, connectivity=connectivity)))
    assert all(shape.is_valid for _, _, shape in found)
    assert all(shape.area == pixels for _, pixels, shape in found)
    back = np.full(codes.shape, -1, np.int32)
    if found:
        burnt = [(shape, code) for code, _, shape in found]
        back = rasterio.features.rasterize(burnt, codes.shape, fill=-1, dtype="int32")
    assert (back == codes).all()


@pytest.mark.parametrize("tracer", TRACERS)
@given(codes=class_maps(), connectivity=st.sampled_from([4, 8]))
@settings(max_examples=40, deadline=None)
def test_features_are_those_of_rasterio(tracer, codes, connectivity):
    found = polygons(codes, tracer=tracer, connectivity=connectivity)
    ours = sorted((code, pixels) for code, pixels, _ in features(found))
    shapes = rasterio.features.shapes(codes, mask=codes >= 0, connectivity=connectivity)
    theirs = sorted((int(code), shapely.geometry.shape(shape).area) for shape, code in shapes)
    assert ours == theirs


@pytest.mark.parametrize("tracer", TRACERS)
@given(codes=class_maps(), strip=st.integers(1, 9), connectivity=st.sampled_from([4, 8]))
@settings(max_examples=40, deadline=None)
def test_strips_change_nothing(tracer, codes, strip, connectivity):
    whole = flatten(polygons(codes, tracer=tracer, connectivity=connectivity))
    strips = flatten(polygons(codes, tracer=tracer, connectivity=connectivity, strip=strip))
    for name, values in whole.items():
        assert np.array_equal(values, strips[name], equal_nan=values.dtype.kind == "f"), name


@given(codes=class_maps())
@settings(max_examples=30, deadline=None)
def test_neighbours_share_every_corner_of_their_border(codes):
    found = [p for _, _, shape in features(polygons(codes)) for p in shape.geoms]
    assert shapely.coverage_is_valid(np.array(found, dtype=object)) if found else True


def test_faces_that_touch_at_a_corner_are_one_feature_with_eight_neighbours():
    codes = np.array([[1, 0], [0, 1]], np.int32)
    four = [(code, len(shape.geoms)) for code, _, shape in features(polygons(codes))]
    eight = [
        (code, len(shape.geoms)) for code, _, shape in features(polygons(codes, connectivity=8))
    ]
    assert sorted(four) == [(0, 1), (0, 1), (1, 1), (1, 1)]
    assert sorted(eight) == [(0, 2), (1, 2)]


def test_a_hole_that_touches_the_exterior_at_a_corner_is_a_ring_of_its_own():
    codes = np.ones((3, 3), np.int32)
    codes[0, 0] = codes[1, 1] = 0
    [shape] = [shape for code, _, shape in features(polygons(codes)) if code == 1]
    assert shape.is_valid
    assert len(shape.geoms[0].interiors) == 1


def test_exteriors_run_counter_clockwise_on_the_ground():
    codes = np.zeros((4, 4), np.int32)
    codes[1:3, 1:3] = 1
    for _, _, shape in features(polygons(codes)):
        ground = shapely.transform(shape, lambda xy: xy * [1, -1])
        assert shapely.is_ccw(ground.geoms[0].exterior)
        assert not any(shapely.is_ccw(ring) for ring in ground.geoms[0].interiors)


def test_nodata_is_no_polygon_and_marks_the_edge():
    codes = np.full((7, 7), 0, np.int32)
    codes[3, 3] = 1  # free
    codes[1, 1] = -1
    codes[1, 2] = 2  # beside nodata
    [batch] = list(iter_polygons(ArrayRows(codes), ShapeOptions()))
    edges = dict(zip(batch.class_id.tolist(), batch.on_edge.tolist(), strict=True))
    assert edges == {0: True, 1: False, 2: True}


@pytest.mark.parametrize("tracer", TRACERS)
def test_a_class_left_out_is_no_ground_without_a_class(tracer):
    codes = np.full((5, 5), -2, np.int32)
    codes[2, 2] = 1
    [batch] = polygons(codes, tracer=tracer)
    assert batch.class_id.tolist() == [1]
    assert batch.on_edge.tolist() == [False]
    codes[2, 3] = -1
    [batch] = polygons(codes, tracer=tracer)
    assert batch.on_edge.tolist() == [True]


def test_only_the_classes_wanted_become_polygons():
    codes = np.array([[0, 1, 2]], np.int32)
    options = ShapeOptions(classes=frozenset({1}))
    [batch] = list(iter_polygons(ArrayRows(codes), options))
    assert batch.class_id.tolist() == [1]


@pytest.mark.parametrize("tracer", TRACERS)
def test_confidence_is_the_mean_over_the_pixels_that_have_one(tracer):
    codes = np.array([[0, 0, 1], [0, 1, 1]], np.int32)
    confidence = np.array([[0.5, np.nan, np.nan], [0.75, np.nan, np.nan]], np.float32)
    [batch] = polygons(codes, tracer=tracer, confidence=confidence)
    assert batch.class_id.tolist() == [0, 1]
    assert batch.confidence[0] == 0.625
    assert np.isnan(batch.confidence[1])


def test_a_map_without_classes_gives_no_polygon():
    assert list(iter_polygons(ArrayRows(np.full((4, 3), -1, np.int32)), ShapeOptions())) == []


def test_open_features_alone_are_held():
    codes = np.arange(200, dtype=np.int32).repeat(3)[:, None] * np.ones(20, np.int32)
    tracer = ReferenceTracer(*codes.shape, ShapeOptions())
    held = 0
    for start in range(0, len(codes), 3):
        tracer.add_rows(codes[start : start + 3], None)
        while tracer.pop(10) is not None:
            pass
        held = max(held, len(tracer.graph.nodes))
    # Corners of two bands; those on the map's edge belong to the outside, which stays open.
    assert held <= 2 * 200 + 8
