"""Square corners: right angles where a building has them, within bounds, or nothing."""

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import features

from geoseg.vector.regularize import right_angle_share, square_ring

SIZE_PX = 90
PIXEL_M = 0.25
# A town's metres, so that rounding is what it is in use.
PLACE_M = np.array([431_250.5, 3_057_100.25])


def rectangle(width, height):
    return [(0, 0), (width, 0), (width, height), (0, height)]


def el(width, height):
    x, y = width / 2, height / 2
    return [(0, 0), (width, 0), (width, y), (x, y), (x, height), (0, height)]


def place(corners, angle, shift=(0.0, 0.0)):
    """Return a shape turned about the middle of the picture."""
    corners = np.array(corners, float)
    corners -= corners.mean(axis=0)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return shapely.Polygon(corners @ turn + SIZE_PX / 2 + np.array(shift))


def outline_of(mask):
    """Return the outline (V, 2), pixels, of the largest part of a mask."""
    shapes = features.shapes(mask.astype(np.uint8), connectivity=4)
    parts = [shapely.geometry.shape(shape) for shape, value in shapes if value == 1]
    return np.array(max(parts, key=lambda part: part.area).exterior.coords)


def draw(shape):
    return outline_of(features.rasterize([shape], (SIZE_PX, SIZE_PX)))


def squared(outline_px, max_shift_px=4.0):
    """Return the squared outline in pixels, found in metres far from the origin."""
    ring = square_ring(
        outline_px * PIXEL_M + PLACE_M, pixel_m=PIXEL_M, max_shift_m=max_shift_px * PIXEL_M
    )
    return None if ring is None else (ring - PLACE_M) / PIXEL_M


def overlap(ring, shape):
    polygon = shapely.Polygon(ring)
    return polygon.intersection(shape).area / polygon.union(shape).area


