"""Simpler, rounder and square borders: never a gap, an overlap or an invalid shape."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.vector.native import NativeTracer
from geoseg.vector.rows import ShapeOptions
from geoseg.vector.trace import ReferenceTracer
from tests.vector.random_maps import class_maps, features, flatten, shape_options, towns, trace

needs_library = pytest.mark.skipif(not NativeTracer.is_available(), reason="no compiled kernels")
Tracer = NativeTracer if NativeTracer.is_available() else ReferenceTracer


def box_of(ring):
    """Return a squared form of small rings that is a little beside them."""
    if len(ring) > 16:
        return None
    (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
    left, right = left + 0.1, right + 0.1
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])


def leaping_box(ring):
    """Return a box that lies up to 1.5 px beside a ring's own, or None; by the ring alone."""
    left, top, right, bottom = *ring.min(axis=0), *ring.max(axis=0)
    rng = np.random.default_rng(int(left * 7919 + top * 104729 + right * 31 + bottom))
    left, top, right, bottom = np.array([left, top, right, bottom]) + rng.uniform(-1.5, 1.5, 4)
    if rng.random() < 0.2 or right - left < 0.2 or bottom - top < 0.2:
        return None
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])


def squared(options: ShapeOptions) -> ShapeOptions:
    return ShapeOptions(
        connectivity=options.connectivity,
        simplify_px=options.simplify_px,
        smooth_px=options.smooth_px,
        aspect=options.aspect,
        square=leaping_box,
        square_classes=frozenset({0, 2}),
        square_shift_px=2.2,
    )


def shapes_of(codes, options, tracer=Tracer):
    return list(features(trace(tracer(*codes.shape, options), codes, len(codes))))


def scaled(shape, options):
    return shapely.transform(shape, lambda xy: xy * [1, options.aspect])


