"""Walks along the border graph: the closed outlines of a face, and the borders they are made of."""

from collections.abc import Iterator
from dataclasses import dataclass

from geoseg.vector.graph import EAST, GONE, LEFT_TURN, RIGHT_TURN, SOUTH, BorderGraph, Node

CROSSING = 4  # links of a node where four pixels differ along all four edges


@dataclass(frozen=True, slots=True)
class Step:
    """A node of an outline, the direction it is left in, and the face's quadrants passed."""

    node: int
    towards: int
    quadrants: tuple[int, ...]


def walk_outlines(graph: BorderGraph, face: int) -> list[list[Step]]:
    """Return the outlines of a face, the exterior first; the face lies to the left.

    Outlines touch each other at corners but never themselves: where the face meets itself across a
    corner, the walk keeps to the other side, which parts the outline there into two.
    """
    label = graph.labels[face]
    outlines = [_walk(graph, label.first_node, SOUTH)]
    for start in label.starts:
        if _starts_hole(graph, start, face):
            outlines.append(_walk(graph, start, EAST))
    return outlines


def _starts_hole(graph: BorderGraph, start: int, face: int) -> bool:
    node = graph.nodes[start]
    if node.passed >> EAST & 1:
        return False
    return all(q != GONE and graph.find(q) == face for q in (node.faces[1], node.faces[3]))


def _walk(graph: BorderGraph, start: int, towards: int) -> list[Step]:
    steps: list[Step] = []
    node, arrived = start, (towards + 1) % 4 if towards == SOUTH else (towards + 3) % 4
    while True:
        corner = graph.nodes[node]
        leaves, quadrants = _turn(graph, corner, arrived)
        if node == start and steps and leaves == towards:
            return steps
        corner.passed |= 1 << leaves
        steps.append(Step(node, leaves, quadrants))
        node, arrived = corner.links[leaves], leaves


def _turn(graph: BorderGraph, corner: Node, arrived: int) -> tuple[int, tuple[int, ...]]:
    """Return the direction in which an outline goes on, and the quadrants it leaves to its left."""
    left, right = (arrived + LEFT_TURN) % 4, (arrived + RIGHT_TURN) % 4
    if corner.degree == CROSSING:
        if _meets_itself(graph, corner, left):
            return right, (left,)
        return left, (left,)
    if corner.links[left] != GONE:
        return left, (left,)
    if corner.links[arrived] != GONE:
        return arrived, (left, arrived)
    return right, (left, arrived, right)


def _meets_itself(graph: BorderGraph, corner: Node, quadrant: int) -> bool:
    """Return whether the pixels at a quadrant and across the corner are of one face."""
    bit = 1 if quadrant % 2 else 2
    if not corner.split & bit:
        one, other = corner.faces[quadrant], corner.faces[(quadrant + 2) % 4]
        if GONE not in (one, other) and graph.find(one) == graph.find(other):
            corner.split |= bit
    return bool(corner.split & bit)


def cut_borders(graph: BorderGraph, outline: list[Step]) -> Iterator[list[Step]]:
    """Yield the borders of an outline, from junction to junction with both ends.

    An outline without junctions is one border that ends with the node it starts with.
    """
    cuts = [i for i, step in enumerate(outline) if graph.nodes[step.node].is_junction]
    if not cuts:
        yield [*outline, outline[0]]
        return
    turned = outline[cuts[0] :] + outline[: cuts[0]] + [outline[cuts[0]]]
    begin = 0
    for i, step in enumerate(turned):
        if i and graph.nodes[step.node].is_junction:
            yield turned[begin : i + 1]
            begin = i


def corners_of(graph: BorderGraph, border: list[Step]) -> list[int]:
    """Return the nodes of a border that are corners or junctions."""
    return [step.node for step in border if not graph.nodes[step.node].is_waypoint]


def other_side(graph: BorderGraph, border: list[Step]) -> int:
    """Return the face to the right of a border; GONE once it is written."""
    first = border[0]
    label = graph.nodes[first.node].faces[(first.towards + 1) % 4]
    return label if label == GONE else graph.find(label)


def canonical(graph: BorderGraph, border: list[int]) -> list[int]:
    """Return a border's nodes in the order that does not depend on the side it is seen from."""

    def place(node: int) -> tuple[int, int]:
        return graph.nodes[node].y, graph.nodes[node].x

    if border[0] != border[-1]:
        return border if place(border[0]) < place(border[-1]) else border[::-1]
    if not graph.nodes[border[0]].is_junction:
        ring = border[:-1]
        first = min(range(len(ring)), key=lambda i: place(ring[i]))
        border = ring[first:] + ring[: first + 1]
    return border if place(border[1]) < place(border[-2]) else border[::-1]
