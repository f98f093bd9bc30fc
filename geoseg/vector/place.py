"""Where a map lies on the ellipsoid: positions of its pixels, areas and perimeters of polygons.

PROJ places a few points; between them polynomials do, which are exact to a millionth of a pixel and
many times faster than PROJ for every vertex.
"""

import contextlib
import math

import numpy as np
from affine import Affine
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from geoseg.errors import GeoreferenceError
from geoseg.raster.gdal import GDAL_ERRORS, cause_of
from geoseg.vector.geodesic import (
    Rings,
    authalic_radius2,
    authalic_sine,
    measure,
    measure_exactly,
)
from geoseg.vector.geometry import Geometries, cut_edges
from geoseg.vector.rows import PolygonBatch

Float64 = NDArray[np.float64]

DEGREES = (4, 7, 13)
CHUNK = 32_768
# Points that are quicker placed by rasterio, which is loaded, than pyproj is imported.
FEW = 1000
# Error of the interpolation, in parts of the map's longer side; and the least one, metres.
FIT_TOLERANCE, FIT_FLOOR_M = 2e-10, 1e-8
# Edges over more of the earth than this are cut into pieces of the map's side.
WIDE_RAD, WIDE_PIECES = 0.5, 2048


class Place:
    """Places pixels of a map on the ellipsoid.

    Args:
        crs: of the map.
        transform: pixel to CRS units.
        height, width: of the map, px.

    Raises:
        GeoreferenceError: the middle of the map does not lie on the earth.
    """

    def __init__(self, crs: CRS, transform: Affine, height: int, width: int) -> None:
        self.crs = crs
        self.transform = transform
        self.size = np.array([max(width, 1), max(height, 1)], np.float64)
        self.origin_deg = 0.0
        lon, lat = self._by_proj(self.size[None] / 2)
        if not (np.isfinite(lon[0]) and abs(lat[0]) <= 90):
            raise GeoreferenceError(
                "expected a map that lies on the earth in its CRS; its middle does not. Check the "
                "CRS."
            )
        self.origin_deg = float(lon[0])
        with np.errstate(invalid="ignore"):
            self._fit = self._fitted()

    def degrees(self, xy: Float64) -> tuple[Float64, Float64]:
        """Return longitudes from the middle's, and latitudes of pixel positions (N, 2)."""
        return self._by_proj(xy)

    def ellipsoid(self, xy: Float64) -> tuple[Float64, Float64]:
        """Return longitudes from the middle's, rad, and authalic sines of positions (N, 2)."""
        if self._fit is None:
            return _authalic(*self._by_proj(xy))
        u = xy[:, 0] * (2 / self.size[0]) - 1
        v = xy[:, 1] * (2 / self.size[1]) - 1
        lon, sine = np.empty_like(u), np.empty_like(u)
        for start in range(0, len(u), CHUNK):
            part = slice(start, start + CHUNK)
            lon[part] = _evaluate(self._fit[0], u[part], v[part])
            sine[part] = _evaluate(self._fit[1], u[part], v[part])
        return lon, sine

    def measure(self, batch: PolygonBatch) -> tuple[Float64, Float64]:
        """Return geodesic areas in m2 and perimeters in m of features, (F,)."""
        lon, sine = self.ellipsoid(batch.xy)
        if self._fit is None:
            lon = _unwrapped(lon)
        ring_offsets = batch.ring_offsets
        vertices = ring_offsets[batch.polygon_offsets[batch.feature_offsets]]
        areas, perimeters, exact = measure(Rings(lon, sine, ring_offsets, vertices))
        for i in np.flatnonzero(~exact):
            first, last = batch.polygon_offsets[batch.feature_offsets[[i, i + 1]]]
            rings = ring_offsets[first : last + 1]
            inside = slice(rings[0], rings[-1])
            if np.abs(np.diff(lon[inside])).max() > WIDE_RAD:
                areas[i], perimeters[i] = self._measure_wide(batch, int(i))
            else:
                part = self._by_proj(batch.xy[inside])
                areas[i], perimeters[i] = measure_exactly(*part, rings - rings[0])
        return areas, perimeters

    def _measure_wide(self, batch: PolygonBatch, feature: int) -> tuple[float, float]:
        """Return area and perimeter of a feature whose edges go a long way round the earth.

        Its edges are the map's straight lines; geodesics would take the shorter way round.
        """
        first, last = batch.feature_offsets[[feature, feature + 1]]
        polygons = batch.polygon_offsets[first : last + 1]
        rings = batch.ring_offsets[polygons[0] : polygons[-1] + 1]
        whole = Geometries(
            batch.xy[rings[0] : rings[-1]],
            rings - rings[0],
            polygons - polygons[0],
            np.array([0, last - first]),
        )
        cut = cut_edges(whole, max(1.0, float(self.size.max()) / WIDE_PIECES))
        lon, sine = self.ellipsoid(cut.xy)
        ends = cut.ring_offsets[[0, -1]]
        area, perimeter, _ = measure(Rings(_unwrapped(lon), sine, cut.ring_offsets, ends))
        return float(area[0]), float(perimeter[0])

    def _by_proj(self, xy: Float64) -> tuple[Float64, Float64]:
        a, b, c, d, e, f = list(self.transform)[:6]
        xs = a * xy[:, 0] + b * xy[:, 1] + c
        ys = d * xy[:, 0] + e * xy[:, 1] + f
        lon, lat = _to_degrees(self.crs, xs, ys)
        with np.errstate(invalid="ignore"):
            return (lon - self.origin_deg + 180.0) % 360.0 - 180.0, lat

    def _fitted(self) -> tuple[Float64, Float64] | None:
        """Return polynomials for longitude and authalic sine, or None where none are close."""
        check = _nodes(11)
        expected = _authalic(*self._by_proj((check + 1) / 2 * self.size))
        scale = math.sqrt(authalic_radius2())
        side = float(np.ptp(expected[0]) + np.ptp(expected[1])) * scale
        tolerance = max(FIT_FLOOR_M, FIT_TOLERANCE * side) / scale
        for degree in DEGREES:
            at = _nodes(degree + 1)
            values = _authalic(*self._by_proj((at + 1) / 2 * self.size))
            if not np.isfinite(values).all() or not np.isfinite(expected).all():
                return None
            fit = tuple(_interpolated(value, degree, tolerance) for value in values)
            got = [_evaluate(terms, check[:, 0], check[:, 1]) for terms in fit]
            if max(np.abs(g - e).max() for g, e in zip(got, expected, strict=True)) <= tolerance:
                return fit[0], fit[1]
        return None


