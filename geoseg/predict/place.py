"""Where a run looks and at which resolution: georeference, crop and ground sample distance."""

import math

from geoseg.config import PredictOptions
from geoseg.errors import GeoreferenceError, UsageError
from geoseg.predict.area import Area
from geoseg.raster.georef import box_of_bounds, choose_gsd, local_gsd
from geoseg.raster.info import RasterInfo
from geoseg.spec import ModelSpec
from geoseg.types import BBox, Window


def check_georeference(info: RasterInfo, options: PredictOptions) -> None:
    """Raise a GeoreferenceError where a raster has no place and nobody said that it needs none."""
    georef = info.georef
    if georef.is_complete and not (georef.gcps and not georef.has_transform):
        return
    if options.gsd == "native" and (options.aoi is None and options.bounds is None):
        return
    lacking = "CRS" if georef.crs is None else "transform"
    if options.gsd == "native" and options.aoi is None and georef.has_transform:
        return
    if options.gsd == "native":
        given = "--bounds" if options.aoi is None else "--aoi"
        raise GeoreferenceError(
            f"expected a raster with CRS and transform, which {given} needs; {info.name!r} has no "
            f"{lacking}. Assign it (gdal_edit.py, or gdalwarp for control points), or leave "
            f"{given} away."
        )
    if georef.gcps or georef.rpcs is not None:
        kind = "ground control points" if georef.gcps else "RPC coefficients"
        raise GeoreferenceError(
            f"expected a raster with CRS and transform; {info.name!r} is placed by {kind} only. "
            "Warp it first (gdalwarp), or give --gsd native to predict it in image geometry."
        )
    raise GeoreferenceError(
        f"expected a georeferenced raster; {info.name!r} has no {lacking}. Assign it (for example "
        "gdal_translate -a_srs EPSG:CODE), or give --gsd native to predict it without."
    )


def choose_crop(info: RasterInfo, options: PredictOptions, area: Area | None) -> Window:
    """Return the pixels to predict: all, or the box of the bounds and the area."""
    crop = Window(0, 0, info.height, info.width)
    boxes = [BBox(*options.bounds)] if options.bounds is not None else []
    boxes += [area.bounds] if area is not None else []
    for box in boxes:
        part = box_of_bounds(box, info.georef, info.height, info.width)
        row, col = max(crop.row, part.row), max(crop.col, part.col)
        row_end, col_end = min(crop.row_end, part.row_end), min(crop.col_end, part.col_end)
        if row >= row_end or col >= col_end:
            raise UsageError("expected --bounds and --aoi to overlap; they do not.")
        crop = Window(row, col, row_end - row, col_end - col)
    return crop


def native_gsd(
    info: RasterInfo, crop: Window, options: PredictOptions
) -> tuple[tuple[float, float] | None, list[str]]:
    """Return the GSD at the centre of the crop, or None with a note where it cannot be known."""
    if not info.georef.is_complete:
        return None, ["no CRS: predicted in the raster's own pixels, the map has no CRS either"]
    middle = crop.row + crop.height / 2, crop.col + crop.width / 2
    try:
        return local_gsd(info.georef, *middle), []
    except GeoreferenceError as error:
        if options.gsd == "native":
            return None, [str(error)]
        raise


def target_gsd(
    gsd_m: tuple[float, float] | None, spec: ModelSpec, options: PredictOptions
) -> float | None:
    """Return the GSD in metres to resample the image to, or None to take it as it is."""
    if options.gsd == "native" or gsd_m is None:
        return None
    if options.gsd == "auto":
        return choose_gsd(gsd_m, spec.gsd_m)
    if not options.gsd > 0:
        raise UsageError(f"expected --gsd auto, native or a length in metres; got {options.gsd}.")
    return float(options.gsd)


def gsd_notes(
    gsd_m: tuple[float, float] | None, target: float | None, spec: ModelSpec
) -> list[str]:
    """Return what the log says about the resolution."""
    if gsd_m is None:
        return []
    native = math.sqrt(gsd_m[0] * gsd_m[1])
    if target is not None:
        return [f"resampled from {native:.3g} to {target:.3g} m per pixel, and the map back"]
    if spec.gsd_m is None:
        return [
            f"the model's ground sample distance is unknown: run at the raster's {native:.3g} m "
            "per pixel, never resampled"
        ]
    return [f"run at the raster's own {native:.3g} m per pixel"]


def gsd_warnings(
    gsd_m: tuple[float, float] | None, target: float | None, spec: ModelSpec
) -> list[str]:
    """Return a warning where the model runs at a resolution that it does not know."""
    if spec.gsd_m is None or gsd_m is None:
        return []
    run_m = target or math.sqrt(gsd_m[0] * gsd_m[1])
    finest, coarsest = spec.gsd_m
    if finest <= run_m <= coarsest:
        return []
    return [
        f"the model knows {finest:g} to {coarsest:g} m per pixel and runs at {run_m:.3g} m: the "
        "map may be wrong"
    ]
