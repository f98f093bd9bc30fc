"""Square corners: a building's stair-stepped outline becomes straight walls at right angles.

No library does this within bounds: buildingregulariser 0.2.5, the closest, takes GeoDataFrames
(pandas on the way), takes three times as long and left a town's outlines by up to 6 m.
The method is least squares: walls are found by Douglas-Peucker (`regularize_runs`), turned to the
directions most of them share (`regularize_frames`) and laid through the mean of the outline they
stand for; small steps and spikes go (`regularize_walls`). What does not keep the bounds is left.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.regularize_frames import turn_to_frames
from geoseg.vector.regularize_runs import find_runs
from geoseg.vector.regularize_shift import measure_shift
from geoseg.vector.regularize_walls import Joined, join_walls

Float64 = NDArray[np.float64]

MIN_IOU = 0.85
MAX_AREA_CHANGE = 0.05
# A shape with fewer right angles than this is not made of squares: a blob, a round tank.
MIN_RIGHT_ANGLES = 0.5
# Of the long walls, what must lie along the found directions already; same reason.
MIN_ALIGNED = 0.6
# Walls are moved no further than they must: a share of the greatest shift is tried first.
SHARES = (2 / 3, 1.0)
ENOUGH_RIGHT_ANGLES = 0.75  # of the corners: a form with as many is not moved further for more
# A noisy outline is tried again as if its pixels were this large, as a share of the shift.
COARSE = (1 / 6, 1 / 3)
# Rounding of the last digit: a bound kept exactly in theory must not fail in float64.
SLACK = 1e-9


def square_ring(xy: Float64, *, pixel_m: float, max_shift_m: float) -> Float64 | None:
    """Return the outline with straight walls at right angles, or None where it gets no better.

    A wall may stand at 45 degrees, and a long one that no right angle fits keeps its direction.
    The ring that comes back is simple, runs the same way round, has no fewer right angles and
    fewer vertices (or more right angles); no point of either ring is further than ``max_shift_m``
    from the other; the area differs by at most 5 % and the overlap (IoU) is at least 0.85.
    The same ring gives the same answer, wherever it starts.

    Args:
        xy: closed ring (V, 2), metres on the ground, the outline of pixels or a simpler form.
        pixel_m: size of a pixel in metres; steps below about two pixels count as noise.
        max_shift_m: greatest distance between the old and the new outline.

    Returns:
        A closed ring (W, 2), or None.
    """
    if len(xy) < 5 or not max_shift_m > 0:
        return None
    origin = xy.min(axis=0)
    best: Float64 | None = None
    for shift_m, grain_m in _attempts(pixel_m, max_shift_m):
        # Rounded, so that ties on the pixel grid fall alike wherever on Earth the ring lies.
        ring = np.round((xy[:-1] - origin) / grain_m, 6)
        corners = _square(ring, shift_m / grain_m)
        if corners is None:
            continue
        if best is None or _right_angle_share(corners) > _right_angle_share(best):
            best = corners * grain_m
        if _right_angle_share(best) >= ENOUGH_RIGHT_ANGLES:
            break
    return None if best is None else np.concatenate((best, best[:1])) + origin


def _attempts(pixel_m: float, max_shift_m: float) -> Iterator[tuple[float, float]]:
    """Yield what is tried in turn: how far walls may move, and below what steps are noise."""
    for shift_m in (max_shift_m * share for share in SHARES):
        for grain_m in (pixel_m, *(shift_m * coarse for coarse in COARSE)):
            if grain_m >= pixel_m:
                yield shift_m, grain_m


def _square(ring: Float64, max_shift: float) -> Float64 | None:
    """Return the corners (W, 2) for a ring (N, 2), not closed, whose noise is about a unit."""
    runs = find_runs(ring)
    if runs is None:
        return None
    framed = turn_to_frames(runs, max_shift)
    if framed.aligned < MIN_ALIGNED:
        return None
    joined = join_walls(runs, framed, max_shift)
    if joined is None or not _is_better(joined.corners, runs.corners, ring):
        return None
    return joined.corners if _keeps_bounds(runs.ring, joined, max_shift) else None


def right_angle_share(xy: Float64, tolerance_deg: float = 5.0) -> float:
    """Return the share of a ring's corners that turn by 90 degrees.

    Args:
        xy: closed ring (V, 2), any unit of length.
        tolerance_deg: how far from 90 degrees a corner may be. A vertex that turns by less than
            this from straight on is no corner.

    Returns:
        From 0 to 1; 0 where nothing is a corner.
    """
    return _right_angle_share(xy[:-1], tolerance_deg)


def _right_angle_share(ring: Float64, tolerance_deg: float = 5.0) -> float:
    """Return the same for a ring (V, 2) whose first vertex is not repeated."""
    sides = ring - np.concatenate((ring[-1:], ring[:-1]))
    sides = sides[(sides != 0).any(axis=1)]
    along = sides[:, 0] + 1j * sides[:, 1]
    turn = np.concatenate((along[1:], along[:1])) * along.conj()
    cosine, tolerance = turn.real / np.abs(turn), math.radians(tolerance_deg)
    corners = np.count_nonzero(cosine < math.cos(tolerance))
    right = np.count_nonzero(np.abs(cosine) <= math.sin(tolerance))
    return right / corners if corners else 0.0


def _is_better(corners: Float64, simple: Float64, ring: Float64) -> bool:
    """Return whether right angles were won over the simplified outline, or vertices over both."""
    share = _right_angle_share(corners)
    if share < max(MIN_RIGHT_ANGLES, _right_angle_share(simple)):
        return False
    return len(corners) < len(ring) or share > _right_angle_share(ring)


def _keeps_bounds(ring: Float64, joined: Joined, max_shift: float) -> bool:
    """Return whether distance, area, overlap, way round and simplicity are as promised."""
    import shapely

    shift = measure_shift(ring, joined.corners, joined.starts)
    if shift.distance > max_shift * (1 - SLACK) or not shift.new_area * shift.old_area > 0:
        return False
    old, new = abs(shift.old_area), abs(shift.new_area)
    if abs(new - old) > MAX_AREA_CHANGE * old * (1 - SLACK):
        return False
    # Intersection and union differ from the half sums by half of what the move swept at most.
    if old + new - shift.swept < MIN_IOU * (old + new + shift.swept):
        return False
    return bool(shapely.is_valid(shapely.polygons(joined.corners)))
