"""Simpler borders: fewer corners within a distance, and never one that crosses another.

A border runs between two junctions, or around. It is simplified once, whichever of its two faces is
complete first, and both faces use what was kept, so neighbours share it by construction. The method
is Douglas and Peucker's (1973) with one more condition on every shortcut: no corner of the two
faces' outlines, other than those it replaces, may lie between the border and the shortcut or on it.
With it no two simplified borders can cross, whatever the order (compare de Berg, van Kreveld and
Schirra 1998, "Topologically correct subdivision simplification using the bandwidth criterion").
Corners of the two faces are enough: from the border into the area between, the first border met is
one of theirs, and it cannot pass through that area without a corner in it.
"""

import itertools
from collections.abc import Iterator

from geoseg.vector.graph import GONE, NORTH, BorderGraph
from geoseg.vector.outline import canonical
from geoseg.vector.rings import Point, box_of


def simplify_border(graph: BorderGraph, border: list[int], sides: tuple[int, int]) -> None:
    """Mark the nodes that a border keeps.

    Args:
        graph: holds every node of both sides' outlines near the border.
        border: nodes from junction to junction, or around with the first one repeated.
        sides: the faces to the left and to the right.
    """
    nodes = canonical(graph, border)
    places = [(float(graph.nodes[n].x), float(graph.nodes[n].y)) for n in nodes]
    search = _Search(graph, nodes, places, sides)
    for node in nodes[1:-1]:
        graph.nodes[node].done = True
    fixed = _fixed(places, graph.options.aspect) if nodes[0] == nodes[-1] else [0, len(nodes) - 1]
    kept = set(fixed)
    todo = list(itertools.pairwise(fixed))
    while todo:
        i, j = todo.pop()
        if j == i + 1:
            continue
        distance, k = search.farthest(i, j)
        if distance <= graph.options.simplify_px**2 and not search.is_taken(i, j):
            continue
        kept.add(k)
        todo += [(i, k), (k, j)]
    for k in kept:
        graph.nodes[nodes[k]].kept = True


def _fixed(places: list[Point], aspect: float) -> list[int]:
    """Return three corners that a closed border keeps, so that it goes on to enclose an area."""
    last = len(places) - 1
    far = max(range(1, last), key=lambda k: _squared(places[0], places[k], aspect))
    ends = places[0], places[far]
    others = [k for k in range(1, last) if k != far]
    third = max(others, key=lambda k: squared_distance(places[k], *ends, aspect))
    return [0, *sorted((far, third)), last]


class _Search:
    """What a shortcut of one border is measured by."""

    def __init__(
        self, graph: BorderGraph, nodes: list[int], places: list[Point], sides: tuple[int, int]
    ) -> None:
        self.graph, self.nodes, self.places, self.sides = graph, nodes, places, sides
        self.index = {node: k for k, node in enumerate(nodes[:-1])}
        self.index.setdefault(nodes[-1], len(nodes) - 1)
        self.aspect = graph.options.aspect

    def farthest(self, i: int, j: int) -> tuple[float, int]:
        """Return the squared distance and the place of the corner farthest from a shortcut."""
        best, found = -1.0, i + 1
        for k in range(i + 1, j):
            distance = squared_distance(self.places[k], self.places[i], self.places[j], self.aspect)
            if distance > best:
                best, found = distance, k
        return best, found

    def is_taken(self, i: int, j: int) -> bool:
        """Return whether a corner lies between the border and a shortcut, or a twin would."""
        if i == 0 and j == len(self.nodes) - 1 and self._has_twin():
            return True
        region = self.places[i : j + 1]
        tolerance = self.graph.options.simplify_px
        for node in nodes_near(self.graph, region[0], region[-1], tolerance, self.sides):
            if self._is_own(node, i, j):
                continue
            corner = self.graph.nodes[node]
            if is_inside((float(corner.x), float(corner.y)), region):
                return True
        return holds_drawn(self.graph, region, self.sides)

    def _is_own(self, node: int, i: int, j: int) -> bool:
        k = self.index.get(node)
        if k is None:
            return False
        around = k == 0 and self.nodes[0] == self.nodes[-1]
        return i <= k <= j or (around and j == len(self.nodes) - 1)

    def _has_twin(self) -> bool:
        """Return whether another border between the same junctions could become the same line."""
        first, last = self.nodes[0], self.nodes[-1]
        tolerance = self.graph.options.simplify_px**2
        for direction in range(NORTH, 4):
            node = self.graph.nodes[first].links[direction]
            before = first
            while node not in (GONE, self.nodes[1]) and node in self.graph.nodes:
                corner = self.graph.nodes[node]
                if node == last:
                    if before != self.nodes[-2]:
                        return True
                    break
                place = float(corner.x), float(corner.y)
                away = squared_distance(place, self.places[0], self.places[-1], self.aspect)
                if corner.is_junction or away > tolerance:
                    break
                before, node = (
                    node,
                    next((k for k in corner.links if k not in (GONE, before)), GONE),
                )
        return False


