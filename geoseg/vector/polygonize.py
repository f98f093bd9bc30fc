"""Polygons of a class map of any size, strip by strip.

`geoseg.vector.graph` and `geoseg.vector.trace` say how, readably; the compiled library does the
same where there is one. Polygons that cross strips need no joining: the borders are one graph, to
which strips only add. The result depends on the map alone.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.memory import check_memory
from geoseg.vector.native import NativeTracer
from geoseg.vector.rows import NODATA, ConfidenceRows, PolygonBatch, Rows, ShapeOptions
from geoseg.vector.trace import ReferenceTracer

LEFT_OUT = -2
MOST_FEATURES = 100_000


class Tracer(Protocol):
    """Rows in from the top, complete features out."""

    def add_rows(self, codes: NDArray[np.int32], confidence: NDArray[np.float32] | None) -> None:
        """Take the next rows."""

    def finish(self) -> None:
        """Say that there are no more."""

    def pop(self, most: int) -> PolygonBatch | None:
        """Return complete features."""

    def held_bytes(self) -> int:
        """Return about how much memory is held."""


def iter_polygons(
    rows: Rows,
    options: ShapeOptions,
    *,
    confidence: ConfidenceRows | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Iterator[PolygonBatch]:
    """Yield the polygons of a class map, in the order of their last rows.

    Args:
        rows: the class map.
        options: which classes, and what becomes of the outlines.
        confidence: a second raster on the same grid, averaged over each feature.
        on_rows: is told how many rows are done.

    Raises:
        OutOfMemoryError: the polygons that are open at a time need more than the options allow.
    """
    tracer = build_tracer(rows.height, rows.width, options)
    for start in range(0, rows.height, options.strip_rows):
        stop = min(start + options.strip_rows, rows.height)
        codes = rows.read_rows(start, stop)
        if options.classes is not None:
            wanted = np.isin(codes, [*options.classes, NODATA])
            codes = np.where(wanted, codes, np.int32(LEFT_OUT))
        tracer.add_rows(codes, None if confidence is None else confidence.read_rows(start, stop))
        check_memory(tracer.held_bytes(), options.max_bytes, f"polygons open at row {stop:,}")
        if stop == rows.height:
            tracer.finish()
        while (batch := tracer.pop(MOST_FEATURES)) is not None:
            yield batch
        if on_rows is not None:
            on_rows(stop)


def build_tracer(height: int, width: int, options: ShapeOptions) -> Tracer:
    """Return the compiled tracer, or the reference where there is no compiled library."""
    if NativeTracer.is_available():
        return NativeTracer(height, width, options)
    return ReferenceTracer(height, width, options)