def blob(seed, size_px=48):
    """Return the outline of a random patch, rough or smooth by the seed."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(size_px, size_px))
    frequency = np.fft.fftfreq(size_px)
    rough = math.exp(rng.uniform(math.log(0.7), math.log(4.0)))
    damped = np.exp(-2 * (np.pi * rough) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    smooth = np.fft.ifft2(np.fft.fft2(noise) * damped).real
    return outline_of(smooth > np.quantile(smooth, 0.6))


def assert_bounds(old, new, max_shift_px):
    before, after = shapely.Polygon(old), shapely.Polygon(new)
    assert (new[0] == new[-1]).all()
    assert after.is_valid
    assert shapely.LinearRing(old).is_ccw == shapely.LinearRing(new).is_ccw
    # Points in between count as well as corners.
    distance = shapely.hausdorff_distance(before.exterior, after.exterior, densify=0.05)
    assert distance <= max_shift_px + 1e-6
    assert abs(after.area / before.area - 1) <= 0.05
    assert overlap(new, before.buffer(0)) >= 0.85 - 1e-6


sides = st.floats(14.0, 60.0)
angles = st.floats(0.0, math.pi)
parts_of_a_pixel = st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0))


@settings(deadline=None, max_examples=60)
@given(width=sides, height=sides, angle=angles, shift=parts_of_a_pixel)
def test_a_drawn_rectangle_comes_back_with_four_right_angles(width, height, angle, shift):
    shape = place(rectangle(width, height), angle, shift)
    outline = draw(shape)
    ring = squared(outline)
    if ring is None:
        # Drawn along the grid, it has its corners already.
        assert len(outline) <= 5 + 4
        return
    assert len(ring) == 5
    assert right_angle_share(ring, 0.01) == 1
    assert overlap(ring, shape) > 0.9
    assert_bounds(outline, ring, 4.0)


@settings(deadline=None, max_examples=60)
@given(width=st.floats(20.0, 60.0), height=st.floats(20.0, 60.0), angle=angles)
def test_a_drawn_l_shape_comes_back_with_six_right_angles(width, height, angle):
    shape = place(el(width, height), angle)
    outline = draw(shape)
    ring = squared(outline)
    if ring is None:
        assert len(outline) <= 7 + 4
        return
    assert len(ring) == 7
    assert right_angle_share(ring, 0.01) == 1
    assert overlap(ring, shape) > 0.9
    assert_bounds(outline, ring, 4.0)


@pytest.mark.parametrize("angle_deg", [7.0, 24.0, 41.0, 68.0])
def test_the_squared_outline_is_nearer_to_the_building_than_the_drawn_one(angle_deg):
    shape = place(el(48, 36), math.radians(angle_deg))
    outline = draw(shape)
    assert overlap(squared(outline), shape) > overlap(outline, shape)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), max_shift_px=st.floats(0.5, 8.0))
def test_any_patch_gives_nothing_or_a_ring_within_the_bounds(seed, max_shift_px):
    outline = blob(seed)
    ring = squared(outline, max_shift_px)
    if ring is not None:
        assert_bounds(outline, ring, max_shift_px)
        assert len(ring) < len(outline)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(2.0, 30.0), min_size=4, max_size=12), st.floats(0.5, 12.0))
def test_any_star_of_few_corners_gives_nothing_or_a_ring_within_the_bounds(radii, max_shift_px):
    around = np.arange(len(radii)) / len(radii) * 2 * np.pi
    star = np.stack((np.cos(around), np.sin(around)), axis=1) * np.array(radii)[:, None]
    star = np.concatenate((star, star[:1]))
    ring = squared(star, max_shift_px)
    if ring is not None:
        assert_bounds(star, ring, max_shift_px)


@pytest.mark.parametrize("radius", [5.0, 9.0, 14.0, 22.0, 33.0])
def test_a_round_tank_stays_round(radius):
    assert squared(draw(shapely.Point(45.3, 44.8).buffer(radius, 64)), 2.0) is None


def test_the_ring_keeps_its_way_round_and_does_not_mind_where_it_starts():
    outline = draw(place(el(48, 36), 0.4))
    ring = squared(outline)
    for start in (1, 17, 60):
        again = np.concatenate((outline[start:-1], outline[: start + 1]))
        np.testing.assert_allclose(squared(again), ring, atol=1e-6)
    back = squared(outline[::-1])
    assert_bounds(outline[::-1], back, 4.0)
    assert overlap(back, shapely.Polygon(ring)) > 0.99


def test_the_same_ring_gives_the_same_bits_and_is_left_as_it_was():
    outline = draw(place(el(48, 36), 0.4))
    kept = outline.copy()
    first, second = squared(outline), squared(outline)
    assert first.tobytes() == second.tobytes()
    assert outline.tobytes() == kept.tobytes()


def test_a_rectangle_along_the_grid_has_nothing_to_gain():
    assert squared(np.array([*rectangle(20.0, 10.0), (0.0, 0.0)])) is None


def test_a_skewed_ring_of_four_becomes_a_rectangle():
    skewed = np.array([(0.0, 0.0), (40.0, 3.0), (42.0, 21.0), (2.5, 20.0), (0.0, 0.0)])
    ring = squared(skewed)
    assert len(ring) == 5
    assert right_angle_share(ring, 0.01) == 1
    assert_bounds(skewed, ring, 4.0)


def test_a_long_diagonal_wall_stays_at_45_degrees():
    shape = place([(0, 0), (50, 0), (50, 22), (32, 40), (0, 40)], 0.3)
    ring = squared(draw(shape))
    assert len(ring) == 6
    assert right_angle_share(ring, 0.01) == pytest.approx(3 / 5)
    assert overlap(ring, shape) > 0.97


def test_a_long_wall_that_no_right_angle_fits_keeps_its_direction():
    shape = place([(0, 0), (56, 0), (56, 20), (28, 40), (0, 40)], 0.3)
    ring = squared(draw(shape))
    assert len(ring) == 6
    assert overlap(ring, shape) > 0.97


def test_two_buildings_that_touch_keep_a_direction_each():
    pair = place(rectangle(30, 20), 0.1, (-15, 0)).union(place(rectangle(30, 20), 0.65, (12, 0)))
    ring = squared(draw(pair), 3.0)
    assert overlap(ring, pair) > 0.95
    assert_bounds(draw(pair), ring, 3.0)


def test_a_deep_slit_of_one_pixel_is_not_filled():
    mask = features.rasterize([place(rectangle(40, 30), 0.15)], (SIZE_PX, SIZE_PX))
    mask[20:45, 47] = 0
    outline = outline_of(mask)
    ring = squared(outline)
    assert_bounds(outline, ring, 4.0)
    assert not shapely.Polygon(ring).contains(shapely.Point(47.5, 38.0))


@pytest.mark.parametrize("width", [1.2, 2.0, 3.0, 4.5])
@pytest.mark.parametrize("angle", [0.0, 0.2, 0.5, math.pi / 4])
def test_a_thin_shape_gives_nothing_or_a_thin_shape(width, angle):
    outline = draw(place(rectangle(50, width), angle))
    ring = squared(outline)
    if ring is not None:
        assert_bounds(outline, ring, 4.0)


def test_a_rough_outline_is_squared_where_walls_may_move_far():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(SIZE_PX, SIZE_PX))
    shape = place(rectangle(56, 40), 0.3)
    mask = features.rasterize([shape.buffer(-2).buffer(2)], (SIZE_PX, SIZE_PX)).astype(bool)
    edge = features.rasterize([shape.boundary.buffer(1.5)], (SIZE_PX, SIZE_PX)).astype(bool)
    rough = outline_of(np.where(edge, noise > 0, mask))
    assert squared(rough, 1.5) is None
    ring = squared(rough, 8.0)
    assert right_angle_share(ring) >= 0.8
    assert overlap(ring, shape) > 0.93


@pytest.mark.parametrize(
    "ring", [[(0, 0), (1, 0), (0, 1), (0, 0)], [(0, 0), (5, 0), (9, 0), (2, 0), (0, 0)]]
)
def test_a_triangle_and_a_line_give_nothing(ring):
    assert squared(np.array(ring, float)) is None


def test_no_room_to_move_gives_nothing():
    outline = draw(place(el(48, 36), 0.4))
    assert squared(outline, 0.0) is None
    assert squared(outline, 0.3) is None


def test_right_angles_are_counted_among_corners_only():
    square = np.array([(0, 0), (2, 0), (4, 0), (4, 4), (0, 4), (0, 4), (0, 0)], float)
    assert right_angle_share(square) == 1
    chamfered = np.array([(0, 0), (4, 0), (4, 3), (3, 4), (0, 4), (0, 0)], float)
    assert right_angle_share(chamfered) == pytest.approx(3 / 5)
    leaning = np.array([(0, 0), (4, 0), (4.3, 4), (0.3, 4), (0, 0)], float)
    assert right_angle_share(leaning) == 1
    assert right_angle_share(leaning, tolerance_deg=4.0) == 0


def test_a_ring_without_corners_has_no_right_angles():
    assert right_angle_share(np.zeros((5, 2))) == 0
