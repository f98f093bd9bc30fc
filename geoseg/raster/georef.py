"""Georeference: metres per pixel, pixel boxes, and whether a GeoTIFF keeps it to the bit."""

import math
from dataclasses import dataclass, replace

from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import MemoryFile
from rasterio.rpc import RPC
from rasterio.warp import transform as transform_points

from geoseg.errors import GeoreferenceError, GsdMismatchError, InputError
from geoseg.raster.gdal import GDAL_ERRORS, cause_of, quiet_georeference
from geoseg.types import BBox, Window

# WGS 84 ellipsoid.
SEMI_MAJOR_M = 6378137.0
ECCENTRICITY_2 = 0.00669437999014
# Beyond this ratio to the model's range, resampled pixels no longer show what it learnt.
LARGEST_GSD_RATIO = 4.0


@dataclass(frozen=True)
class Georef:
    """Where a raster lies: everything that an output must repeat."""

    crs: CRS | None
    transform: Affine
    area_or_point: str | None = None
    gcps: tuple[GroundControlPoint, ...] = ()
    gcps_crs: CRS | None = None
    rpcs: RPC | None = None

    @property
    def has_transform(self) -> bool:
        """Whether pixels are placed by an affine transform rather than not, or by GCPs or RPCs."""
        return not self.transform.is_identity

    @property
    def is_by_points(self) -> bool:
        """Whether pixels are placed by GCPs or RPCs only."""
        return not self.has_transform and (bool(self.gcps) or self.rpcs is not None)

    @property
    def is_complete(self) -> bool:
        """Whether CRS and transform are both there."""
        return self.crs is not None and self.has_transform


def local_gsd(georef: Georef, row: float, col: float) -> tuple[float, float]:
    """Return the ground length in metres of a step along columns and along rows at a pixel.

    Measured on the WGS 84 ellipsoid, so degrees, feet, and the stretched metres of Web Mercator
    come out right, and rotated rasters too.

    Raises:
        GeoreferenceError: no CRS, or the pixel has no place on the earth in it.
    """
    if not georef.is_complete or georef.crs is None:
        raise GeoreferenceError("expected a raster with CRS and transform; got none.")
    # Steps of one pixel would lose digits in degrees: the difference of a wide step is scaled back.
    centre = georef.transform @ (col, row)
    step = 8.0
    points = [centre, georef.transform @ (col + step, row), georef.transform @ (col, row + step)]
    try:
        lons, lats = transform_points(
            georef.crs, CRS.from_epsg(4326), [p[0] for p in points], [p[1] for p in points]
        )[:2]
    except GDAL_ERRORS as error:
        raise GeoreferenceError(
            f"the raster's place cannot be related to the ground: {cause_of(error)}. "
            "Check the CRS, or give --gsd native."
        ) from error
    if not all(map(math.isfinite, [*lons, *lats])):
        raise GeoreferenceError(
            f"expected the raster's centre to lie on the earth in its CRS; got {centre}. "
            "Check the CRS, or give --gsd native."
        )
    return (
        _ground_distance_m(lons[0], lats[0], lons[1], lats[1]) / step,
        _ground_distance_m(lons[0], lats[0], lons[2], lats[2]) / step,
    )


def _ground_distance_m(lon_0: float, lat_0: float, lon_1: float, lat_1: float) -> float:
    """Return the length of a short line by the ellipsoid's two radii of curvature."""
    lat = math.radians((lat_0 + lat_1) / 2)
    w2 = 1.0 - ECCENTRICITY_2 * math.sin(lat) ** 2
    meridian = SEMI_MAJOR_M * (1.0 - ECCENTRICITY_2) / w2**1.5
    normal = SEMI_MAJOR_M / math.sqrt(w2)
    d_lon = (lon_1 - lon_0 + 180.0) % 360.0 - 180.0
    north = meridian * math.radians(lat_1 - lat_0)
    east = normal * math.cos(lat) * math.radians(d_lon)
    return math.hypot(north, east)