def nodes_near(
    graph: BorderGraph, one: Point, other: Point, reach: float, sides: tuple[int, int]
) -> Iterator[int]:
    """Yield the nodes of two faces' outlines that may lie within a distance of a segment.

    Those of outlines that are elsewhere by now are left out: `holds_drawn` finds these.
    """
    rows = reach / graph.options.aspect
    (ax, ay), (bx, by) = (one, other) if one[1] <= other[1] else (other, one)
    for y in range(int(ay - rows), int(by + rows) + 2):
        here = graph.rows_of_nodes.get(y)
        if here is None:
            continue
        low, high = min(ax, bx), max(ax, bx)
        if by > ay:
            first = ax + (bx - ax) * min(max((y - rows - ay) / (by - ay), 0.0), 1.0)
            last = ax + (bx - ax) * min(max((y + rows - ay) / (by - ay), 0.0), 1.0)
            low, high = min(first, last), max(first, last)
        for node in here:
            corner = graph.nodes[node]
            if corner.is_elsewhere or not low - reach - 1 <= corner.x <= high + reach + 1:
                continue
            if borders(graph, node, sides):
                yield node


def holds_drawn(graph: BorderGraph, region: list[Point], sides: tuple[int, int]) -> bool:
    """Return whether a corner of an outline of two faces that has its form lies in a region.

    Its edges do not cross the borders as they were, so none can pass without a corner.
    """
    for ring in graph.rings.near(box_of(region)):
        if borders(graph, ring.anchor, sides) and any(is_inside(p, region) for p in ring.points):
            return True
    return False


def borders(graph: BorderGraph, node: int, sides: tuple[int, int]) -> bool:
    """Return whether a node lies on the outline of one of two faces."""
    return any(q != GONE and graph.find(q) in sides for q in graph.nodes[node].faces)


def _squared(a: Point, b: Point, aspect: float) -> float:
    dx, dy = b[0] - a[0], (b[1] - a[1]) * aspect
    return dx * dx + dy * dy


def squared_distance(p: Point, a: Point, b: Point, aspect: float) -> float:
    """Return the squared distance of a point from a segment, in pixel widths."""
    dx, dy = b[0] - a[0], (b[1] - a[1]) * aspect
    px, py = p[0] - a[0], (p[1] - a[1]) * aspect
    length = dx * dx + dy * dy
    along = px * dx + py * dy
    if along <= 0.0 or length == 0.0:
        return px * px + py * py
    if along >= length:
        qx, qy = px - dx, py - dy
        return qx * qx + qy * qy
    across = px * dy - py * dx
    return across * across / length


def is_inside(p: Point, ring: list[Point]) -> bool:
    """Return whether a point lies in the closed area of a ring, or on its closing segment."""
    x, y = p
    (ax, ay), (bx, by) = ring[0], ring[-1]
    cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
    inside_box = min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by)
    if cross == 0.0 and inside_box:
        return True
    odd = False
    for k in range(len(ring)):
        (ax, ay), (bx, by) = ring[k - 1], ring[k]
        if (ay > y) != (by > y):
            cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
            odd ^= (cross > 0.0) == (by > ay)
    return odd
