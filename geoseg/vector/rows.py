"""What the steps of vectorising hand to each other: strips of a class map in, polygons out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

NODATA = -1
STRIP_PX = 4_000_000
Float64 = NDArray[np.float64]
SquareRing = Callable[[Float64], Float64 | None]


class Rows(Protocol):
    """A class map that is read by strips of full width."""

    @property
    def height(self) -> int:
        """Rows of the map."""

    @property
    def width(self) -> int:
        """Columns of the map."""

    def read_rows(self, start: int, stop: int) -> NDArray[np.int32]:
        """Return the class ids (stop - start, width); -1 where there is none."""


class ConfidenceRows(Protocol):
    """A second raster on the map's grid, read alike."""

    def read_rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return values (stop - start, width); NaN where there is none."""


@dataclass(frozen=True, kw_only=True)
class ShapeOptions:
    """What becomes of the outlines; lengths in pixels of the map.

    Args:
        connectivity: 8 puts faces of a class that touch at a corner into one feature.
        simplify_px: greatest distance between an outline and its simpler form; 0 leaves it.
        smooth_px: greatest distance that rounding moves a corner; 0 leaves it.
        classes: ids that become polygons; None takes all.
        square_classes: ids whose free-standing outlines get square corners by ``square``.
        square: a closed ring (V, 2) in pixels to its squared form, or None to leave it.
        square_shift_px: greatest distance by which ``square`` moves an outline.
        aspect: height of a pixel on the ground in widths of one; distances are measured so.
        strip_rows: rows read at once; the result does not depend on it.
        max_bytes: memory for what is open at a time; None: any.
    """

    connectivity: Literal[4, 8] = 4
    simplify_px: float = 0.0
    smooth_px: float = 0.0
    classes: frozenset[int] | None = None
    square_classes: frozenset[int] = frozenset()
    square: SquareRing | None = None
    square_shift_px: float = 0.0
    aspect: float = 1.0
    strip_rows: int = 1024
    max_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class PolygonBatch:
    """Features whose polygons are complete, in pixels: x columns, y rows, from the upper left.

    Args:
        class_id: int32 (F,).
        pixels: int64 (F,), how many pixels of the map each feature is made of.
        confidence: float64 (F,), mean over the pixels that have one; NaN where none has.
        on_edge: bool (F,), touches the raster's edge or ground without a class.
        xy: float64 (V, 2), closed rings: the last vertex repeats the first.
        ring_offsets: int64 (R + 1,) into ``xy``.
        polygon_offsets: int64 (P + 1,) into rings: the exterior, then its holes.
        feature_offsets: int64 (F + 1,) into polygons.
        squared: bool (P,), outline was given square corners.
    """

    class_id: NDArray[np.int32]
    pixels: NDArray[np.int64]
    confidence: Float64
    on_edge: NDArray[np.bool_]
    xy: Float64
    ring_offsets: NDArray[np.int64]
    polygon_offsets: NDArray[np.int64]
    feature_offsets: NDArray[np.int64]
    squared: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))


def strip_rows(width: int) -> int:
    """Return how many rows of a map make a strip of bounded size."""
    return max(1, STRIP_PX // max(width, 1))
