"""How far an outline moves: bounds that hold for every point, from one walk along both rings."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Indexes = NDArray[np.intp]


@dataclass(frozen=True)
class Shift:
    """What a new ring differs from an old one by; pixels.

    Args:
        distance: no point of either ring is further than this from the other ring.
        swept: no less than the area that belongs to one of the shapes only.
        old_area: signed area of the old ring.
        new_area: signed area of the new ring.
    """

    distance: float
    swept: float
    old_area: float
    new_area: float


def measure_shift(ring: Float64, corners: Float64, starts: list[int]) -> Shift:
    """Bound how far a ring (N, 2) and its new form (W, 2), both not closed, are apart.

    Each side of the new ring is given the piece of the old one between the vertices nearest to
    its ends, and the pieces are carried onto their sides: no point of a side is left out, and a
    shape's winding differs only where the pieces pass. That bounds both ways at once, without
    sampling.

    Args:
        ring: the old ring.
        corners: the new ring, one corner before each side.
        starts: about where each side's piece starts; W vertices of the old ring in its order.

    Returns:
        The bounds.
    """
    pieces = _pieces(ring, corners, starts)
    lengths = np.maximum(pieces[1:] - pieces[:-1], 1) + 1
    side = np.repeat(np.arange(len(corners)), lengths)
    last = np.cumsum(lengths) - 1
    first = last - lengths + 1
    # A vertex where two pieces meet is in both; a piece without length is its vertex twice.
    step = np.minimum(np.arange(len(side)) - first[side], (pieces[1:] - pieces[:-1])[side])
    old = ring[(pieces[side] + step) % len(ring)]
    ends = np.concatenate((corners[1:], corners[:1]))
    onto, across = _carry(old, corners[side], ends[side])
    onto[first], onto[last] = corners, ends
    off = onto - old
    return Shift(
        distance=float(np.sqrt((off[:, 0] ** 2 + off[:, 1] ** 2).max())),
        swept=_swept(old, onto, across),
        old_area=float(_cross(old[:-1], old[1:]).sum()) / 2,
        new_area=float(_cross(corners, ends).sum()) / 2,
    )


def _pieces(ring: Float64, corners: Float64, starts: list[int]) -> Indexes:
    """Return where the sides' pieces start, nearest to the corners; (W + 1,), never falling.

    A vertex may be counted from the end of the ring, below zero; the last is the first, once
    round.
    """
    count = len(ring)
    twice = np.concatenate((ring, ring))
    around = [starts[-1] - count, *starts, starts[0] + count]
    middles = [(a + b) // 2 for a, b in pairwise(around)]
    nearest = []
    for corner, (low, high) in zip(corners, pairwise(middles), strict=True):
        lift = count if low < 0 else 0
        off = twice[low + lift : high + lift + 1] - corner
        nearest.append(low + int(np.argmin(np.einsum("ij,ij->i", off, off))))
    return np.array([*nearest, nearest[0] + count])


def _carry(points: Float64, start: Float64, end: Float64) -> tuple[Float64, Float64]:
    """Return each point's nearest point on the side it was given, and its distance from the line.

    The distance is positive to the left.
    """
    vector, off = end - start, points - start
    squares = vector[:, 0] ** 2 + vector[:, 1] ** 2
    along = off[:, 0] * vector[:, 0] + off[:, 1] * vector[:, 1]
    share = np.minimum(np.maximum(along / squares, 0.0), 1.0)
    across = _cross(vector, off) / np.sqrt(squares)
    return start + share[:, None] * vector, across


def _swept(old: Float64, onto: Float64, across: Float64) -> float:
    """Return no less than the area passed when the old points go straight to the new ones."""
    off = onto - old
    ahead = onto[1:] - onto[:-1]
    # Two triangles cover what the part between two points passes, wherever they go.
    triangles = np.abs(_cross(old[1:] - old[:-1], off[:-1])) + np.abs(_cross(ahead, off[1:]))
    # Parts that cross the side they go to at right angles pass two small triangles, known exactly.
    left, right = np.abs(across[:-1]), np.abs(across[1:])
    upright = off[:, 0] ** 2 + off[:, 1] ** 2 <= across * across + 1e-9
    crossing = (across[:-1] * across[1:] < 0) & upright[:-1] & upright[1:]
    both = np.where(crossing, left + right, 1.0)
    length = np.sqrt(ahead[:, 0] ** 2 + ahead[:, 1] ** 2)
    exact = length * (left * left + right * right) / both
    return float(np.where(crossing, np.minimum(exact, triangles), triangles).sum()) / 2


def _cross(a: Float64, b: Float64) -> Float64:
    """Return the cross products of two lists of vectors."""
    product: Float64 = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return product
