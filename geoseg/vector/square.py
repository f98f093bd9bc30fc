"""Square corners for free-standing outlines, where they touch nothing else.

A free-standing outline is a border without junctions. Its squared form comes from
`geoseg.vector.regularize`. It is taken only if no corner of the two faces' other outlines lies
between the old form and the new one, and if their edges keep more than the distance by which they
may still move: nothing can cross then, now or later.
"""

import math

import numpy as np

from geoseg.vector.graph import EAST, SOUTH, BorderGraph
from geoseg.vector.outline import canonical
from geoseg.vector.rows import Float64
from geoseg.vector.simplify import Point, borders, is_inside, squared_distance

CLEARANCE_PX = 0.25  # outlines that nearly touch look like a mistake


def square_outline(
    graph: BorderGraph, border: list[int], sides: tuple[int, int], waypoints: list[int]
) -> bool:
    """Put the corners of a border without junctions on its squared form; return whether it was."""
    options = graph.options
    nodes = canonical(graph, border)
    if options.square is None:
        return False
    old = np.array([[graph.nodes[n].x, graph.nodes[n].y] for n in nodes], float)
    new = options.square(old)
    own = {*nodes, *waypoints}
    if new is None or len(new) > len(nodes) or not is_free(graph, own, (old, new), sides):
        return False
    take_places(graph, nodes, new)
    for node in own:
        graph.nodes[node].squared = True
    return True


def take_places(graph: BorderGraph, nodes: list[int], ring: Float64) -> None:
    """Keep as many nodes as a squared ring has corners, and put them there."""
    for node in nodes[1:-1]:
        graph.nodes[node].done = True
    for node, (x, y) in zip(nodes[:-1], ring[:-1].tolist(), strict=False):
        corner = graph.nodes[node]
        corner.kept, corner.shifted = True, (x, y)


def is_free(
    graph: BorderGraph, own: set[int], rings: tuple[Float64, Float64], sides: tuple[int, int]
) -> bool:
    """Return whether nothing else lies between an outline's two forms or near the new one."""
    options = graph.options
    still = options.simplify_px + options.smooth_px + CLEARANCE_PX
    moved = max(options.square_shift_px, still)
    old, new = ([(x, y) for x, y in ring.tolist()] for ring in rings)
    xs, ys = [p[0] for p in old + new], [p[1] for p in old + new]
    rows = moved / options.aspect
    box = min(xs) - moved, min(ys) - rows, max(xs) + moved, max(ys) + rows
    for one, other, is_squared in edges_near(graph, box, own, sides):
        if is_inside(one, old) != is_inside(one, new):
            return False
        reach = moved if is_squared else still
        for k in range(len(new) - 1):
            if _apart(one, other, new[k], new[k + 1], options.aspect) <= reach * reach:
                return False
    return True


def edges_near(
    graph: BorderGraph,
    box: tuple[float, float, float, float],
    own: set[int],
    sides: tuple[int, int],
) -> list[tuple[Point, Point, bool]]:
    """Return the edges of two faces' outlines that may reach into a box, but for own ones.

    The third value says whether the edge's outline was squared: it is not quite where it was.

    Vertical edges are cut every `graph.waypoint_rows` rows by nodes made for this search.
    """
    _, top, _, bottom = box
    found: list[tuple[Point, Point, bool]] = []
    for y in range(math.floor(top) - graph.waypoint_rows, math.ceil(bottom) + 1):
        for node in graph.rows_of_nodes.get(y, ()):
            if node in own or not borders(graph, node, sides):
                continue
            here = graph.nodes[node]
            one = float(here.x), float(here.y)
            for towards in (EAST, SOUTH):
                end = graph.nodes.get(here.links[towards])
                other = one if end is None else (float(end.x), float(end.y))
                if _overlaps(one, other, box):
                    found.append((one, other, here.squared))
    return found


def _overlaps(one: Point, other: Point, box: tuple[float, float, float, float]) -> bool:
    left, top, right, bottom = box
    return (
        max(one[0], other[0]) >= left
        and min(one[0], other[0]) <= right
        and max(one[1], other[1]) >= top
        and min(one[1], other[1]) <= bottom
    )


def _apart(a: Point, b: Point, c: Point, d: Point, aspect: float) -> float:
    """Return the squared distance between two segments; 0 where they cross."""
    if _side(a, b, c) * _side(a, b, d) < 0.0 and _side(c, d, a) * _side(c, d, b) < 0.0:
        return 0.0
    return min(
        squared_distance(a, c, d, aspect),
        squared_distance(b, c, d, aspect),
        squared_distance(c, a, b, aspect),
        squared_distance(d, a, b, aspect),
    )


def _side(a: Point, b: Point, p: Point) -> float:
    return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
