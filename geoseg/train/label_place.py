"""Whether labels lie where the raster does: said in the words of the files that were given."""

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from geoseg.data.patches import PatchGrid
from geoseg.errors import GeoreferenceError, InputError

HOW_TO_ASSIGN = "gdal_translate -a_srs EPSG:CODE or ogr2ogr -a_srs EPSG:CODE"


def find_on_raster(frame: geopandas.GeoDataFrame, labels: str, grid: PatchGrid) -> NDArray[np.bool]:
    """Return which polygons touch the raster, (n,).

    Args:
        frame: polygons in their own CRS.
        labels: their file, for messages.
        grid: of the raster.

    Raises:
        GeoreferenceError: only one of both has a CRS, or they cannot be related.
        InputError: no polygon touches the raster.
    """
    check_both_placed(str(frame.crs or ""), labels, grid)
    placed = frame.geometry if frame.crs is None else frame.geometry.to_crs(grid.crs)
    if not np.isfinite(placed.total_bounds).all():
        raise GeoreferenceError(
            f"label file {labels!r}: expected coordinates with a place in the raster's CRS; got "
            "some without. Check the labels' own CRS: a GeoJSON file holds longitude and latitude, "
            "whatever it was drawn in."
        )
    outline = grid.outline()
    check_overlap(shapely.box(*placed.total_bounds), labels, outline)
    touches = np.array(shapely.intersects(outline, np.array(placed)))
    if not touches.any():
        raise InputError(
            f"label file {labels!r}: expected polygons on the raster; got {len(frame)} around it "
            "and none on it. Check the labels' CRS, or draw some on the raster."
        )
    return touches


def check_both_placed(crs: str, labels: str, grid: PatchGrid) -> None:
    """Raise unless labels and raster both have a CRS, or neither has."""
    if bool(crs) == bool(grid.crs):
        return
    lacking, has = ("the raster", repr(labels)) if crs else (repr(labels), "the raster")
    raise GeoreferenceError(
        f"expected a CRS in both labels and raster; {lacking} has none and {has} has one. Assign "
        f"it, for example with {HOW_TO_ASSIGN}."
    )


def check_overlap(ground: BaseGeometry, labels: str, outline: BaseGeometry) -> None:
    """Raise unless the ground of labels and the raster's, in one CRS, touch."""
    if ground.intersects(outline):
        return
    raise InputError(
        f"expected labels that overlap the raster; {labels!r} covers {_text(ground)} and the "
        f"raster covers {_text(outline)} (left, bottom, right, top in the raster's CRS). Check the "
        "CRS of the labels."
    )


def _text(ground: BaseGeometry) -> str:
    return ", ".join(f"{value:.10g}" for value in ground.bounds)
