"""The walls in a stair-stepped outline: its runs between the corners of a simpler form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# The steps of a straight wall's outline are up to 1.41 pixels apart, measured across it.
WALL_TOLERANCE_PX = 1.5


@dataclass(frozen=True)
class Runs:
    """Runs of an outline, one per wall; lengths in pixels.

    Args:
        ring: (N, 2), the outline, not closed, started at a corner.
        starts: int (K,), the vertex of ``ring`` where each run starts; the first is 0.
        corners: (K, 2), these vertices.
        length: (K,), from corner to corner.
        weight: (K,), length along the outline.
        centre: (K, 2), mean of the outline's points.
        spread: complex (K,), second moments (xx - yy) + 2i xy: twice the angle of the line of
            least squares, and how sure it is.
        angle: (K,), direction of that line, the way the outline runs; radians.
    """

    ring: Float64
    starts: NDArray[np.intp]
    corners: Float64
    length: Float64
    weight: Float64
    centre: Float64
    spread: NDArray[np.complex128]
    angle: Float64


def find_runs(ring: Float64) -> Runs | None:
    """Return the runs of an outline (N, 2), not closed, in pixels; None for fewer than three."""
    first = _outermost(ring)
    closed = np.concatenate((ring[first:], ring[: first + 1]))
    bounds = _simplify(closed)
    if len(bounds) < 4:
        return None
    sides = closed[1:] - closed[:-1]
    x, y = ((closed[1:] + closed[:-1]) / 2).T
    dx, dy = sides.T
    weight = np.hypot(dx, dy)
    sums = np.zeros((6, len(closed)))
    # Exact integrals along the sides, so that a wall's line does not depend on where vertices are.
    terms = np.stack(
        (np.ones_like(x), x, y, x * x + dx * dx / 12, y * y + dy * dy / 12, x * y + dx * dy / 12)
    )
    np.cumsum(terms * weight, axis=1, out=sums[:, 1:])
    at = sums[:, bounds]
    w, sx, sy, sxx, syy, sxy = at[:, 1:] - at[:, :-1]
    cx, cy = sx / w, sy / w
    spread = (sxx - w * cx * cx) - (syy - w * cy * cy) + 2j * (sxy - w * cx * cy)
    corners = closed[bounds]
    chords = corners[1:] - corners[:-1]
    along = chords[:, 0] + 1j * chords[:, 1]
    angle = np.angle(spread) / 2
    backwards = (along * np.exp(-1j * angle)).real < 0
    return Runs(
        ring=closed[:-1],
        starts=bounds[:-1],
        corners=corners[:-1],
        length=np.abs(along),
        weight=w,
        centre=np.stack((cx, cy), axis=1),
        spread=spread,
        angle=angle + np.pi * backwards,
    )


def _outermost(ring: Float64) -> int:
    """Return the vertex furthest from the middle of the box: a corner, wherever the ring starts."""
    off = ring - (ring.max(axis=0) + ring.min(axis=0)) / 2
    squares = off[:, 0] ** 2 + off[:, 1] ** 2
    furthest = np.flatnonzero(squares >= squares.max() * (1 - 1e-9))
    if len(furthest) == 1:
        return int(furthest[0])
    order = np.lexsort(np.round(off[furthest], 6).T)
    return int(furthest[order[0]])


def _simplify(closed: Float64) -> NDArray[np.intp]:
    """Return which vertices Douglas-Peucker keeps, the last among them."""
    import shapely

    # The vertex's number travels as its height, which the distance in the plane leaves out.
    line = shapely.linestrings(np.column_stack((closed, np.arange(len(closed)))))
    simple = shapely.simplify(line, WALL_TOLERANCE_PX, preserve_topology=False)
    kept: NDArray[np.intp] = shapely.get_coordinates(simple, include_z=True)[:, 2].astype(np.intp)
    return kept
