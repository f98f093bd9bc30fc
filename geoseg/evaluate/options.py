"""Options of the evaluation of a raster."""

from dataclasses import dataclass, field
from pathlib import Path

from geoseg.config import PredictOptions
from geoseg.evaluate.labels import LabelOptions
from geoseg.evaluate.points import PointOptions


@dataclass(frozen=True)
class EvaluateOptions:
    """How a raster is predicted and scored.

    Attributes:
        predict: of the map; its outputs besides the class map are not written.
        labels: what the labels mean; ``ignore_index`` is the model's.
        points: probability sample from which areas are estimated; None: areas are descriptive.
        cell_m: side of the cells of ``cells.gpkg``; None: about 25 along the longer side.
        boundary_m: width of the bands of the boundary IoU; None: 2 % of a tile's diagonal.
        store_temperature: model file to write, with the fitted temperature in its record.
        overwrite: replace the outputs of an earlier evaluation.
    """

    predict: PredictOptions = field(default_factory=PredictOptions)
    labels: LabelOptions = field(default_factory=LabelOptions)
    points: PointOptions | None = None
    cell_m: float | None = None
    boundary_m: float | None = None
    store_temperature: Path | None = None
    overwrite: bool = False
