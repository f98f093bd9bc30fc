"""Rounded corners of borders, junctions fixed, never across another border.

Each kept corner is replaced by the piece of a quadratic curve between points on its two edges:
where both points are the edges' midpoints this is the limit of Chaikin's corner cutting (1974). The
points lie nearer to the corner where the curve would leave it by more than the distance allowed.
A corner is left as it is where the triangle that the curve lies in holds a corner of the two faces'
outlines: whatever else changes, the curve then crosses nothing.
"""

import math

from geoseg.vector.graph import BorderGraph, Node
from geoseg.vector.outline import canonical
from geoseg.vector.rings import Point
from geoseg.vector.simplify import holds_drawn, is_inside, nodes_near

CURVE = (0.25, 0.5, 0.75)  # where the curve is drawn between its ends


def mark_rounded(graph: BorderGraph, border: list[int], sides: tuple[int, int]) -> None:
    """Mark the kept corners of a border that can be rounded."""
    nodes = canonical(graph, border)
    for node in nodes[1:-1]:
        graph.nodes[node].done = True
    index = {node: k for k, node in enumerate(nodes[:-1])}
    kept = kept_places(graph, nodes)
    around = _is_around(graph, nodes)
    for at in range(0 if around else 1, len(kept) - 1):
        before, corner, after = _three(kept, at)
        a, p, b = (_place(graph, nodes[k]) for k in (before, corner, after))
        cut = cut_corner(a, p, b, graph)
        if cut is None:
            continue
        triangle = [cut[0], p, cut[1]]
        reach = max(abs(v - w) for q in cut for v, w in zip(q, p, strict=True))
        free = not holds_drawn(graph, triangle, sides)
        for node in nodes_near(
            graph, cut[0], cut[1], reach * max(1.0, graph.options.aspect), sides
        ):
            k = index.get(node)
            if k is not None and _is_between(before, k, after, len(nodes) - 1):
                continue
            near = graph.nodes[node]
            if is_inside((float(near.x), float(near.y)), triangle):
                free = False
                break
        graph.nodes[nodes[corner]].rounded = free


def _is_around(graph: BorderGraph, nodes: list[int]) -> bool:
    return nodes[0] == nodes[-1] and not graph.nodes[nodes[0]].is_junction


def kept_places(graph: BorderGraph, nodes: list[int]) -> list[int]:
    """Return the indexes of the ends and of the kept corners of a border."""
    inner = [k for k in range(1, len(nodes) - 1) if graph.nodes[nodes[k]].kept]
    return [0, *inner, len(nodes) - 1]


def _three(kept: list[int], at: int) -> tuple[int, int, int]:
    before = kept[at - 1] if at else kept[-2]
    return before, kept[at], kept[at + 1]


def _is_between(before: int, k: int, after: int, last: int) -> bool:
    """Return whether a corner lies on the border between two others, ends included."""
    if before > after or (after == last and k == 0):  # past the first node of one that goes around
        return k >= before or k <= after
    return before <= k <= after


def _place(graph: BorderGraph, node: int) -> Point:
    corner: Node = graph.nodes[node]
    return float(corner.x), float(corner.y)


def cut_corner(a: Point, p: Point, b: Point, graph: BorderGraph) -> tuple[Point, Point] | None:
    """Return where the curve at a corner begins and ends; None for a corner that is none."""
    aspect, most = graph.options.aspect, graph.options.smooth_px
    ax, ay = a[0] - p[0], (a[1] - p[1]) * aspect
    bx, by = b[0] - p[0], (b[1] - p[1]) * aspect
    if ax * by == ay * bx:
        return None
    to_a, to_b = math.sqrt(ax * ax + ay * ay), math.sqrt(bx * bx + by * by)
    ex, ey = ax / to_a + bx / to_b, ay / to_a + by / to_b
    bend = math.sqrt(ex * ex + ey * ey)
    length = min(to_a, to_b) / 2.0
    if bend * length > 4.0 * most:
        length = 4.0 * most / bend
    return _towards(p, a, length, to_a), _towards(p, b, length, to_b)


def _towards(p: Point, q: Point, length: float, whole: float) -> Point:
    if length + length == whole:  # the same numbers from both ends of the edge
        return (p[0] + q[0]) / 2.0, (p[1] + q[1]) / 2.0
    share = length / whole
    return p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])


def draw_border(graph: BorderGraph, border: list[int]) -> list[Point]:
    """Return the points of a border as it is written, in the order in which it was given."""
    nodes = canonical(graph, border)
    kept = kept_places(graph, nodes)
    around = _is_around(graph, nodes)
    points: list[Point] = []
    for at in range(len(kept) - 1 if around else len(kept)):
        corner = graph.nodes[nodes[kept[at]]]
        inner = around or 0 < at < len(kept) - 1
        if corner.rounded and inner:
            before, here, after = (_place(graph, nodes[k]) for k in _three(kept, at))
            _append(points, _curve(before, here, after, graph))
        else:
            _append(points, [corner.place])
    if around:
        if points[0] == points[-1]:
            points.pop()
        points.append(points[0])
    return points if _same_way(nodes, border) else points[::-1]


def _append(points: list[Point], more: list[Point]) -> None:
    points += more[1:] if points and points[-1] == more[0] else more


def _curve(a: Point, p: Point, b: Point, graph: BorderGraph) -> list[Point]:
    ends = cut_corner(a, p, b, graph)
    if ends is None:
        return [p]
    (sx, sy), (ex, ey) = ends
    drawn = [ends[0]]
    for t in CURVE:
        u = 1.0 - t
        x = u * u * sx + 2.0 * u * t * p[0] + t * t * ex
        y = u * u * sy + 2.0 * u * t * p[1] + t * t * ey
        drawn.append((x, y))
    return [*drawn, ends[1]]


def _same_way(nodes: list[int], border: list[int]) -> bool:
    """Return whether canonical nodes run in the direction of the border given."""
    if border[0] != border[-1]:
        return border[0] == nodes[0]
    return border[border.index(nodes[0]) + 1] == nodes[1]
