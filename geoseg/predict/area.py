"""The part of a raster that is wanted: a box, or polygons from a vector file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import shapely
from affine import Affine
from pyogrio.errors import DataSourceError
from rasterio.features import rasterize
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from geoseg.errors import InputError
from geoseg.raster.georef import Georef
from geoseg.types import BBox, ValidMask, Window


@dataclass(frozen=True)
class Area:
    """Polygons in a raster's CRS, indexed for burning them piece by piece."""

    polygons: tuple[BaseGeometry, ...]
    tree: STRtree

    @property
    def bounds(self) -> BBox:
        """Bounding box of all polygons, CRS units."""
        return BBox(*(float(v) for v in shapely.total_bounds(np.array(self.polygons))))

    @property
    def sha256(self) -> str:
        """Hash of the polygons, which decide on pixels."""
        return hashlib.sha256(b"".join(shapely.to_wkb(p) for p in self.polygons)).hexdigest()

    def mask(self, transform: Affine, window: Window) -> ValidMask:
        """Return True where a pixel's centre lies inside, (height, width) of ``window``."""
        shifted = transform @ Affine.translation(window.col, window.row)
        corners = [
            shifted @ (c, r) for c, r in ((0, 0), (window.width, 0), (window.width, window.height))
        ]
        corners.append(shifted @ (0, window.height))
        near = self.tree.query(shapely.Polygon(corners), predicate="intersects")
        shape = (window.height, window.width)
        if len(near) == 0:
            return np.zeros(shape, dtype=bool)
        burnt = rasterize(
            [self.polygons[i] for i in sorted(near)], shape, transform=shifted, dtype="uint8"
        )
        return burnt > 0


def load_area(path: Path, georef: Georef, raster_name: str) -> Area:
    """Return the polygons of a vector file in the raster's CRS.

    Raises:
        InputError: unreadable, without polygons, or in no CRS that can be related to the raster's.
    """
    try:
        frame = geopandas.read_file(path)
    except (DataSourceError, OSError) as error:
        raise InputError(
            f"area file {str(path)!r} cannot be read: {error}. Give a vector file with polygons."
        ) from error
    frame = frame[frame.geom_type.isin(["Polygon", "MultiPolygon"])]
    if frame.empty:
        raise InputError(f"area file {str(path)!r}: expected polygons; got none. Draw the area.")
    if (frame.crs is None) != (georef.crs is None):
        lacking, has = (str(path), raster_name) if frame.crs is None else (raster_name, str(path))
        raise InputError(
            f"expected a CRS in both the area file and the raster; {lacking!r} has none and "
            f"{has!r} has one. Give the file its CRS, or use --bounds."
        )
    if georef.crs is not None:
        frame = frame.to_crs(georef.crs.to_wkt())
    polygons = tuple(shapely.make_valid(g) for g in frame.geometry if not g.is_empty)
    return Area(polygons, STRtree(polygons))
