"""Polygons in another CRS than their map's, with borders that stay shared.

A straight edge of pixels is a curve in another CRS. It is cut into pieces that keep within a
hundredth of a pixel of the curve; the two polygons on its sides get the same points, because the
edge is cut the same way in both directions.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import GeoreferenceError, UsageError
from geoseg.vector.geometry import Geometries, cut_edges

Float64 = NDArray[np.float64]

SAG_PX = 0.01
LONGEST_PIECE_PX = 1024
SAMPLES = 5
# Coordinates of GeoJSON are rounded to this part of a pixel.
ROUND_PX = 1e-3
LEAST_DIGITS, MOST_DIGITS = 7, 15
LONGITUDE_LATITUDE = "EPSG:4326"
# Relative change of an area by mending a geometry that is more than mending.
MENDED_AREA = 1e-6


class Reprojection:
    """Takes geometries in pixels to another CRS.

    Args:
        transform: pixel to the map's CRS.
        size: width and height of the map, px.
        source: WKT of the map's CRS.
        target: any CRS that PROJ knows.
        rounded: whether coordinates are rounded to a thousandth of a pixel, for text formats.

    Raises:
        UsageError: PROJ does not know the target.
        GeoreferenceError: the map has no place in it.
    """

    def __init__(
        self, transform: Affine, size: tuple[int, int], source: str, target: str, *, rounded: bool
    ) -> None:
        from pyproj import CRS, Transformer
        from pyproj.exceptions import CRSError, ProjError

        try:
            self.crs = CRS.from_user_input(target)
            self._transformer = Transformer.from_crs(source, self.crs, always_xy=True)
        except (CRSError, ProjError) as error:
            raise UsageError(
                f"--dst-crs: expected a CRS such as EPSG:4326; got {target!r} ({error})."
            ) from error
        if not (self.crs.is_geographic or self.crs.is_projected):
            raise UsageError(
                f"--dst-crs: expected a projected CRS or one of longitude and latitude; {target} "
                f"is neither ({self.crs.type_name}). Give another."
            )
        self.transform = transform
        self.target = target
        self.repaired = 0
        self._is_geographic = self.crs.is_geographic
        self.digits: int | None = None
        pixel, self.piece_px = self._plan_pieces(size)
        if rounded:
            wanted = math.ceil(-math.log10(pixel * ROUND_PX))
            self.digits = min(max(wanted, LEAST_DIGITS), MOST_DIGITS)

    @property
    def wkt(self) -> str:
        """The target as WKT."""
        return str(self.crs.to_wkt())

    def apply(self, geometries: Geometries) -> Geometries:
        """Return geometries in the target CRS; none is invalid.

        Raises:
            GeoreferenceError: a vertex has no place there, or a polygon crosses the antimeridian.
        """
        cut = cut_edges(geometries, self.piece_px)
        if self.transform.determinant > 0:
            cut = cut.turned()
        placed = replace(cut, xy=self._positions(cut.xy))
        self._check(placed)
        return self._mended(placed)

    def _positions(self, xy: Float64) -> Float64:
        a, b, c, d, e, f = list(self.transform)[:6]
        x, y = xy[:, 0], xy[:, 1]
        placed = self._transformer.transform(a * x + b * y + c, d * x + e * y + f)
        result = np.stack(placed, axis=1)
        return result if self.digits is None else np.round(result, self.digits)

    def _plan_pieces(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the target's units per pixel, and the longest edge that may stay straight, px."""
        width, height = size
        cols, rows = np.meshgrid(np.linspace(0, width, SAMPLES), np.linspace(0, height, SAMPLES))
        at = np.stack([cols.ravel(), rows.ravel()], axis=1)  # (N, 2)
        towards = np.where(at > np.array([width, height]) / 2, -1.0, 1.0)
        pixel = math.inf
        piece = float(LONGEST_PIECE_PX)
        for axis in range(2):
            step = np.zeros_like(at)
            step[:, axis] = towards[:, axis]
            first = self._positions(at)
            with np.errstate(invalid="ignore"):
                per_px = np.linalg.norm(self._positions(at + step) - first, axis=1)
            if not np.isfinite(per_px).any():
                raise GeoreferenceError(
                    f"the map has no place in {self.target}. Give another --dst-crs."
                )
            pixel = min(pixel, float(np.nanmedian(np.where(np.isfinite(per_px), per_px, np.nan))))
            while piece > 1 and self._sag(at, step, piece, per_px) > SAG_PX:
                piece /= 2
        return pixel, piece

    def _sag(self, at: Float64, step: Float64, piece: float, per_px: Float64) -> float:
        """Return how far a straight piece lies off the curve, in pixels."""
        ends = [self._positions(at + step * part * piece) for part in (0.0, 0.5, 1.0)]
        with np.errstate(invalid="ignore", divide="ignore"):
            off = np.linalg.norm((ends[0] + ends[2]) / 2 - ends[1], axis=1) / per_px
        finite = off[np.isfinite(off)]
        return float(finite.max()) if len(finite) else 0.0

    def _check(self, placed: Geometries) -> None:
        if not np.isfinite(placed.xy).all():
            raise GeoreferenceError(
                f"a part of the map has no place in {self.target}. Give another --dst-crs, or crop "
                "the map."
            )
        if not self._is_geographic:
            return
        jumps = np.abs(np.diff(placed.xy[:, 0])) > 180
        jumps[placed.ring_offsets[1:-1] - 1] = False
        if jumps.any():
            raise GeoreferenceError(
                f"the map crosses the antimeridian, where longitudes jump: its polygons cannot be "
                f"written in {self.target}. Write .gpkg in the map's CRS, or give a --dst-crs that "
                "is not cut there."
            )

    def _mended(self, placed: Geometries) -> Geometries:
        """Return geometries with those mended that the change made invalid.

        Raises:
            GeoreferenceError: one cannot be mended without a change of its area.
        """
        import shapely

        offsets = placed.ring_offsets, placed.polygon_offsets, placed.feature_offsets
        kind = shapely.GeometryType.MULTIPOLYGON
        polygons: Any = shapely.from_ragged_array(kind, placed.xy, offsets)
        wrong = np.flatnonzero(~shapely.is_valid(polygons))
        if not len(wrong):
            return placed
        mended = shapely.make_valid(polygons[wrong], method="structure", keep_collapsed=False)
        before, after = shapely.area(polygons[wrong]), shapely.area(mended)
        if (np.abs(after - before) > MENDED_AREA * before).any():
            raise GeoreferenceError(
                f"a polygon folds over itself in {self.target}. Give another --dst-crs."
            )
        polygons[wrong] = [_as_multi(shape, shapely) for shape in mended]
        self.repaired += len(wrong)
        _, xy, found = shapely.to_ragged_array(shapely.orient_polygons(polygons))
        rings, parts, features = (np.asarray(o, np.int64) for o in found)
        return Geometries(xy, rings, parts, features)


def is_longitude_latitude(crs: str) -> bool:
    """Return whether a CRS is that of GeoJSON: WGS 84 longitude and latitude."""
    from pyproj import CRS

    found = CRS.from_user_input(crs)
    return any(
        found.equals(CRS.from_user_input(name), ignore_axis_order=True)
        for name in (LONGITUDE_LATITUDE, "OGC:CRS84")
    )


def _as_multi(shape: Any, shapely: Any) -> Any:
    parts = [part for part in shapely.get_parts(shape) if part.geom_type.endswith("Polygon")]
    return shapely.multipolygons(shapely.get_parts(parts))
