"""What a run will do, from the map and the options: metres become pixels here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError, OutOfMemoryError, UsageError
from geoseg.vector.ground import Ground, build_ground
from geoseg.vector.options import VectorOptions
from geoseg.vector.reproject import LONGITUDE_LATITUDE, Reprojection, is_longitude_latitude
from geoseg.vector.rows import ShapeOptions, SquareRing, strip_rows
from geoseg.vector.source import ClassMap
from geoseg.vector.write import LayerPlan

# A wall may move by this much when corners are made square: what a stair-step and the jitter of a
# map at a wall are off.
SQUARE_SHIFT_PX, SQUARE_SHIFT_M = 4.0, 1.5
# Of the process before it reads, and of each pixel of a strip: its ids, its labels, its borders.
START_BYTES, PIXEL_BYTES = 250 * 10**6, 64


@dataclass(frozen=True)
class VectorPlan:
    """What a run will do.

    Attributes:
        layer: what is written.
        shape: what becomes of outlines, in pixels.
        ground: sizes of pixels.
        min_area_px, fill_holes_px: in pixels of the map's middle.
        reprojection: None where the layer has the map's CRS.
        notes: what the run says about it.
    """

    layer: LayerPlan
    shape: ShapeOptions
    ground: Ground
    min_area_px: float
    fill_holes_px: float
    reprojection: Reprojection | None
    notes: tuple[str, ...] = field(default=())

    @property
    def cleans(self) -> bool:
        """Whether specks or holes are taken out."""
        return self.min_area_px > 0 or self.fill_holes_px > 0

    @property
    def changes(self) -> bool:
        """Whether pixels may change their class."""
        return self.cleans or bool(self.shape.square_classes)


def plan_vectorize(source: ClassMap, out: Path, options: VectorOptions) -> VectorPlan:
    """Return what a run will do.

    Raises:
        UsageError: options contradict each other, or name a class that the map does not have.
        InputError: the map cannot be related to the ground, or not be written in that format.
        OutOfMemoryError: a few rows need more than the memory budget.
    """
    _check(options)
    notes: list[str] = []
    ground = build_ground(source.crs, source.transform, source.height, source.width)
    if source.crs is None:
        notes.append(
            "the map has no CRS: lengths are pixels, polygons have no area in square metres, and "
            "their y runs downwards, where QGIS draws such a raster below zero"
        )
    reprojection = _reprojection(source, out, options, notes)
    multi = options.connectivity == 8 or reprojection is not None
    crs = source.crs.to_wkt() if source.crs is not None else None
    layer = LayerPlan(
        name=options.layer_name or out.stem,
        crs=crs if reprojection is None else reprojection.wkt,
        multi=multi,
        classes=source.classes,
        digits=None if reprojection is None else reprojection.digits,
    )
    return VectorPlan(
        layer=layer,
        shape=_shape(source, ground, options),
        ground=ground,
        min_area_px=options.min_area_m2 / ground.middle_area,
        fill_holes_px=options.fill_holes_m2 / ground.middle_area,
        reprojection=reprojection,
        notes=tuple(notes),
    )


def _check(options: VectorOptions) -> None:
    for name in ("min_area_m2", "fill_holes_m2", "simplify_m", "smooth_m"):
        value = getattr(options, name)
        if value != "auto" and not 0 <= value < float("inf"):
            raise UsageError(f"expected {name} from 0 on; got {value!r}.")
    if options.connectivity not in {4, 8}:
        raise UsageError(f"expected a connectivity of 4 or 8; got {options.connectivity!r}.")
    if options.block_px is not None and options.block_px < 1:
        raise UsageError(f"expected at least one row at once; got {options.block_px}.")


def _reprojection(
    source: ClassMap, out: Path, options: VectorOptions, notes: list[str]
) -> Reprojection | None:
    is_geojson = out.suffix.lower() == ".geojson"
    target = options.dst_crs
    if source.crs is None and (target is not None or is_geojson):
        what = "--dst-crs" if target is not None else "GeoJSON, which holds longitude and latitude,"
        raise InputError(
            f"{what} needs a map with a CRS; {source.name!r} has none. Give it one "
            "(gdal_edit.py -a_srs CRS FILE), or write .gpkg."
        )
    if source.crs is None:
        return None
    if is_geojson and target is None:
        target = LONGITUDE_LATITUDE
        if source.crs.to_epsg() != 4326:
            notes.append("GeoJSON holds longitude and latitude: the polygons are reprojected")
    if target is None:
        return None
    if is_geojson and not is_longitude_latitude(target):
        raise UsageError(
            f"GeoJSON holds longitude and latitude (RFC 7946); got --dst-crs {target}. Leave it "
            "away, or write .gpkg."
        )
    size = source.width, source.height
    return Reprojection(source.transform, size, source.crs.to_wkt(), target, rounded=is_geojson)


def _shape(source: ClassMap, ground: Ground, options: VectorOptions) -> ShapeOptions:
    width, height = ground.largest
    wanted = options.classes
    square = source.classes.ids(options.square_corners, "--square-corners")
    smooth_px = 1.0 if options.smooth_m == "auto" else options.smooth_m / width
    return ShapeOptions(
        connectivity=options.connectivity,
        simplify_px=options.simplify_m / width,
        smooth_px=smooth_px,
        classes=None if wanted is None else source.classes.ids(wanted, "--classes"),
        square_classes=square,
        square=squaring(ground) if square else None,
        square_shift_px=_square_shift_m(ground) / width if square else 0.0,
        aspect=height / width,
        strip_rows=options.block_px or _rows_at_once(source, options.max_memory_bytes),
        max_bytes=max(0, options.max_memory_bytes - START_BYTES) // 2,
    )


def squaring(ground: Ground) -> SquareRing:
    """Return what gives a ring in pixels square corners on the ground."""
    from geoseg.vector.regularize import square_ring

    to_ground, back = ground.jacobian, np.linalg.inv(ground.jacobian)
    pixel_m, shift_m = ground.pixel_width, _square_shift_m(ground)

    def square(ring: NDArray[np.float64]) -> NDArray[np.float64] | None:
        origin = ring[0]
        squared = square_ring(
            (ring - origin) @ to_ground.T,
            pixel_m=pixel_m,
            max_shift_m=shift_m,
        )
        return None if squared is None else squared @ back.T + origin

    return square


def _square_shift_m(ground: Ground) -> float:
    """Return how far squaring may move a wall."""
    return max(SQUARE_SHIFT_PX * ground.pixel_width, SQUARE_SHIFT_M)


def _rows_at_once(source: ClassMap, max_memory_bytes: int) -> int:
    """Return how many rows are read at once within a memory budget."""
    row_bytes = source.width * PIXEL_BYTES
    # The other half is for what is open.
    room = (max_memory_bytes - START_BYTES) // 2 // row_bytes
    if room < 1:
        raise OutOfMemoryError(
            f"expected at least {(START_BYTES + 2 * row_bytes) / 1e6:.0f} MB for rows of "
            f"{source.width} px; --max-memory is {max_memory_bytes / 1e6:.0f} MB. Raise it."
        )
    return int(min(strip_rows(source.width), room))


def sentence(source: ClassMap, plan: VectorPlan, out: Path) -> str:
    """Return a plan in one line."""
    steps: Sequence[tuple[bool, str]] = (
        (plan.min_area_px > 0, f"specks below {plan.min_area_px:.3g} px"),
        (plan.fill_holes_px > 0, f"holes below {plan.fill_holes_px:.3g} px"),
        (plan.shape.simplify_px > 0, f"simplified by at most {plan.shape.simplify_px:.3g} px"),
        (plan.shape.smooth_px > 0, f"rounded by at most {plan.shape.smooth_px:.3g} px"),
        (bool(plan.shape.square_classes), "square corners"),
        (plan.reprojection is not None, f"to {getattr(plan.reprojection, 'target', '')}"),
    )
    done = "".join(f", {text}" for applies, text in steps if applies)
    return f"{out.name}: polygons of {source.width} x {source.height} px{done}"
