"""Areas and lengths on the WGS 84 ellipsoid for many polygons at once.

Vertices are placed by longitude and by the sine of the authalic latitude, in which areas on the
ellipsoid are areas in the plane. What a geodesic edge bulges out of the straight line there is
added by its leading term, which is exact to 1e-7 for edges of some kilometres; polygons with longer
ones are left to PROJ (Karney, "Algorithms for geodesics", Journal of Geodesy 87, 2013).
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.raster.georef import ECCENTRICITY_2, SEMI_MAJOR_M

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

ECCENTRICITY = math.sqrt(ECCENTRICITY_2)
# Relative error of an area, and of a length, above which PROJ computes a polygon.
TOLERANCE = 1e-7
# Terms of the parallels' squared radius, a smooth function of the squared sine.
RADIUS_DEGREE = 7


@dataclass(frozen=True)
class Rings:
    """Closed rings of many features, on the ellipsoid.

    Attributes:
        lon: longitudes, rad, (V,); neighbours in a ring differ by less than pi.
        sine: of the authalic latitude, (V,).
        ring_offsets: (R + 1,) into the vertices.
        feature_offsets: (F + 1,) into the vertices.
    """

    lon: Float64
    sine: Float64
    ring_offsets: Int64
    feature_offsets: Int64


def measure(rings: Rings) -> tuple[Float64, Float64, NDArray[np.bool_]]:
    """Return areas in m2 (F,), perimeters in m (F,), and which are exact to 1e-7 (F,).

    Holes run the other way round than exteriors; a feature's area is positive either way.
    """
    lon, sine = rings.lon, rings.sine
    d_lon, d_sine = np.diff(lon), np.diff(sine)  # (V - 1,)
    joints = rings.ring_offsets[1:-1] - 1  # no edges: from one ring to the next
    d_lon[joints] = d_sine[joints] = 0.0
    middle = (sine[1:] + sine[:-1]) / 2
    radius2, slope = _parallels(middle)
    radius4 = authalic_radius2()
    # Of a curve that is straight in these coordinates, how far geodesics lie towards the pole.
    east2, north2 = radius2 * d_lon * d_lon, radius4**2 / radius2 * d_sine * d_sine  # m2
    bulge = -d_lon * slope * (radius2 * east2 + 3 * radius4**2 * (d_sine * d_sine))
    bulge /= 24 * radius2 * radius4**2
    origin = float(sine[0])
    starts = rings.feature_offsets[:-1]
    area = radius4 * _sums(d_lon * (middle - origin) + bulge, starts)
    length = np.sqrt(east2 + north2)
    perimeter = _sums(length, starts)
    # Terms that follow are smaller by the squared angle of an edge, seen from the ellipsoid's axis.
    angle2 = d_lon * d_lon + north2 / radius2
    error = radius4 * _sums(np.abs(bulge) * angle2, starts)
    with np.errstate(invalid="ignore"):
        exact = error <= TOLERANCE * np.abs(area)
        exact &= _sums(length * angle2, starts) <= 8 * TOLERANCE * perimeter
        exact &= np.abs(_sums(d_lon, starts)) < 1.0  # none goes round a pole
    return np.abs(area), perimeter, exact


def measure_exactly(lon_deg: Float64, lat_deg: Float64, ring_offsets: Int64) -> tuple[float, float]:
    """Return area in m2 and perimeter in m of one feature's rings, by PROJ."""
    geod = _geod()
    area = perimeter = 0.0
    for start, stop in itertools.pairwise(ring_offsets.tolist()):
        ring = geod.polygon_area_perimeter(lon_deg[start : stop - 1], lat_deg[start : stop - 1])
        area += ring[0]
        perimeter += ring[1]
    return abs(area), perimeter


def authalic_sine(lat: Float64) -> Float64:
    """Return the sine of the authalic latitude of geographic latitudes, rad."""
    return _q(np.sin(lat)) / _q(np.ones(1))[0]


@functools.cache
def authalic_radius2() -> float:
    """Return the squared radius of the sphere with the ellipsoid's area, m2."""
    return float(SEMI_MAJOR_M**2 * _q(np.ones(1))[0] / 2)


def _q(sine: Float64) -> Float64:
    """Return the area between the equator and a latitude, in half squared semi-major axes."""
    e = ECCENTRICITY
    q: Float64 = (1 - e * e) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    return q


def _parallels(sine: Float64) -> tuple[Float64, Float64]:
    """Return squared radius of the parallels, m2, and its derivative by the authalic sine."""
    terms, slopes = _radius_terms()
    square = sine * sine
    radius2 = np.full_like(sine, terms[-1])
    slope = np.full_like(sine, slopes[-1])
    for term in terms[-2::-1]:
        radius2 *= square
        radius2 += term
    for term in slopes[-2::-1]:
        slope *= square
        slope += term
    slope *= sine
    return np.maximum(radius2, 1e-9), slope


@functools.cache
def _radius_terms() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return polynomials in the squared sine: the squared radius, and its derivative / sine."""
    lat = np.linspace(0.0, math.pi / 2, 200)
    radius2 = (SEMI_MAJOR_M * np.cos(lat)) ** 2 / (1 - ECCENTRICITY_2 * np.sin(lat) ** 2)
    square = authalic_sine(lat) ** 2
    fitted = np.polynomial.Polynomial.fit(square, radius2, RADIUS_DEGREE).convert()
    by_square = fitted.deriv()
    return tuple(map(float, fitted.coef)), tuple(2 * float(c) for c in by_square.coef)


def _sums(values: Float64, starts: Int64) -> Float64:
    """Return sums over each feature's edges; the edge into the next feature is 0."""
    sums: Float64 = np.add.reduceat(values, starts)
    return sums


@functools.cache
def _geod() -> Any:
    from pyproj import Geod

    return Geod(ellps="WGS84")
