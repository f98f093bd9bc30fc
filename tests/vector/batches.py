"""Polygons as batches, made by hand or by GDAL: what stands in for the tracer."""

from collections.abc import Iterator

import numpy as np
import shapely
from rasterio.features import shapes

from geoseg.vector.rows import NODATA, ConfidenceRows, PolygonBatch, Rows, ShapeOptions


def batch_of(polygons: list[shapely.Polygon], class_ids: list[int] | None = None) -> PolygonBatch:
    """Return single polygons, in pixels, as a batch."""
    count = len(polygons)
    kind = shapely.GeometryType.POLYGON
    _, xy, (rings, parts) = shapely.to_ragged_array(np.array(polygons, object))
    assert _ == kind
    return PolygonBatch(
        class_id=np.array(class_ids or [1] * count, np.int32),
        pixels=np.rint(shapely.area(polygons)).astype(np.int64),
        confidence=np.full(count, np.nan),
        on_edge=np.zeros(count, bool),
        xy=xy,
        ring_offsets=np.asarray(rings, np.int64),
        polygon_offsets=np.asarray(parts, np.int64),
        feature_offsets=np.arange(count + 1),
        squared=np.zeros(count, bool),
    )


def box(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """Return a box in pixels, counter-clockwise for a map whose rows run downwards."""
    ring = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
    return shapely.Polygon(ring)


def iter_by_gdal(
    rows: Rows,
    options: ShapeOptions,
    *,
    confidence: ConfidenceRows | None = None,
    on_rows: object = None,
) -> Iterator[PolygonBatch]:
    """Yield all polygons of a map at once, by rasterio and GDAL."""
    codes = rows.read_rows(0, rows.height)
    found = list(shapes(codes, mask=codes != NODATA, connectivity=options.connectivity))
    if found:
        polygons = [shapely.geometry.shape(outline) for outline, _ in found]
        # GDAL's exteriors run the other way round in pixels.
        polygons = [shapely.orient_polygons(p, exterior_cw=True) for p in polygons]
        yield batch_of(polygons, [int(value) for _, value in found])
