"""The borders of a class map as a graph of corners, built row by row; the readable reference.

A node is a corner of a pixel at which the border between classes turns or branches. It knows its
next nodes upwards, rightwards, downwards and leftwards, and the faces (4-connected parts of one
class) of the four pixels around it. Faces grow by union while rows come in; a feature is a face, or
with 8-connectivity faces of a class that touch at corners. A feature is complete when no row below
can add to it. Its nodes are dropped once the features around them are written, so that memory holds
open features only. ``kernels/cpu/polygons.cpp`` does the same; results are equal to the bit.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.rings import DrawnRings
from geoseg.vector.rows import NODATA, ShapeOptions

NORTH, EAST, SOUTH, WEST = range(4)
# Quadrants around a node: north-west 0, north-east 1, south-east 2, south-west 3. The quadrant left
# ahead of somebody who leaves in direction d is d, the one right ahead is d + 1.
LEFT_TURN, RIGHT_TURN = 3, 1
OUTSIDE = 0
WAYPOINT_ROWS = 16  # vertical borders get a node so often, where squares search for edges
GONE = -1


def rows_below(options: ShapeOptions) -> int:
    """Return how many rows below a feature must be known before its outlines are drawn."""
    reach = max(options.simplify_px + options.smooth_px, options.square_shift_px)
    rows = math.ceil(reach / options.aspect) + 2 if reach else 0
    return rows + WAYPOINT_ROWS if options.square is not None else rows


@dataclass(slots=True)
class Node:
    """A corner where a border turns (two links) or branches (three or four: a junction)."""

    x: int
    y: int
    links: list[int]
    faces: list[int]  # labels of the quadrants; GONE once their feature is written
    left: int  # quadrants whose feature is not written yet
    passed: int = 0  # bit d: a walk left this node in direction d
    split: int = 0  # bit 0: north-east and south-west are one face; bit 1: the other two
    kept: bool = False  # stays when its border is simplified
    rounded: bool = False  # is rounded when its border is smoothed
    done: bool = False  # its border has been simplified
    settled: bool = False  # its border has its form: within what simplify and smooth may move
    is_elsewhere: bool = False  # its border lies in `BorderGraph.rings`, not here
    is_frame: bool = False  # a corner of the map
    degree: int = 2  # links, those included that are not made yet
    straight: bool = False
    shifted: tuple[float, float] | None = None  # where squaring put it

    @property
    def is_waypoint(self) -> bool:
        """Whether the border goes straight on here."""
        return self.straight

    @property
    def is_junction(self) -> bool:
        """Whether borders branch here, or turn at a corner of the map, which stays."""
        return self.is_frame or self.degree > 2

    @property
    def place(self) -> tuple[float, float]:
        """Return x, y as they will be written."""
        return self.shifted or (float(self.x), float(self.y))


@dataclass(slots=True)
class Label:
    """A set of pixels that were known to be connected when it was made; merged by union."""

    code: int
    parent: int
    feature: int  # parent in the union of faces into features
    first_pixel: int
    first_node: int = GONE
    pixels: int = 0
    confidence: float = 0.0
    confident: int = 0
    on_edge: bool = False
    waiting: bool = False
    starts: list[int] = field(default_factory=list)  # nodes where a hole's outline may start
    members: list[int] = field(default_factory=list)  # labels of the feature


class BorderGraph:
    """Takes rows of a class map from the top; hands out features that are complete.

    Args:
        height, width: of the map.
        options: connectivity and classes.
    """

    def __init__(self, height: int, width: int, options: ShapeOptions) -> None:
        self.height, self.width, self.options = height, width, options
        self.waypoint_rows = WAYPOINT_ROWS if options.square is not None else 0
        self.margin = rows_below(options)
        self.nodes: dict[int, Node] = {}
        self.labels = {OUTSIDE: Label(NODATA, OUTSIDE, OUTSIDE, -1, members=[OUTSIDE])}
        self.complete: deque[tuple[int, int]] = deque()  # last row, feature
        self.rows_of_nodes: dict[int, list[int]] = {}
        self.rings = DrawnRings()
        self.row = 0
        self._raw = np.full(width + 2, NODATA, np.int32)
        self._runs: list[tuple[int, int, int]] = [(0, width, OUTSIDE)]  # start, stop, label
        self._up = [GONE] * (width + 1)
        self._next_node = self._next_label = 1

    def add_rows(self, codes: NDArray[np.int32], confidence: NDArray[np.float32] | None) -> None:
        """Take the next rows (N, width); ``confidence`` alike, NaN where there is none."""
        for i, row in enumerate(codes):
            self._add_row(row, None if confidence is None else confidence[i])

    def finish(self) -> None:
        """Close the last row: every feature is complete."""
        runs = [(0, self.width, OUTSIDE)]
        self._add_nodes(runs)
        self._close(runs)
        self.margin = -2

    def pop_complete(self) -> Iterator[int]:
        """Yield complete features in the order of their last rows, from left to right."""
        while self.complete and self.complete[0][0] + self.margin + 1 < self.row:
            yield self.complete.popleft()[1]

    def find(self, label: int) -> int:
        """Return the face of a label."""
        labels = self.labels
        while labels[label].parent != label:
            labels[label].parent = labels[labels[label].parent].parent
            label = labels[label].parent
        return label

    def find_feature(self, label: int) -> int:
        """Return the feature of a label."""
        labels = self.labels
        while labels[label].feature != label:
            labels[label].feature = labels[labels[label].feature].feature
            label = labels[label].feature
        return label

    def faces_of(self, feature: int) -> list[int]:
        """Return the faces of a feature in the order of their first pixels."""
        members = self.labels[feature].members
        faces = [m for m in members if self.labels[m].parent == m]
        return sorted(faces, key=lambda face: self.labels[face].first_pixel)

    def drop(self, feature: int) -> None:
        """Forget the labels of a feature that is written."""
        for member in list(self.labels[feature].members):
            del self.labels[member]

    def release(self, node: int, quadrants: list[int]) -> None:
        """Say that these quadrants' feature is written; the node goes with the last of them."""
        corner = self.nodes[node]
        for quadrant in quadrants:
            corner.faces[quadrant] = GONE
        corner.left -= len(quadrants)
        if corner.left == 0:
            self.rows_of_nodes[corner.y].remove(node)
            if not self.rows_of_nodes[corner.y]:
                del self.rows_of_nodes[corner.y]
            del self.nodes[node]
            self.rings.drop(node)

    def _add_row(self, raw: NDArray[np.int32], confidence: NDArray[np.float32] | None) -> None:
        padded = np.full(self.width + 2, NODATA, np.int32)
        padded[1:-1] = raw
        runs = [(a, b, self._join_run(a, b, max(int(raw[a]), NODATA))) for a, b in _cut(raw)]
        for start, stop, label in runs:
            self._count(label, start, stop, confidence)
        self._mark_edges(runs, padded)
        self._add_nodes(runs)
        self._close(runs)
        self._runs, self._raw, self.row = runs, padded, self.row + 1

    def _join_run(self, start: int, stop: int, code: int) -> int:
        """Return the label of a run: the first of the same class above it, merged with others."""
        found = GONE
        for above, until, label in self._runs:
            if above >= stop:
                break
            if until > start and self.labels[label].code == code:
                found = label if found == GONE else self._unite(found, label)
        at_edge = start == 0 or stop == self.width or self.row in (0, self.height - 1)
        if code == NODATA and at_edge:
            found = OUTSIDE if found == GONE else self._unite(found, OUTSIDE)
        if found == GONE:
            found = self._next_label
            self._next_label += 1
            pixel = self.row * self.width + start
            self.labels[found] = Label(code, found, found, pixel, members=[found])
        return found

    def _unite(self, one: int, other: int) -> int:
        """Make two labels one face."""
        a, b = self.find(one), self.find(other)
        if a == b:
            return a
        if self.labels[b].first_pixel < self.labels[a].first_pixel:
            a, b = b, a
        into, gone = self.labels[a], self.labels[b]
        gone.parent = a
        into.pixels += gone.pixels
        into.confidence += gone.confidence
        into.confident += gone.confident
        into.on_edge |= gone.on_edge
        into.starts += gone.starts
        gone.starts = []
        self._unite_features(a, b)
        return a

    def _unite_features(self, one: int, other: int) -> None:
        a, b = self.find_feature(one), self.find_feature(other)
        if a == b:
            return
        if self.labels[b].first_pixel < self.labels[a].first_pixel:
            a, b = b, a
        self.labels[b].feature = a
        self.labels[a].members += self.labels[b].members
        self.labels[b].members = []

    def _count(
        self, label: int, start: int, stop: int, confidence: NDArray[np.float32] | None
    ) -> None:
        face = self.labels[self.find(label)]
        face.pixels += stop - start
        if confidence is not None and face.code != NODATA:
            total = 0.0
            for value in confidence[start:stop].tolist():
                if not math.isnan(value):
                    total += value
                    face.confident += 1
            face.confidence += total

    def _mark_edges(self, runs: list[tuple[int, int, int]], below: NDArray[np.int32]) -> None:
        """Mark faces that touch ground without a class; classes left out do not count as such."""
        for start, stop, label in runs:
            sides = below[start] == NODATA or below[stop + 1] == NODATA
            if sides or (self._raw[start + 1 : stop + 1] == NODATA).any() or self._is_last_row():
                self.labels[self.find(label)].on_edge = True
        for start, stop, label in self._runs:
            if (below[start + 1 : stop + 1] == NODATA).any():
                self.labels[self.find(label)].on_edge = True

    def _is_last_row(self) -> bool:
        return self.row == self.height - 1

    def _add_nodes(self, runs: list[tuple[int, int, int]]) -> None:
        """Make the nodes between the last row and this one."""
        above_at, below_at = _by_start(self._runs), _by_start(runs)
        pending = GONE
        nw = sw = OUTSIDE
        for x in sorted({*above_at, *below_at, self.width}):
            outside = x == self.width
            ne = OUTSIDE if outside else above_at.get(x, nw)
            se = OUTSIDE if outside else below_at.get(x, sw)
            pending = self._add_node(x, [nw, ne, se, sw], pending)
            nw, sw = ne, se

    def _add_node(self, x: int, around: list[int], pending: int) -> int:
        """Make the node at a corner, if there is one; return the node that waits on its left."""
        nw, ne, se, sw = (self.labels[label].code for label in around)
        north, east, south, west = nw != ne, ne != se, se != sw, sw != nw
        count = north + east + south + west
        straight = count == 2 and north == south
        if count == 0 or (straight and not self._is_waypoint(north)):
            return pending
        node = self._next_node
        self._next_node += 1
        links = [self._up[x] if north else GONE, GONE, GONE, pending if west else GONE]
        if north:
            self.nodes[links[NORTH]].links[SOUTH] = node
        if west:
            self.nodes[links[WEST]].links[EAST] = node
        is_frame = x in (0, self.width) and self.row in (0, self.height)
        self.nodes[node] = Node(
            x, self.row, links, around, 4, is_frame=is_frame, degree=count, straight=straight
        )
        self.rows_of_nodes.setdefault(self.row, []).append(node)
        self._up[x] = node if south else GONE
        if east and south:
            self._add_start(node, around, count)
        return node if east else GONE

    def _is_waypoint(self, vertical: bool) -> bool:
        return vertical and self.waypoint_rows > 0 and self.row % self.waypoint_rows == 0

    def _add_start(self, node: int, around: list[int], count: int) -> None:
        """Note a node that may be the first of an outline in reading order."""
        nw, ne, se, sw = around
        face = self.labels[self.find(se)]
        if face.first_node == GONE:
            face.first_node = node
        if count == 2 or self.labels[ne].code == self.labels[sw].code:
            self.labels[self.find(ne)].starts.append(node)
            if self.find(sw) != self.find(ne):
                self.labels[self.find(sw)].starts.append(node)
        if count == 4 and self.labels[nw].code == self.labels[se].code:
            self._touch(nw, se)
        if count == 4 and self.labels[ne].code == self.labels[sw].code:
            self._touch(ne, sw)

    def _touch(self, one: int, other: int) -> None:
        if self.options.connectivity == 8 and self.labels[one].code != NODATA:
            self._unite_features(one, other)

    def _close(self, runs: list[tuple[int, int, int]]) -> None:
        """Queue the features of the last row that do not go on in this one."""
        going_on = {self.find_feature(label) for _, _, label in runs}
        for _, _, label in self._runs:
            feature = self.find_feature(label)
            if feature not in going_on and not self.labels[feature].waiting and feature != OUTSIDE:
                self.labels[feature].waiting = True
                self.complete.append((self.row - 1, feature))


def _by_start(runs: list[tuple[int, int, int]]) -> dict[int, int]:
    return {start: label for start, _, label in runs}


def _cut(raw: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Return the runs of equal classes; whatever has no class, or one left out, counts as equal."""
    codes = np.maximum(raw, NODATA)
    cuts = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    edges = [0, *cuts.tolist(), len(codes)]
    return list(itertools.pairwise(edges))
