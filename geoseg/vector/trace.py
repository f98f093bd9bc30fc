"""Features from the border graph: outlines, their borders shaped once, rings; the reference."""

import itertools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.graph import GONE, BorderGraph
from geoseg.vector.outline import Step, corners_of, cut_borders, other_side, walk_outlines
from geoseg.vector.rings import Point
from geoseg.vector.rows import NODATA, PolygonBatch, ShapeOptions
from geoseg.vector.simplify import simplify_border
from geoseg.vector.smooth import draw_border, mark_rounded
from geoseg.vector.square import square_outline

NODE_BYTES = 600  # of a node as Python holds it, with its lists
MOST_POINTS = 1024  # of an outline that is compared with squared ones point by point


@dataclass
class _Lists:
    """A batch while it grows."""

    class_id: list[int] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    on_edge: list[bool] = field(default_factory=list)
    xy: list[Point] = field(default_factory=list)
    ring_offsets: list[int] = field(default_factory=lambda: [0])
    polygon_offsets: list[int] = field(default_factory=lambda: [0])
    feature_offsets: list[int] = field(default_factory=lambda: [0])
    squared: list[bool] = field(default_factory=list)

    def as_batch(self) -> PolygonBatch:
        return PolygonBatch(
            class_id=np.array(self.class_id, np.int32),
            pixels=np.array(self.pixels, np.int64),
            confidence=np.array(self.confidence, np.float64),
            on_edge=np.array(self.on_edge, bool),
            xy=np.array(self.xy, np.float64).reshape(-1, 2),
            ring_offsets=np.array(self.ring_offsets, np.int64),
            polygon_offsets=np.array(self.polygon_offsets, np.int64),
            feature_offsets=np.array(self.feature_offsets, np.int64),
            squared=np.array(self.squared, bool),
        )


class ReferenceTracer:
    """Turns rows of a class map into features, in plain Python.

    Args:
        height, width: of the map.
        options: what becomes of the outlines.
    """

    def __init__(self, height: int, width: int, options: ShapeOptions) -> None:
        self.graph = BorderGraph(height, width, options)
        self.options = options
        self._shapes = bool(options.simplify_px or options.smooth_px or options.square)

    def add_rows(self, codes: NDArray[np.int32], confidence: NDArray[np.float32] | None) -> None:
        """Take the next rows (N, width)."""
        self.graph.add_rows(codes, confidence)

    def finish(self) -> None:
        """Say that there are no more rows."""
        self.graph.finish()

    def pop(self, most: int) -> PolygonBatch | None:
        """Return at most so many of the features that are complete by now; None without any."""
        lists = _Lists()
        for feature in self.graph.pop_complete():
            self._write(feature, lists)
            if len(lists.class_id) == most:
                break
        return lists.as_batch() if lists.class_id else None

    def held_bytes(self) -> int:
        """Return about how much memory open borders take."""
        return NODE_BYTES * len(self.graph.nodes)

    def _write(self, feature: int, lists: _Lists) -> None:
        graph = self.graph
        faces = graph.faces_of(feature)
        outlines = [walk_outlines(graph, face) for face in faces]
        squared = [False] * len(faces)
        if self._shapes:
            for i, face in enumerate(faces):
                for outline in outlines[i]:
                    squared[i] |= self._shape(outline, face)
        if graph.labels[feature].code != NODATA:
            for rings in outlines:
                for outline in rings:
                    lists.xy += self._draw(outline)
                    lists.ring_offsets.append(len(lists.xy))
                lists.polygon_offsets.append(len(lists.ring_offsets) - 1)
            lists.feature_offsets.append(len(lists.polygon_offsets) - 1)
            lists.squared += squared
            self._describe(feature, faces, lists)
        for step in itertools.chain.from_iterable(itertools.chain.from_iterable(outlines)):
            graph.release(step.node, list(step.quadrants))
        graph.drop(feature)

    def _describe(self, feature: int, faces: list[int], lists: _Lists) -> None:
        labels = [self.graph.labels[face] for face in faces]
        confident = sum(label.confident for label in labels)
        total = 0.0
        for label in labels:
            total += label.confidence
        lists.class_id.append(self.graph.labels[feature].code)
        lists.pixels.append(sum(label.pixels for label in labels))
        lists.confidence.append(total / confident if confident else float("nan"))
        lists.on_edge.append(any(label.on_edge for label in labels))

    def _shape(self, outline: list[Step], face: int) -> bool:
        """Simplify and round the borders of an outline that are not done yet."""
        graph, options, squared = self.graph, self.options, False
        for border in cut_borders(graph, outline):
            nodes = corners_of(graph, border)
            if len(nodes) == 2:
                continue
            if graph.nodes[nodes[1]].done:
                squared |= any(graph.nodes[node].shifted for node in nodes)
                continue
            for node in nodes:  # around, any of them may come second from the other side
                graph.nodes[node].done = not graph.nodes[node].is_junction
            sides = face, other_side(graph, border)
            everything = [step.node for step in border]
            if self._can_be_square(nodes, sides) and square_outline(
                graph, nodes, sides, everything
            ):
                squared = True
                continue
            if options.simplify_px:
                simplify_border(graph, nodes, sides)
            else:
                for node in nodes:
                    graph.nodes[node].kept = True
            if options.smooth_px:
                mark_rounded(graph, nodes, sides)
            if options.square is not None:
                self._settle(nodes, everything)
        return squared

    def _settle(self, nodes: list[int], everything: list[int]) -> None:
        """Say where a border is now, exactly where that is little to remember."""
        graph = self.graph
        is_free = not graph.nodes[nodes[0]].is_junction
        points = draw_border(graph, nodes) if is_free else []
        is_known = is_free and len(points) <= MOST_POINTS
        if is_known:
            graph.rings.add(nodes[0], points)
        for node in everything:
            corner = graph.nodes[node]
            corner.is_elsewhere = is_known
            corner.settled = not corner.is_junction

    def _can_be_square(self, nodes: list[int], sides: tuple[int, int]) -> bool:
        graph = self.graph
        if graph.nodes[nodes[0]].is_junction or self.options.square is None:
            return False
        codes = {graph.labels[side].code for side in sides if side != GONE}
        return not codes.isdisjoint(self.options.square_classes)

    def _draw(self, outline: list[Step]) -> list[Point]:
        graph = self.graph
        if not self._shapes:
            points = [graph.nodes[step.node].place for step in outline]
            return [*points, points[0]]
        ring: list[Point] = []
        for border in cut_borders(graph, outline):
            points = draw_border(graph, corners_of(graph, border))
            ring += points[1:] if ring else points
        return ring
