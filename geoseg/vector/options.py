"""How a class map is turned into polygons, in the user's units."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT_MAX_MEMORY_BYTES = 4 * 10**9

ClassName = int | str


@dataclass(frozen=True, kw_only=True)
class VectorOptions:
    """How a class map is turned into polygons; the defaults change nothing of their shapes.

    Lengths are metres and areas square metres on the ground, by the map's CRS. A map without a CRS
    has no metres: there they are pixels and square pixels.

    Attributes:
        classes: ids or names that become polygons; None: all.
        min_area_m2: smaller specks become what surrounds them most; 0 keeps all.
        fill_holes_m2: smaller holes become what surrounds them; 0 keeps all.
        simplify_m: greatest distance between an outline and its simpler form; 0 leaves it.
        smooth_m: greatest distance that rounding moves a corner; ``auto`` is one pixel.
        square_corners: ids or names whose outlines get square corners where they border on one
            other polygon; with connectivity 4 such that touch at a corner are parted by a pixel.
        connectivity: 8 puts faces of a class that touch at a corner into one feature.
        confidence: a second raster on the map's grid, averaged over each polygon.
        dst_crs: CRS of the polygons, anything PROJ knows; None: the map's.
        max_memory_bytes: bound on this process's memory; decides how many rows are read at once.
        overwrite: replace the output.
        block_px: rows read at once; None: by the memory. The result does not depend on it.
        layer_name: of the layer; None: the output's name.
    """

    classes: tuple[ClassName, ...] | None = None
    min_area_m2: float = 0.0
    fill_holes_m2: float = 0.0
    simplify_m: float = 0.0
    smooth_m: float | Literal["auto"] = 0.0
    square_corners: tuple[ClassName, ...] = ()
    connectivity: Literal[4, 8] = 4
    confidence: Path | None = None
    dst_crs: str | None = None
    max_memory_bytes: int = DEFAULT_MAX_MEMORY_BYTES
    overwrite: bool = False
    block_px: int | None = None
    layer_name: str | None = None