def _to_degrees(crs: CRS, xs: Float64, ys: Float64) -> tuple[Float64, Float64]:
    """Return WGS 84 longitudes and latitudes; not finite where a point has none.

    Raises:
        GeoreferenceError: no way leads from the CRS to WGS 84.
    """
    if len(xs) <= FEW:
        with contextlib.suppress(*GDAL_ERRORS):  # which it raises if a single point has no place
            lons, lats = transform_points(crs, CRS.from_epsg(4326), xs, ys)[:2]
            return np.asarray(lons, np.float64), np.asarray(lats, np.float64)
    from pyproj import Transformer
    from pyproj.exceptions import CRSError, ProjError

    try:
        transformer = Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    except (CRSError, ProjError) as error:
        raise GeoreferenceError(
            f"the map's place cannot be related to the ground: {cause_of(error)}. Check "
            "the CRS; a local one must be taken away, and lengths are pixels then."
        ) from error
    lon, lat = transformer.transform(xs, ys)
    return lon, lat


def _authalic(lon_deg: Float64, lat_deg: Float64) -> tuple[Float64, Float64]:
    return np.radians(lon_deg), authalic_sine(np.radians(lat_deg))


def _nodes(count: int) -> Float64:
    """Return Chebyshev nodes of the square from -1 to 1, (count^2, 2)."""
    nodes = chebyshev.chebpts1(count)
    u, v = np.meshgrid(nodes, nodes)
    return np.stack([u.ravel(), v.ravel()], axis=1)


def _interpolated(values: Float64, degree: int, tolerance: float) -> Float64:
    """Return polynomial coefficients (v power, u power) of values at Chebyshev nodes."""
    count = degree + 1
    basis = chebyshev.chebvander(chebyshev.chebpts1(count), degree)
    inverse = np.linalg.inv(basis)
    terms = inverse @ values.reshape(count, count) @ inverse.T
    terms[np.abs(terms) < tolerance / 100] = 0.0
    powers = np.zeros((count, count))
    for k in range(count):
        powers[k, : k + 1] = chebyshev.cheb2poly(np.eye(count)[k])[: k + 1]
    result: Float64 = powers.T @ terms @ powers
    return result


def _evaluate(terms: Float64, u: Float64, v: Float64) -> Float64:
    """Return a polynomial (v power, u power) at positions, by Horner's rule; 0 terms are left."""
    total = np.zeros_like(u)
    started = False
    for row in terms[::-1]:
        if started:
            total *= v
        powers = np.flatnonzero(row)
        if not len(powers):
            continue
        started = True
        inner = np.full_like(u, row[powers[-1]])
        for power in range(int(powers[-1]) - 1, -1, -1):
            inner *= u
            if row[power]:
                inner += row[power]
        total += inner
    return total


def _unwrapped(lon: Float64) -> Float64:
    """Return longitudes, rad, without jumps at the antimeridian of the middle's."""
    turns = np.rint(np.diff(lon) / (2 * np.pi))
    unwrapped: Float64 = lon.copy()
    unwrapped[1:] -= 2 * np.pi * np.cumsum(np.nan_to_num(turns))
    return unwrapped