def choose_gsd(native_m: tuple[float, float], known_m: tuple[float, float] | None) -> float | None:
    """Return the GSD to resample to under ``--gsd auto``, or None to run natively.

    Args:
        native_m: of the raster, along columns and rows.
        known_m: finest and coarsest of the model; None: unknown, never resampled.

    Raises:
        GsdMismatchError: more than four times finer or coarser than the model's range.
    """
    if known_m is None:
        return None
    finest, coarsest = known_m
    if all(finest <= gsd <= coarsest for gsd in native_m):
        return None
    mean = math.sqrt(native_m[0] * native_m[1])
    target = min(max(mean, finest), coarsest)
    ratio = max(mean / target, target / mean)
    if ratio > LARGEST_GSD_RATIO:
        raise GsdMismatchError(
            f"the model knows {finest:g} to {coarsest:g} m per pixel; the raster has "
            f"{mean:.3g} m, {ratio:.1f} times off (at most {LARGEST_GSD_RATIO:g} can be bridged). "
            "Use imagery or a model of a fitting resolution, or give --gsd native or --gsd METRES."
        )
    return target


def box_of_bounds(bounds: BBox, georef: Georef, height: int, width: int) -> Window:
    """Return the smallest pixel-aligned box that holds ``bounds`` (CRS units) within the raster.

    Raises:
        InputError: the box lies outside of the raster.
    """
    inverse = ~georef.transform
    corners = [(x, y) for x in (bounds.left, bounds.right) for y in (bounds.bottom, bounds.top)]
    cols, rows = zip(*(inverse @ corner for corner in corners), strict=True)
    row, col = max(0, _floor(min(rows))), max(0, _floor(min(cols)))
    row_end, col_end = min(height, _ceil(max(rows))), min(width, _ceil(max(cols)))
    if row >= row_end or col >= col_end:
        extent = bounds_of(georef.transform, height, width)
        raise InputError(
            f"expected an area that overlaps the raster; got {_text(bounds)}, and the raster "
            f"covers {_text(extent)} (left, bottom, right, top in its CRS). Check the CRS of the "
            "area."
        )
    return Window(row, col, row_end - row, col_end - col)


def bounds_of(transform: Affine, height: int, width: int) -> BBox:
    """Return the bounding box of a raster, rotated ones included."""
    corners = [transform @ (c, r) for c in (0, width) for r in (0, height)]
    xs, ys = zip(*corners, strict=True)
    return BBox(min(xs), min(ys), max(xs), max(ys))


def crop_transform(transform: Affine, window: Window) -> Affine:
    """Return the transform of ``window``; the raster's own, to the bit, when it starts at 0, 0."""
    if window.row == 0 and window.col == 0:
        return transform
    return transform @ Affine.translation(window.col, window.row)


def storable(georef: Georef, name: str) -> Georef:
    """Return the georeference as a GeoTIFF will give it back: the same to the bit.

    Raises:
        GeoreferenceError: a GeoTIFF would change CRS, transform or control points.
    """
    if georef.has_transform:  # it places the pixels; control points beside it cannot be kept
        georef = replace(georef, gcps=(), gcps_crs=None)
    for kind in dict.fromkeys((georef.area_or_point, "Area")):
        kept = replace(georef, area_or_point=kind)
        if _survives(kept):
            return kept
    raise GeoreferenceError(
        f"{name!r}: a GeoTIFF cannot hold this CRS, transform or set of control points unchanged. "
        "Warp the raster to a common CRS first, for example with gdalwarp."
    )


def _survives(georef: Georef) -> bool:
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8"}
    with quiet_georeference(), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            if georef.crs is not None:
                dataset.crs = georef.crs
            if georef.has_transform:
                dataset.transform = georef.transform
            if georef.gcps:
                dataset.gcps = list(georef.gcps), georef.gcps_crs
            if georef.area_or_point:
                dataset.update_tags(AREA_OR_POINT=georef.area_or_point)
        with memory.open() as dataset:
            points, points_crs = dataset.gcps
            same_points = [_point(p) for p in points] == [_point(p) for p in georef.gcps]
            same_place = dataset.transform == georef.transform and dataset.crs == georef.crs
            return same_place and same_points and points_crs == georef.gcps_crs


def _point(gcp: GroundControlPoint) -> tuple[float, ...]:
    return gcp.row, gcp.col, gcp.x, gcp.y, gcp.z or 0.0


def _floor(value: float) -> int:
    # A border that misses a pixel edge by rounding alone does not take another row in.
    return math.floor(value + 1e-6)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-6)


def _text(bounds: BBox) -> str:
    return ", ".join(f"{value:.10g}" for value in bounds)
