"""What an evaluation of a raster decides before the first tile: grid, labels, cells, points."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.config import PredictOptions
from geoseg.data.patch_reader import grid_of
from geoseg.data.patches import PatchGrid
from geoseg.data.sample import IGNORE
from geoseg.errors import InputError, UsageError
from geoseg.evaluate.boundary import default_distance_px
from geoseg.evaluate.cells import CellGrid, choose_cell_m, place_cells
from geoseg.evaluate.ground import metres_in_pixels
from geoseg.evaluate.labels import MapLabels, open_labels
from geoseg.evaluate.options import EvaluateOptions
from geoseg.evaluate.points import SamplePoints, load_points
from geoseg.evaluate.scene import ClassMap
from geoseg.listener import Listener
from geoseg.predict.area import load_area
from geoseg.predict.place import check_georeference, choose_crop
from geoseg.raster.georef import local_gsd
from geoseg.raster.info import inspect_raster
from geoseg.raster.reader import check_input, open_raster
from geoseg.spec import ModelSpec
from geoseg.types import BandIndexes, Window

# Tags of the map that say how it was made, and their names in the record.
TAGS = {
    "GEOSEG_MODEL_SHA256": "model_sha256",
    "GEOSEG_BANDS": "bands",
    "GEOSEG_GSD_M": "resampled_to_m",
    "GEOSEG_TILE_SIZE_PX": "tile_size_px",
    "GEOSEG_OVERLAP_PX": "overlap_px",
    "GEOSEG_BATCH_SIZE": "batch_size",
    "GEOSEG_TTA": "tta",
    "GEOSEG_DEVICE": "device",
    "GEOSEG_PRECISION": "precision",
    "GEOSEG_KERNELS": "kernels",
}


@dataclass(frozen=True)
class Setting:
    """How a raster is evaluated.

    Attributes:
        predict: options of the prediction.
        inputs: files that are read.
        bands: of the raster, in the model's order.
        crop: the map's window in the raster.
        labels: on the map's grid.
        points: probability sample, or None.
        cells: empty; None: the raster has no place.
        cell_m: side of a cell in metres.
        distance_px: of the boundary IoU, along rows' and columns' numbers.
        notes: what to know when reading the figures.
    """

    predict: PredictOptions
    inputs: tuple[Path, ...]
    bands: BandIndexes
    crop: Window
    labels: MapLabels
    points: SamplePoints | None
    cells: CellGrid | None
    cell_m: float
    distance_px: tuple[int, int]
    notes: tuple[str, ...]

    def record(self, class_map: ClassMap) -> dict[str, Any]:
        """Return the settings for the record: those of the labels, and the map's own tags."""
        with open_raster(str(class_map.path)) as dataset:
            tags = dataset.tags()
        made = {name: tags[tag] for tag, name in TAGS.items() if tag in tags}
        grid = class_map.grid
        gsd_m = None
        if class_map.has_place:
            both = local_gsd(class_map.info.georef, grid.height / 2, grid.width / 2)
            gsd_m = [float(f"{length:.6g}") for length in both]
        return {
            "labels": self.inputs[1].name,
            "gsd_m": gsd_m,
            "boundary_distance_px": list(self.distance_px),
            "cell_m": self.cell_m if self.cells is not None else None,
            **{name: int(text) if text.isdigit() else text for name, text in made.items()},
        }


def plan_evaluation(
    spec: ModelSpec,
    raster: str,
    labels: Path,
    options: EvaluateOptions,
    *,
    listener: Listener | None = None,
) -> Setting:
    """Check raster, labels and points against a model; of the raster only its header is read.

    Raises:
        InputError: they do not fit each other.
        UsageError: options that do not fit them.
    """
    if spec.num_classes >= IGNORE:
        raise InputError(
            f"expected a model of at most {IGNORE - 1} classes; {spec.name!r} has "
            f"{spec.num_classes}."
        )
    predict = options.predict
    with open_raster(raster) as dataset:
        info = inspect_raster(dataset, raster)
    bands = check_input(info, spec, predict.bands).bands
    check_georeference(info, predict)
    area = load_area(Path(predict.aoi), info.georef, raster) if predict.aoi else None
    crop = choose_crop(info, predict, area)
    grid = grid_of(info).part(crop)
    rule = dataclasses.replace(options.labels, ignore_index=spec.ignore_index)
    on_map = open_labels(labels, grid, spec.classes, rule, listener=listener)
    points = load_points(options.points, grid.crs, spec.classes) if options.points else None
    cell_m = choose_cell_m(grid, options.cell_m) if grid.crs else float("nan")
    notes = [on_map.note] if on_map.note else []
    if not grid.crs:
        notes.append("no CRS: neither areas nor errors by place")
    if info.georef.is_by_points:
        notes.append(
            "placed by control points or RPCs only: no polygons of the errors. Warp raster and "
            "labels first (gdalwarp) to have them"
        )
    read = [Path(raster), labels, *([options.points.path] if options.points else [])]
    return Setting(
        predict=dataclasses.replace(
            predict,
            confidence=None,
            probabilities=None,
            quicklook=None,
            shard=None,
            overwrite=options.overwrite,
        ),
        inputs=tuple(read),
        bands=bands,
        crop=crop,
        labels=on_map,
        points=points,
        cells=place_cells(grid, cell_m, spec.num_classes) if grid.crs else None,
        cell_m=cell_m,
        distance_px=_distance_px(grid, spec, options),
        notes=tuple(notes),
    )


def _distance_px(grid: PatchGrid, spec: ModelSpec, options: EvaluateOptions) -> tuple[int, int]:
    """Return the width of the bands of the boundary IoU.

    The paper's 2 % are of photographs; for a scene of any size, they are taken of a tile.
    """
    if options.boundary_m is None:
        tile_px = options.predict.tile_size_px or spec.tile.size_px
        return (default_distance_px(tile_px, tile_px),) * 2
    if not grid.crs:
        raise UsageError("--boundary-width is in metres; the raster has no CRS. Leave it away.")
    if not 0 < options.boundary_m < float("inf"):
        raise UsageError(
            f"--boundary-width: expected a length in metres; got {options.boundary_m:g}."
        )
    return metres_in_pixels(grid, options.boundary_m)
