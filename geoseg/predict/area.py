"""The part of a raster that is wanted: a box, or polygons from a vector file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize
from shapely import STRtree
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geoseg.errors import InputError
from geoseg.model_files import file_sha256
from geoseg.raster.gdal import cause_of
from geoseg.raster.georef import Georef
from geoseg.types import BBox, ValidMask, Window


@dataclass(frozen=True)
class Area:
    """Polygons that a map is kept to.

    Attributes:
        polygons: in the raster's CRS.
        file_name: where they come from, without its folder.
        file_sha256: hash of that file; empty where it is a folder or lies in an archive.
    """

    polygons: tuple[BaseGeometry, ...]
    file_name: str
    file_sha256: str

    @property
    def bounds(self) -> BBox:
        """Bounding box of all polygons, CRS units."""
        return BBox(*(float(v) for v in shapely.total_bounds(np.array(self.polygons))))

    @property
    def sha256(self) -> str:
        """Hash of the polygons, which decide on pixels."""
        return hashlib.sha256(b"".join(shapely.to_wkb(p) for p in self.polygons)).hexdigest()

    def stencil(self, transform: Affine) -> "Stencil":
        """Return the polygons in pixels of a raster, ready to be burnt piece by piece."""
        inverse = ~transform
        matrix = (inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f)
        polygons = tuple(affine_transform(p, matrix) for p in self.polygons)
        return Stencil(polygons, STRtree(polygons), self.file_name, self.file_sha256)


@dataclass(frozen=True)
class Stencil:
    """Polygons in a raster's pixels; a pixel gets the same answer in any window.

    Attributes:
        polygons: in pixels.
        tree: finds those near a window.
        file_name: as in `Area`.
        file_sha256: as in `Area`.
    """

    polygons: tuple[BaseGeometry, ...]
    tree: STRtree
    file_name: str = ""
    file_sha256: str = ""

    def mask(self, window: Window) -> ValidMask:
        """Return True where a pixel's centre lies inside, (height, width) of ``window``."""
        shape = (window.height, window.width)
        frame = shapely.box(window.col, window.row, window.col_end, window.row_end)
        near = self.tree.query(frame, predicate="intersects")
        if len(near) == 0:
            return np.zeros(shape, dtype=bool)
        shift = Affine.translation(window.col, window.row)
        chosen = [self.polygons[i] for i in sorted(near)]
        return rasterize(chosen, shape, transform=shift, dtype="uint8") > 0


def load_area(path: Path, georef: Georef, raster_name: str) -> Area:
    """Return the polygons of a vector file in the raster's CRS.

    Raises:
        InputError: unreadable, without polygons, or in no CRS that can be related to the raster's.
    """
    # pandas takes most of a second to import, which a run without an area file need not wait for.
    import geopandas
    from pyogrio.errors import DataSourceError

    try:
        frame = geopandas.read_file(path)
    except (DataSourceError, OSError) as error:
        raise InputError(
            f"area file {str(path)!r} cannot be read: {cause_of(error)}. Give a vector file with "
            "polygons."
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise InputError(f"area file {str(path)!r}: expected polygons; got a table. Draw the area.")
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
    if not np.isfinite(frame.total_bounds).all():
        raise InputError(
            f"area file {str(path)!r}: its coordinates have no place in the raster's CRS. Check "
            "its own CRS: a GeoJSON file holds longitude and latitude, whatever it was drawn in."
        )
    return Area(
        tuple(shapely.make_valid(g) for g in frame.geometry if not g.is_empty),
        path.name,
        file_sha256(path) if path.is_file() else "",
    )
