"""Sizes of a map's pixels on the ground: what metres and square metres are in pixels."""

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geoseg.errors import GeoreferenceError
from geoseg.raster.georef import ECCENTRICITY_2, SEMI_MAJOR_M
from geoseg.vector.place import Place
from geoseg.vector.rows import PolygonBatch

Float64 = NDArray[np.float64]

# Differences between rows below this are not worth weights.
SAME_AREA = 1e-6
WEIGHT_ROWS = 257
LARGEST_SAMPLES = 9


@dataclass(frozen=True)
class Ground:
    """Sizes of a map's pixels, in metres at its middle, or in pixels without a CRS.

    Attributes:
        unit: ``m`` or ``px``.
        jacobian: metres per column and row along the columns and across them, (2, 2).
        place: from pixels to the ellipsoid; None without a CRS.
        row_areas: area of each row's pixels in those of the middle, (height,); None: all alike.
    """

    unit: str
    jacobian: Float64
    place: Place | None
    row_areas: Float64 | None

    @property
    def pixel_width(self) -> float:
        """Ground length of a step along columns, at the middle of the map."""
        return math.hypot(*self.jacobian[:, 0])

    @property
    def pixel_height(self) -> float:
        """Ground length of a step along rows, at the middle of the map."""
        return math.hypot(*self.jacobian[:, 1])

    @property
    @np.errstate(invalid="ignore")
    def largest(self) -> tuple[float, float]:
        """Ground length of steps along columns and rows where they are longest on the map.

        Raised where columns and rows do not cross at right angles: a step of (dx, dy) is never
        longer than the hypotenuse of both lengths, so lengths counted by them keep their bounds.
        """
        if self.place is None:
            return self.pixel_width, self.pixel_height
        share = np.linspace(0.02, 0.98, LARGEST_SAMPLES)
        cols, rows = np.meshgrid(share * self.place.size[0], share * self.place.size[1])
        steps = _jacobian(self.place, np.stack([cols.ravel(), rows.ravel()], axis=1))
        widths, heights = np.linalg.norm(steps, axis=1).T  # (N,)
        cosines = np.abs((steps[:, :, 0] * steps[:, :, 1]).sum(axis=1)) / (widths * heights)
        slant = math.sqrt(1 + float(np.nanmax(cosines)))
        return float(np.nanmax(widths)) * slant, float(np.nanmax(heights)) * slant

    @property
    def middle_area(self) -> float:
        """Ground area of a pixel at the middle of the map."""
        return abs(float(np.linalg.det(self.jacobian)))

    def measure(self, batch: PolygonBatch) -> tuple[Float64, Float64]:
        """Return geodesic areas in m2 and perimeters in m (F,); NaN without a CRS or a place."""
        if self.place is None:
            nothing = np.full(len(batch.class_id), np.nan)
            return nothing, nothing
        with np.errstate(invalid="ignore"):
            return self.place.measure(batch)


@np.errstate(invalid="ignore")  # of places beyond the horizon of a projection
def build_ground(crs: CRS | None, transform: Affine, height: int, width: int) -> Ground:
    """Return the sizes of a map's pixels.

    Raises:
        GeoreferenceError: the map does not lie on the earth in its CRS.
    """
    if crs is None:
        return Ground("px", np.eye(2), None, None)
    place = Place(crs, transform, height, width)
    middle = place.size / 2
    jacobian = _jacobian(place, middle[None])[0]
    area = abs(float(np.linalg.det(jacobian)))
    if not math.isfinite(area) or area <= 0:
        raise GeoreferenceError(
            "expected a map that lies on the earth in its CRS; its middle does not. Check the CRS."
        )
    return Ground("m", jacobian, place, _row_areas(place, area, height))


def _row_areas(place: Place, middle_area: float, height: int) -> Float64 | None:
    """Return the area of each row's pixels at the middle column, in those of the middle."""
    rows = np.linspace(0.5, height - 0.5, min(height, WEIGHT_ROWS))
    at = np.stack([np.full_like(rows, place.size[0] / 2), rows], axis=1)
    areas = np.abs(np.linalg.det(_jacobian(place, at))) / middle_area
    if not np.isfinite(areas).all() or np.abs(areas - 1).max() < SAME_AREA:
        return None
    by_row: Float64 = np.interp(np.arange(height) + 0.5, rows, areas)
    return by_row


def _jacobian(place: Place, at: Float64) -> Float64:
    """Return metres on the ground per column and row at positions (N, 2), as (N, 2, 2).

    The first axis lies along the columns; measured in space, so poles are places like others.
    """
    # A step of one pixel would lose digits: the difference of a wider one is scaled back.
    step = np.clip(place.size / 64, 0.25, 8.0)
    steps = []
    for axis in range(2):
        off = np.zeros(2)
        off[axis] = step[axis] / 2
        ends = [_in_space(*place.degrees(at + sign * off)) for sign in (1, -1)]
        steps.append((ends[0] - ends[1]) / step[axis])
    column, row = steps  # (N, 3)
    width = np.linalg.norm(column, axis=1)
    along = (column * row).sum(axis=1) / width
    across = np.linalg.norm(np.cross(column, row), axis=1) / width
    first, second = np.stack([width, along], axis=1), np.stack([0 * width, across], axis=1)
    return np.stack([first, second], axis=1)


def _in_space(lon_deg: Float64, lat_deg: Float64) -> Float64:
    """Return geocentric positions of points on the ellipsoid, metres, (N, 3)."""
    lon, lat = np.radians(lon_deg), np.radians(lat_deg)
    normal = SEMI_MAJOR_M / np.sqrt(1 - ECCENTRICITY_2 * np.sin(lat) ** 2)
    x, y = normal * np.cos(lat) * np.cos(lon), normal * np.cos(lat) * np.sin(lon)
    return np.stack([x, y, normal * (1 - ECCENTRICITY_2) * np.sin(lat)], axis=1)
