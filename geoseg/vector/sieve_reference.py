"""The sieve in plain Python: which pixels of a class map get another class, row by row.

The rules are those of `geoseg.vector.clean`; ``kernels/cpu/sieve.cpp`` gives the same changes.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.rows import NODATA

CHANGE = np.dtype([("row", "<i4"), ("first", "<i4"), ("stop", "<i4"), ("class_id", "<i4")])
REGION_BYTES = 1000  # of a region as Python holds it, with its runs and contacts
NO_EDGE = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class SieveRules:
    """What is small, in the units of the weights; `geoseg.vector.clean` says what they mean."""

    min_area: int
    fill_holes: int
    corners_join: bool

    @property
    def limit(self) -> int:
        """Area from which a region never changes."""
        return max(self.min_area, self.fill_holes)


@dataclass(eq=False, slots=True)
class Region:
    """Connected pixels of one class, as far as they are known; joined ones point to the first.

    Args:
        first: number in reading order of the first pixels.
        was: class in the map as it came.
        class_id: class now.
        ground: touches the map's edge or nodata.
        fixed: keeps its class for ever; its runs and contacts are not kept.
        runs: row, first and stop column of what the region was made of at first.
        contacts: the other region, pixel edges shared (0: a corner), the first of these edges.
    """

    first: int
    was: int
    class_id: int
    area: int = 0
    ground: bool = False
    fixed: bool = False
    parent: "Region | None" = None
    runs: list[tuple[int, int, int]] = field(default_factory=list)
    contacts: list[tuple["Region", int, int]] = field(default_factory=list)

    def root(self) -> "Region":
        """Return the region that this one is part of by now."""
        region = self
        while region.parent is not None:
            if region.parent.parent is not None:
                region.parent = region.parent.parent
            region = region.parent
        return region

    def neighbours(self) -> Iterator[tuple["Region", int, int]]:
        """Yield the contacts with other regions."""
        for other, length, edge in self.contacts:
            other = other.root()  # noqa: PLW2901 - as it is now
            if other is not self:
                yield other, length, edge

    def fix(self) -> None:
        """Let the region keep its class for ever."""
        self.fixed = True
        self.runs, self.contacts = [], []


@dataclass(slots=True)
class Piece:
    """A run of equal values in the row at hand."""

    first: int
    stop: int
    class_id: int
    region: Region | None = None


class ReferenceSieve:
    """Takes rows from the top and returns the changes that are known."""

    def __init__(self, height: int, width: int, rules: SieveRules) -> None:
        self._height, self._width, self._rules = height, width, rules
        self._row = self._count = 0
        self._above: list[Piece] = []
        self._small: list[Region] = []

    @property
    def undecided(self) -> int:
        """Regions whose runs and contacts are held."""
        return len(self._small)

    def held_bytes(self) -> int:
        """Return about how much memory the undecided regions take."""
        return REGION_BYTES * len(self._small)

    def add(self, rows: NDArray[np.int32], weights: NDArray[np.int64]) -> NDArray[np.void]:
        """Return the changes, of CHANGE, that the next rows make known, in any row so far.

        Args:
            rows: class ids (rows, width), -1 for nodata.
            weights: area of a pixel of each row, int64 (rows,).
        """
        for row, weight in zip(rows, weights.tolist(), strict=True):
            self._add_row(row, weight)
        return np.array(self._settle(), CHANGE)

    def _add_row(self, row: NDArray[np.int32], weight: int) -> None:
        pieces = _split(row)
        pairs = list(_pairs(self._above, pieces))
        for above, piece, shared in pairs:
            if above.region and above.class_id == piece.class_id and self._joins(shared):
                region, known = above.region.root(), piece.region
                piece.region = _join(region, known.root(), self._rules) if known else region
        for piece in pieces:
            if piece.class_id != NODATA:
                self._grow(piece, weight)
        base = self._row * self._width
        for left, right in pairwise(pieces):
            self._touch(left, right, 1, 2 * (base + right.first - 1))
        for above, piece, shared in pairs:
            edge = 2 * (base - self._width + max(above.first, piece.first)) + 1
            self._touch(above, piece, shared, edge if shared else NO_EDGE)
        self._above = pieces
        self._row += 1

    def _joins(self, shared: int) -> bool:
        return shared > 0 or self._rules.corners_join

    def _grow(self, piece: Piece, weight: int) -> None:
        if piece.region is None:
            piece.region = Region(self._count, piece.class_id, piece.class_id)
            self._small.append(piece.region)
            self._count += 1
        region = piece.region = piece.region.root()
        if region.fixed:
            return
        region.area += weight * (piece.stop - piece.first)
        region.runs.append((self._row, piece.first, piece.stop))
        at_edge = self._row in {0, self._height - 1}
        region.ground |= at_edge or piece.first == 0 or piece.stop == self._width
        if region.area >= self._rules.limit:
            region.fix()

    def _touch(self, one: Piece, other: Piece, length: int, edge: int) -> None:
        if one.region is None or other.region is None:
            known = one.region or other.region
            # Where corners do not join, a way out of a hole may lead through one.
            if known and (length or not self._rules.corners_join):
                known.root().ground = True
            return
        a, b = one.region.root(), other.region.root()
        if a is b:
            return
        for region, neighbour in ((a, b), (b, a)):
            if not region.fixed:
                region.contacts.append((neighbour, length, edge))

    def _settle(self) -> list[tuple[int, int, int, int]]:
        """Decide the small regions that no later row can touch, directly or through others."""
        small = [region for region in self._small if region.parent is None and not region.fixed]
        waiting = self._waiting()
        decided = [region for region in small if region not in waiting]
        self._small = [region for region in small if region in waiting]
        decide(decided, self._rules)
        return [
            (*run, region.root().class_id)
            for region in decided
            if region.root().class_id != region.was
            for run in region.runs
        ]

    def _waiting(self) -> set[Region]:
        if self._row == self._height:
            return set()
        open_regions = [piece.region.root() for piece in self._above if piece.region]
        todo = [region for region in open_regions if not region.fixed]
        waiting = set(todo)
        while todo:
            for other, _, _ in todo.pop().neighbours():
                if not other.fixed and other not in waiting:
                    waiting.add(other)
                    todo.append(other)
        return waiting


def decide(regions: list[Region], rules: SieveRules) -> None:
    """Give specks and holes their new classes, the smallest first.

    Args:
        regions: complete, with all regions that they can reach through regions that are not fixed.
        rules: what is small.
    """
    queue = [(region.area, region.first, region) for region in regions]
    heapq.heapify(queue)
    while queue:
        area, _, region = heapq.heappop(queue)
        if region.parent is not None or region.fixed or region.area != area:
            continue
        class_id = _choose(region, rules)
        if class_id is None:
            continue
        for changed in _become(region, class_id, rules):
            if not changed.fixed and changed.area < rules.limit:
                heapq.heappush(queue, (changed.area, changed.first, changed))


def _choose(region: Region, rules: SieveRules) -> int | None:
    """Return the class that a region gets; None where it stays as it is."""
    claims: dict[int, tuple[int, int, int]] = {}
    around = set()
    for other, length, edge in region.neighbours():
        if length or not rules.corners_join:
            around.add(other.class_id)
        if length:
            area = rules.min_area if other.fixed else min(other.area, rules.min_area)
            known = claims.get(other.class_id, (0, 0, -NO_EDGE))
            best = (known[0] + length, max(known[1], area), max(known[2], -edge))
            claims[other.class_id] = best
    hole = region.area < rules.fill_holes and len(around) == 1 and not region.ground
    if not claims or not (hole or region.area < rules.min_area):
        return None
    return max(claims, key=lambda class_id: claims[class_id])


def _become(region: Region, class_id: int, rules: SieveRules) -> list[Region]:
    """Make a region part of the class; return the regions whose surroundings are new."""
    joined: list[Region] = []
    beside: list[Region] = []
    for other, length, _ in region.neighbours():
        joins = other.class_id == class_id and (length or rules.corners_join)
        (joined if joins else beside).append(other)
    region.class_id = class_id
    for other in joined:
        region = _absorb(region, other.root())
    return [region, *beside]


def _absorb(a: Region, b: Region) -> Region:
    if a is b:
        return a
    keep, gone = (a, b) if (not a.fixed, a.first) < (not b.fixed, b.first) else (b, a)
    gone.parent = keep
    keep.first = min(a.first, b.first)
    if not keep.fixed:
        keep.area += gone.area
        keep.ground |= gone.ground
        keep.contacts += gone.contacts
    return keep


def _join(a: Region, b: Region, rules: SieveRules) -> Region:
    """Return the region that two of the same class turn out to be."""
    if a is b:
        return a
    keep = _absorb(a, b)
    gone = b if keep is a else a
    keep.runs += [] if keep.fixed else gone.runs
    gone.runs, gone.contacts = [], []
    if keep.area >= rules.limit and not keep.fixed:
        keep.fix()
    return keep


def _split(row: NDArray[np.int32]) -> list[Piece]:
    cuts = [0, *(np.flatnonzero(row[1:] != row[:-1]) + 1).tolist(), len(row)]
    values = row[cuts[:-1]].tolist()
    return [Piece(*run) for run in zip(cuts[:-1], cuts[1:], values, strict=True)]


def _pairs(above: list[Piece], pieces: list[Piece]) -> Iterator[tuple[Piece, Piece, int]]:
    """Yield pieces of both rows that share an edge of so many pixels, or a corner (0)."""
    start = 0
    for piece in pieces:
        while start < len(above) and above[start].stop < piece.first:
            start += 1
        i = start
        while i < len(above) and above[i].first <= piece.stop:
            other, i = above[i], i + 1
            yield other, piece, min(other.stop, piece.stop) - max(other.first, piece.first)
