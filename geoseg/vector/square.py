"""Square corners for free-standing outlines, where they touch nothing else.

A free-standing outline is a border without junctions. Its squared form comes from
`geoseg.vector.regularize`. It is taken only if nothing of the two faces' other outlines lies
between the old form and the new one, nor nearer to the new one than a clearance: nothing can cross
then, now or later.
"""

import math
from itertools import pairwise

import numpy as np

from geoseg.vector.graph import EAST, SOUTH, BorderGraph
from geoseg.vector.outline import canonical
from geoseg.vector.rings import Box, Point, box_of, overlaps
from geoseg.vector.rows import Float64
from geoseg.vector.simplify import borders, is_inside, squared_distance

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
        graph.nodes[node].is_elsewhere = True
    return True


def take_places(graph: BorderGraph, nodes: list[int], ring: Float64) -> None:
    """Keep as many nodes as a squared ring has corners, and put them there."""
    for node in nodes[1:-1]:
        graph.nodes[node].done = True
    points: list[Point] = [(x, y) for x, y in ring.tolist()]
    for node, place in zip(nodes[:-1], points[:-1], strict=False):
        corner = graph.nodes[node]
        corner.kept, corner.shifted = True, place
    graph.rings.add(nodes[0], points)


def is_free(
    graph: BorderGraph, own: set[int], rings: tuple[Float64, Float64], sides: tuple[int, int]
) -> bool:
    """Return whether nothing else lies between an outline's two forms or near the new one.

    Borders without their form are where they were, and will keep clear of squared outlines when
    they get it. Of those that have theirs the short ones are known, and the others are within what
    simplifying and rounding may move.
    """
    options = graph.options
    settled = options.simplify_px + options.smooth_px + CLEARANCE_PX
    old, new = ([(x, y) for x, y in ring.tolist()] for ring in rings)
    box = box_of(old + new, settled, options.aspect)

    def is_clear(one: Point, other: Point, reach: float) -> bool:
        return is_inside(one, old) == is_inside(one, new) and all(
            _apart(one, other, a, b, options.aspect) > reach * reach for a, b in pairwise(new)
        )

    for one, other, is_settled in edges_near(graph, box, own, sides):
        if not is_clear(one, other, settled if is_settled else CLEARANCE_PX):
            return False
    return all(
        is_clear(one, other, CLEARANCE_PX)
        for ring in graph.rings.near(box)
        if borders(graph, ring.anchor, sides)
        for one, other in pairwise(ring.points)
    )


def edges_near(
    graph: BorderGraph, box: Box, own: set[int], sides: tuple[int, int]
) -> list[tuple[Point, Point, bool]]:
    """Return the edges of two faces' outlines that may reach into a box.

    Own ones are left out, and those that are elsewhere by now. The third value says whether the
    edge's border has its form: it is not quite where it was.

    Vertical edges are cut every `graph.waypoint_rows` rows by nodes made for this search.
    """
    _, top, _, bottom = box
    found: list[tuple[Point, Point, bool]] = []
    for y in range(math.floor(top) - graph.waypoint_rows, math.ceil(bottom) + 1):
        for node in graph.rows_of_nodes.get(y, ()):
            here = graph.nodes[node]
            if node in own or here.is_elsewhere or not borders(graph, node, sides):
                continue
            one = float(here.x), float(here.y)
            for towards in (EAST, SOUTH):
                end = graph.nodes.get(here.links[towards])
                other = one if end is None else (float(end.x), float(end.y))
                if overlaps(box_of([one, other]), box):
                    is_settled = here.settled or (end is not None and end.settled)
                    found.append((one, other, is_settled))
    return found


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
