"""Rings from pixels to coordinates of a CRS, and to the bytes that files hold (WKB)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.vector.rows import PolygonBatch

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]

WKB_POLYGON, WKB_MULTIPOLYGON = 3, 6
HEADER_BYTES = 9  # byte order, type, number of rings or polygons
COUNT_BYTES = 4
VERTEX_BYTES = 16


@dataclass(frozen=True)
class Geometries:
    """Ragged polygons, as in `PolygonBatch`, in any coordinates.

    Attributes:
        xy: closed rings, (V, 2).
        ring_offsets: (R + 1,) into ``xy``.
        polygon_offsets: (P + 1,) into rings.
        feature_offsets: (F + 1,) into polygons.
    """

    xy: Float64
    ring_offsets: Int64
    polygon_offsets: Int64
    feature_offsets: Int64

    @classmethod
    def of(cls, batch: PolygonBatch) -> "Geometries":
        """Return the outlines of a batch."""
        return cls(batch.xy, batch.ring_offsets, batch.polygon_offsets, batch.feature_offsets)

    def transformed(self, transform: Affine) -> "Geometries":
        """Return the geometries on the ground, exteriors counter-clockwise.

        They are so in pixels of a map whose rows run against the y axis; where rows run with it,
        rings are turned round.
        """
        a, b, c, d, e, f = list(transform)[:6]
        x, y = self.xy[:, 0], self.xy[:, 1]
        xy = np.empty_like(self.xy)
        # A term of zero is left out: a pixel's edge is the same number in every row.
        xy[:, 0] = a * x + c if b == 0 else a * x + b * y + c
        xy[:, 1] = e * y + f if d == 0 else d * x + e * y + f
        placed = replace(self, xy=xy)
        return placed.turned() if transform.determinant > 0 else placed

    def turned(self) -> "Geometries":
        """Return the geometries with every ring turned round."""
        sizes = np.diff(self.ring_offsets)
        ends = np.repeat(self.ring_offsets[:-1] + self.ring_offsets[1:] - 1, sizes)
        return replace(self, xy=self.xy[ends - np.arange(len(self.xy))])


def parts_of(batch: PolygonBatch, most_vertices: int) -> Iterator[PolygonBatch]:
    """Yield a batch in parts of so many vertices, or of one feature that has more."""
    vertices = batch.ring_offsets[batch.polygon_offsets[batch.feature_offsets]]
    first, count = 0, len(batch.class_id)
    while first < count:
        within = np.searchsorted(vertices, vertices[first] + most_vertices, side="right") - 1
        last = min(max(int(within), first + 1), count)
        yield batch if last - first == count else _features(batch, first, last)
        first = last


def _features(batch: PolygonBatch, first: int, last: int) -> PolygonBatch:
    features = batch.feature_offsets[first : last + 1]
    polygons = batch.polygon_offsets[features[0] : features[-1] + 1]
    rings = batch.ring_offsets[polygons[0] : polygons[-1] + 1]
    return PolygonBatch(
        class_id=batch.class_id[first:last],
        pixels=batch.pixels[first:last],
        confidence=batch.confidence[first:last],
        on_edge=batch.on_edge[first:last],
        xy=batch.xy[rings[0] : rings[-1]],
        ring_offsets=rings - rings[0],
        polygon_offsets=polygons - polygons[0],
        feature_offsets=features - features[0],
        squared=batch.squared[features[0] : features[-1]],
    )


def planar_areas(batch: PolygonBatch) -> Float64:
    """Return the areas of features in square pixels, (F,); exact for outlines of pixels."""
    x, y = batch.xy[:, 0], batch.xy[:, 1]
    cross = x[:-1] * y[1:] - x[1:] * y[:-1]
    cross[batch.ring_offsets[1:-1] - 1] = 0.0  # no edges: from one ring to the next
    starts = batch.ring_offsets[batch.polygon_offsets[batch.feature_offsets[:-1]]]
    areas: Float64 = np.abs(np.add.reduceat(cross, starts)) / 2
    return areas


def cut_edges(geometries: Geometries, piece: float) -> Geometries:
    """Return geometries whose edges are no longer than ``piece``, cut alike in both directions."""
    xy = geometries.xy
    start, end = xy[:-1], xy[1:]
    length = np.hypot(*(end - start).T)
    length[geometries.ring_offsets[1:-1] - 1] = 0.0  # no edges: from one ring to the next
    pieces = np.maximum(1, np.ceil(length / piece)).astype(np.int64)
    if (pieces == 1).all():
        return geometries
    at = np.concatenate([[0], np.cumsum(pieces)])  # of each old vertex among the new ones, (V,)
    edge = np.repeat(np.arange(len(pieces)), pieces)
    step = np.arange(at[-1]) - at[edge]
    turned = (start[:, 0] > end[:, 0]) | ((start[:, 0] == end[:, 0]) & (start[:, 1] > end[:, 1]))
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    step = np.where(turned[edge], pieces[edge] - step, step)
    share = (step / pieces[edge])[:, None]
    points = low[edge] + (high - low)[edge] * share
    points[at[:-1]] = start
    points = np.concatenate([points, xy[-1:]])
    offsets = np.concatenate([at[geometries.ring_offsets[:-1]], [len(points)]])
    return Geometries(points, offsets, geometries.polygon_offsets, geometries.feature_offsets)


def to_wkb(geometries: Geometries, *, multi: bool) -> tuple[Bytes, Int64]:
    """Return little-endian WKB of all features, one after the other, and where each begins.

    Args:
        geometries: at least one.
        multi: multipolygons; else each feature has one polygon.

    Returns:
        Bytes (B,), and offsets (F + 1,) into them.
    """
    rings, polygons = geometries.ring_offsets, geometries.polygon_offsets
    features = geometries.feature_offsets
    ring_bytes = COUNT_BYTES + VERTEX_BYTES * np.diff(rings)
    ring_at = np.concatenate([[0], np.cumsum(ring_bytes)])  # (R + 1,)
    polygon_at = ring_at[polygons] + HEADER_BYTES * np.arange(len(polygons))  # (P + 1,)
    feature_at = polygon_at[features]  # (F + 1,)
    if multi:
        feature_at = feature_at + HEADER_BYTES * np.arange(len(features))
        of_polygon = np.repeat(np.arange(1, len(features)), np.diff(features))
        polygon_at = polygon_at[:-1] + HEADER_BYTES * of_polygon
    else:
        polygon_at = polygon_at[:-1]
    of_ring = np.repeat(np.arange(len(polygon_at)), np.diff(polygons))
    first_of_polygon = ring_at[polygons[:-1]]
    counts_at = polygon_at[of_ring] + HEADER_BYTES + ring_at[:-1] - first_of_polygon[of_ring]
    wkb = np.empty(int(feature_at[-1]), np.uint8)
    is_vertex = np.ones(len(wkb), bool)
    _put(wkb, is_vertex, counts_at, _words(np.diff(rings)))
    _put(wkb, is_vertex, polygon_at, _headers(WKB_POLYGON, np.diff(polygons)))
    if multi:
        _put(wkb, is_vertex, feature_at[:-1], _headers(WKB_MULTIPOLYGON, np.diff(features)))
    wkb[is_vertex] = np.ascontiguousarray(geometries.xy, "<f8").view(np.uint8).ravel()
    return wkb, feature_at


def _put(wkb: Bytes, is_vertex: NDArray[np.bool_], at: Int64, values: Bytes) -> None:
    places = at[:, None] + np.arange(values.shape[1])
    wkb[places] = values
    is_vertex[places] = False


def _words(numbers: Int64) -> Bytes:
    return numbers.astype("<u4").view(np.uint8).reshape(-1, 4)


def _headers(kind: int, counts: Int64) -> Bytes:
    order = np.ones((len(counts), 1), np.uint8)
    kinds = _words(np.full(len(counts), kind))
    return np.concatenate([order, kinds, _words(counts)], axis=1)
