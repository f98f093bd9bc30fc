"""Walls laid through their runs and cut where neighbours meet; small steps and spikes taken out.

A building has about ten walls: plain floats are faster here than arrays of ten.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.regularize_frames import LONG_PX, Framed
from geoseg.vector.regularize_runs import Runs

Float64 = NDArray[np.float64]

# Steps below this are what a raster makes of one straight wall.
MIN_WALL_PX = 2.0
# The end of a slit between two walls, and of a spike, may be one pixel, and less when slanted.
MIN_END_PX = 0.25
# Sine of the angle below which neighbours count as parallel: their crossing would lie anywhere.
PARALLEL = math.sin(math.radians(15.0))
# Cosine below which the neighbours of a wall run to and fro: the wall is an end.
OPPOSITE = -0.5


@dataclass(slots=True)
class Wall:
    """A directed line that stands for a piece of the outline; pixels.

    Args:
        ux: direction, the way the outline runs, a unit vector.
        uy: its second part.
        x: a point of the line.
        y: its second part.
        weight: length of outline it stands for; none for a step between two walls.
        start: the vertex of the outline where its piece starts.
        least: length below which it goes.
    """

    ux: float
    uy: float
    x: float
    y: float
    weight: float
    start: int
    least: float = MIN_WALL_PX

    def side(self, x: float, y: float) -> float:
        """Return how far a point lies to the left of the line."""
        return self.ux * (y - self.y) - self.uy * (x - self.x)

    def cosine(self, other: "Wall") -> float:
        """Return 1 for the same direction, -1 for the opposite."""
        return self.ux * other.ux + self.uy * other.uy

    def is_along(self, other: "Wall") -> bool:
        """Return whether the lines are as good as parallel."""
        return abs(self.ux * other.uy - self.uy * other.ux) < PARALLEL


@dataclass(frozen=True)
class Joined:
    """A ring made of walls.

    Args:
        corners: (W, 2), not closed, pixels.
        starts: the vertex of the outline where the walls' pieces start, W of them, in its order.
    """

    corners: Float64
    starts: list[int]


def join_walls(runs: Runs, framed: Framed, max_shift_px: float) -> Joined | None:
    """Return the ring that walls turned to their frames make, or None where they make none."""
    walls = _lay(runs, framed)
    # Each round takes a wall out or puts a step between two, which the next one may take out.
    for _ in range(4 * len(walls)):
        _settle_parallels(walls, runs.ring, max_shift_px)
        if len(walls) < 4:
            return None
        corners = _crossings(walls)
        if not _drop_short(walls, corners, max_shift_px):
            return Joined(np.array(corners), [wall.start for wall in walls])
    return None


def _lay(runs: Runs, framed: Framed) -> list[Wall]:
    """Return the walls, each through the mean of its run."""
    return [
        Wall(math.cos(angle), math.sin(angle), x, y, weight, start, least)
        for angle, (x, y), weight, start, least in zip(
            framed.angle.tolist(),
            runs.centre.tolist(),
            runs.weight.tolist(),
            runs.starts.tolist(),
            np.where(framed.is_square, MIN_WALL_PX, LONG_PX).tolist(),
            strict=True,
        )
    ]


def _settle_parallels(walls: list[Wall], ring: Float64, max_shift_px: float) -> None:
    """Merge neighbours on one line, put a wall across between those on two, drop small spikes."""
    i, quiet = 0, 0
    while quiet < len(walls) >= 4:
        i %= len(walls)
        after = (i + 1) % len(walls)
        first, second = walls[i], walls[after]
        if not first.is_along(second):
            i, quiet = i + 1, quiet + 1
            continue
        quiet = 0
        is_spike = first.cosine(second) < 0
        # A spike is out and back: taking it away moves its tip by half of its outline or more.
        if is_spike and min(first.weight, second.weight) <= max_shift_px:
            del walls[i if first.weight < second.weight else after]
        elif not is_spike and abs(_apart(first, second)) < MIN_WALL_PX:
            walls[i] = _merge(first, second)
            del walls[after]
        else:
            walls.insert(after, _across(first, second, ring))
        # A change at the seam of the list moves what lies before; start over from there.
        i = max(i - 1, 0)


def _apart(first: Wall, second: Wall) -> float:
    """Return how far the second line lies to the left of the first, by the surer direction."""
    if first.weight >= second.weight:
        return first.side(second.x, second.y)
    return -math.copysign(1.0, first.cosine(second)) * second.side(first.x, first.y)


def _merge(first: Wall, second: Wall) -> Wall:
    """Return one wall for both, through their common mean, in the direction of the longer."""
    longer = first if first.weight >= second.weight else second
    weight = first.weight + second.weight or 1.0
    share = second.weight / weight
    x = first.x + share * (second.x - first.x)
    y = first.y + share * (second.y - first.y)
    return Wall(longer.ux, longer.uy, x, y, weight, first.start, longer.least)


def _across(first: Wall, second: Wall, ring: Float64) -> Wall:
    """Return the wall across, from one parallel to the other, where their pieces meet."""
    turn = math.copysign(1.0, _apart(first, second))
    ux, uy = first.ux, first.uy
    if first.weight < second.weight:
        flip = math.copysign(1.0, first.cosine(second))
        ux, uy = flip * second.ux, flip * second.uy
    x, y = ring[second.start].tolist()
    return Wall(-turn * uy, turn * ux, x, y, 0.0, second.start)


def _crossings(walls: list[Wall]) -> list[tuple[float, float]]:
    """Return where each wall starts: its crossing with the one before."""
    corners = []
    before = walls[-1]
    for wall in walls:
        along = wall.side(before.x, before.y) / (wall.uy * before.ux - wall.ux * before.uy)
        corners.append((before.x + along * before.ux, before.y + along * before.uy))
        before = wall
    return corners


def _drop_short(walls: list[Wall], corners: list[tuple[float, float]], max_shift_px: float) -> bool:
    """Take the shortest walls out; return False where all are long enough.

    Only walls whose neighbours are not touched by another's loss go in one round.
    """
    lengths = _lengths(walls, corners)
    count = len(walls)
    touched: set[int] = set()
    gone: set[int] = set()
    shares = [length / wall.least for length, wall in zip(lengths, walls, strict=True)]
    for share, i in sorted(zip(shares, range(count), strict=True)):
        if share >= 1:
            break
        before, after = (i - 1) % count, (i + 1) % count
        around = {(i + step) % count for step in range(-3, 4)}
        if touched & around:
            continue
        lost = {i}
        if walls[before].cosine(walls[after]) < OPPOSITE:
            if min(lengths[before], lengths[after]) > max_shift_px and lengths[i] >= MIN_END_PX:
                continue
            # The end of a spike or notch goes with its shorter side; what is left is a step.
            lost.add(before if lengths[before] < lengths[after] else after)
        touched |= around
        gone |= lost
    walls[:] = [wall for i, wall in enumerate(walls) if i not in gone]
    return bool(gone)


def _lengths(walls: list[Wall], corners: list[tuple[float, float]]) -> list[float]:
    """Return each wall's length along its direction, below zero where it is turned over."""
    ends = [*corners[1:], corners[0]]
    return [
        wall.ux * (end[0] - start[0]) + wall.uy * (end[1] - start[1])
        for wall, start, end in zip(walls, corners, ends, strict=True)
    ]