@given(codes=class_maps() | towns(), options=shape_options, square=st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_gaps_no_overlaps_nothing_invalid(codes, options, square):
    found = shapes_of(codes, squared(options) if square else options)
    assert all(shape.is_valid for _, _, shape in found)
    parts = [part for _, _, shape in found for part in shape.geoms]
    if parts:
        assert shapely.coverage_is_valid(np.array(parts, dtype=object))
    if (codes >= 0).all():
        assert np.isclose(sum(part.area for part in parts), codes.size, rtol=1e-12)


@given(codes=class_maps(), options=shape_options)
@settings(max_examples=60, deadline=None)
def test_borders_stay_within_the_distance(codes, options):
    plain = ShapeOptions(connectivity=options.connectivity)
    before = sorted(shapes_of(codes, plain), key=lambda f: (f[0], f[1], f[2].bounds))
    after = sorted(shapes_of(codes, options), key=lambda f: (f[0], f[1], f[2].bounds))
    most = options.simplify_px + options.smooth_px
    for (_, _, old), (_, _, new) in zip(before, after, strict=True):
        if old.bounds != new.bounds:
            continue  # two features of one size may have changed places
        a, b = (shapely.boundary(scaled(shape, options)) for shape in (old, new))
        assert shapely.hausdorff_distance(a, b) <= most + 1e-9


@given(codes=class_maps(), options=shape_options, strip=st.integers(1, 9), square=st.booleans())
@settings(max_examples=60, deadline=None)
def test_strips_change_no_shape(codes, options, strip, square):
    options = squared(options) if square else options
    whole = flatten(trace(Tracer(*codes.shape, options), codes, len(codes)))
    strips = flatten(trace(Tracer(*codes.shape, options), codes, strip))
    for name, values in whole.items():
        assert np.array_equal(values, strips[name], equal_nan=values.dtype.kind == "f"), name


@needs_library
@given(
    codes=class_maps(lowest=-2) | towns(),
    options=shape_options,
    strip=st.integers(1, 9),
    square=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_compiled_tracer_equals_the_reference_to_the_bit(codes, options, strip, square):
    options = squared(options) if square else options
    confidence = np.sin(np.arange(codes.size, dtype=np.float32)).reshape(codes.shape)
    confidence[confidence < -0.9] = np.nan
    wanted = flatten(trace(ReferenceTracer(*codes.shape, options), codes, len(codes), confidence))
    found = flatten(trace(NativeTracer(*codes.shape, options), codes, strip, confidence))
    for name, values in wanted.items():
        assert np.array_equal(values, found[name], equal_nan=values.dtype.kind == "f"), name


def test_a_staircase_becomes_a_line():
    codes = np.tri(40, 40, dtype=np.int32)
    found = shapes_of(codes, ShapeOptions(simplify_px=1.0))
    assert {code: shapely.get_num_coordinates(shape) for code, _, shape in found} == {0: 4, 1: 6}


def test_smoothing_moves_no_junction_and_no_corner_of_the_map():
    codes = np.zeros((20, 20), np.int32)
    codes[:10, 10:] = 1
    codes[10:, 10:] = 2
    found = shapes_of(codes, ShapeOptions(smooth_px=2.0))
    for corner in ((0, 0), (0, 20), (20, 20), (10, 10), (10, 0), (20, 10)):
        assert sum(shape.distance(shapely.Point(corner)) == 0 for _, _, shape in found) >= 1
        assert any((np.array(shapely.get_coordinates(s)) == corner).all(1).any() for *_, s in found)


@pytest.mark.parametrize("tracer", [ReferenceTracer, Tracer])
def test_an_outline_is_squared_only_where_nothing_is_near(tracer):
    codes = np.zeros((40, 60), np.int32)
    codes[10:20, 10:20] = 1  # free-standing
    codes[10:20, 40:50] = 1  # its squared form would touch the neighbour
    codes[10:20, 51:55] = 2
    options = ShapeOptions(
        square=lambda ring: np.add(box_of(ring), [0.8, 0]),
        square_classes=frozenset({1}),
        square_shift_px=1.5,
    )
    batches = trace(tracer(*codes.shape, options), codes, 7)
    squares = np.concatenate([b.squared for b in batches])
    lefts = {
        shape.bounds[0]: bool(is_squared)
        for (code, _, shape), is_squared in zip(features(batches), squares, strict=True)
        if code == 1
    }
    assert lefts == {10.9: True, 40.0: False}


@pytest.mark.parametrize("tracer", [ReferenceTracer, Tracer])
def test_neighbours_a_pixel_apart_are_both_squared(tracer):
    codes = np.zeros((40, 60), np.int32)
    codes[10:30, 10:30] = codes[10:30, 31:50] = 1
    options = ShapeOptions(square=box_of, square_classes=frozenset({1}), square_shift_px=1.5)
    batches = trace(tracer(*codes.shape, options), codes, 7)
    shapes = [shape for code, _, shape in features(batches) if code == 1]
    assert [shape.bounds for shape in shapes] == [(10.1, 10, 30.1, 30), (31.1, 10, 50.1, 30)]


@pytest.mark.parametrize("tracer", [ReferenceTracer, Tracer])
def test_an_outline_is_drawn_once_whichever_side_comes_first(tracer):
    codes = np.zeros((12, 13), np.int32)
    codes[4:11, 1:8] = 2
    codes[[4, 8, 9, 10, 10], [2, 2, 4, 1, 7]] = 0
    codes[8:10, 9:11] = codes[10, 10] = 3
    options = squared(ShapeOptions())
    parts = [shape for _, _, shape in features(trace(tracer(*codes.shape, options), codes, 1))]
    assert shapely.coverage_is_valid(np.array([p for s in parts for p in s.geoms], dtype=object))


def test_the_surroundings_of_a_squared_outline_follow_it():
    codes = np.zeros((30, 30), np.int32)
    codes[10:20, 10:20] = 1
    options = ShapeOptions(square=box_of, square_classes=frozenset({1}), square_shift_px=1.5)
    found = {code: shape for code, _, shape in shapes_of(codes, options)}
    assert found[1].bounds == (10.1, 10, 20.1, 20)
    assert shapely.equals(found[0].geoms[0].interiors[0], found[1].geoms[0].exterior)


@needs_library
def test_what_squaring_raises_comes_through_the_library():
    def fail(ring):
        raise ValueError("no square today")

    codes = np.zeros((9, 9), np.int32)
    codes[3:6, 3:6] = 1
    options = ShapeOptions(square=fail, square_classes=frozenset({1}))
    with pytest.raises(ValueError, match="no square today"):
        trace(NativeTracer(9, 9, options), codes, 9)
