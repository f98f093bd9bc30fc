"""Sizes on the ground: areas of pixels in square metres, and lengths in pixels."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from geoseg.data.patches import PatchGrid
from geoseg.errors import GeoreferenceError
from geoseg.raster.gdal import GDAL_ERRORS, cause_of
from geoseg.raster.georef import Georef, local_gsd
from geoseg.types import Window

WGS84 = CRS.from_epsg(4326)


def pixel_areas_m2(grid: PatchGrid, windows: Sequence[Window]) -> NDArray[np.float64]:
    """Return the mean ground area of the pixels of each window, in square metres.

    The windows' outlines are brought into the equal-area cylindrical projection of the WGS 84
    ellipsoid, so that degrees, feet and the stretched metres of Web Mercator come out right.

    Raises:
        GeoreferenceError: a window has no place on the earth.
    """
    outlines = np.array([grid.part(window).outline().exterior.coords for window in windows])
    xs, ys = outlines[..., 0].ravel(), outlines[..., 1].ravel()  # (windows x points,)
    try:
        source = CRS.from_wkt(grid.crs)
        lons, _ = transform_points(source, WGS84, xs[:1], ys[:1])
        # Cut opposite of the map, so that no window lies on both sides.
        equal_area = CRS.from_proj4(f"+proj=cea +lon_0={lons[0]:.6f} +datum=WGS84 +units=m")
        placed = np.array(transform_points(source, equal_area, xs, ys))  # (2, windows x points)
    except GDAL_ERRORS as error:
        raise GeoreferenceError(
            f"the map's place cannot be related to the ground: {cause_of(error)}. Check the CRS."
        ) from error
    areas = shapely.area(shapely.polygons(placed.T.reshape(outlines.shape)))
    if not (np.isfinite(areas) & (areas > 0)).all():
        raise GeoreferenceError(
            "expected a map that lies on the earth in its CRS; a part of it does not. Check the "
            "CRS, or crop the map by --bounds."
        )
    pixels = np.array([window.height * window.width for window in windows])
    mean: NDArray[np.float64] = areas / pixels
    return mean


def metres_in_pixels(grid: PatchGrid, length_m: float) -> tuple[int, int]:
    """Return a length as numbers of rows and of columns at the middle of a grid, at least one."""
    along_cols, along_rows = _middle_gsd(grid)
    return max(1, round(length_m / along_rows)), max(1, round(length_m / along_cols))


def longest_side_m(grid: PatchGrid) -> float:
    """Return the longer side of a grid on the ground, in metres."""
    along_cols, along_rows = _middle_gsd(grid)
    return max(grid.height * along_rows, grid.width * along_cols)


def _middle_gsd(grid: PatchGrid) -> tuple[float, float]:
    georef = Georef(CRS.from_wkt(grid.crs), grid.transform)
    return local_gsd(georef, grid.height / 2, grid.width / 2)
