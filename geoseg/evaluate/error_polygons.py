"""Polygons of the error map: each connected patch of one error, exact to the pixel."""

from collections.abc import Sequence
from pathlib import Path

from geoseg.evaluate.error_map import RIGHT
from geoseg.listener import Listener, SecondStep
from geoseg.spec import ClassSpec
from geoseg.vector import VectorOptions, vectorize_raster

LAYER = "errors"


def write_error_polygons(
    error_map: Path,
    out: Path,
    legend: Sequence[ClassSpec],
    *,
    max_memory_bytes: int,
    listener: Listener,
) -> Path:
    """Write a layer of polygons; an existing one is replaced.

    Args:
        error_map: see `publish_error_map`.
        out: ``.gpkg``; without any error a layer without features.
        legend: values of the map that occur.
        max_memory_bytes: bound on this process's memory.
        listener: hears of warnings and may stop the run.
    """
    options = VectorOptions(
        classes=tuple(c.id for c in legend if c.id != RIGHT),
        max_memory_bytes=max_memory_bytes,
        overwrite=True,
        layer_name=LAYER,
    )
    vectorize_raster(error_map, out, options=options, listener=_Warnings(listener))
    return out


class _Warnings(SecondStep):
    """Keeps to itself how much ground each of up to 210 errors covers: the report says it."""

    def log(self, level: str, message: str) -> None:
        if level == "warning":
            super().log(level, message)
