"""EvaluationRecord: all that an evaluation found, for the JSON file and the report.

In the JSON file the keys are the names of the attributes below; NaN is null, and pictures are left
away. Keys are added in later versions, never renamed.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import MachineError

RECORD_VERSION = 1

EvaluationKind = Literal["dataset", "raster"]
ImageArray = NDArray[np.uint8]  # (H, W, 3)
ChannelArray = NDArray[np.uint8]  # (H, W), channel index; 255: ignored or without an answer


@dataclass(frozen=True)
class ClassRow:
    """One class: its scores and how much there is of it.

    Attributes:
        id: in label files and class maps.
        name: of the class.
        color: #RRGGBB.
        iou: intersection over union; NaN where the class is neither labelled nor predicted.
        accuracy: share of the labelled pixels that are found (recall); NaN: none are labelled.
        precision: share of the predicted pixels that are right; NaN: none are predicted.
        dice: F-score with beta 1.
        boundary_iou: IoU of the bands along the borders; NaN: not measured or no border.
        pixels: labelled ones that were scored.
        predicted_pixels: those among the scored ones that were given to this class.
        area_m2: of this class in the whole map; None where the ground size is unknown.
    """

    id: int
    name: str
    color: str
    iou: float
    accuracy: float
    precision: float
    dice: float
    boundary_iou: float
    pixels: int
    predicted_pixels: int
    area_m2: float | None = None


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels with a confidence in (lower, upper]: how sure the model was, how often it was right.

    ``confidence`` and ``accuracy`` are NaN where there are no pixels.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Whether confidences can be taken as probabilities.

    Attributes:
        ece: expected calibration error: the mean gap of the bins, weighted by their pixels.
        bins: reliability table as predicted.
        nll: negative log likelihood per pixel, as predicted.
        temperature: that the model was run with.
        best_temperature: that makes the likelihood greatest, fitted on the blended output.
        ece_after: with that temperature.
        nll_after: with that temperature.
        bins_after: with that temperature.
        pixels: that the figures rest on.
        stored_in: model file that the temperature was written into.
        note: what to know about the fit.
    """

    ece: float
    bins: tuple[ReliabilityBin, ...]
    nll: float
    temperature: float
    best_temperature: float
    ece_after: float
    nll_after: float
    bins_after: tuple[ReliabilityBin, ...]
    pixels: int
    stored_in: str | None = None
    note: str = ""


@dataclass(frozen=True)
class CellSummary:
    """Errors over the cells of a grid on the ground.

    Attributes:
        cell_m: side of a cell in metres.
        rows: of the grid.
        cols: of the grid.
        cells: those with labelled pixels.
        accuracy_mean: over cells, each counting the same.
        accuracy_least: of the worst cell.
        accuracy_quartiles: lower quartile, median and upper quartile.
        miou_mean: over cells, each counting the same.
        accuracy: (rows, cols), NaN where nothing is labelled; a map for the report.
    """

    cell_m: float
    rows: int
    cols: int
    cells: int
    accuracy_mean: float
    accuracy_least: float
    accuracy_quartiles: tuple[float, float, float]
    miou_mean: float
    accuracy: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class AreaRow:
    """Area of one class in square metres; user's accuracy is precision, producer's is recall.

    What is None was not estimated: areas without a probability sample are descriptive.
    """

    id: int
    name: str
    mapped_m2: float
    sample_points: int | None = None
    area_m2: float | None = None
    area_se_m2: float | None = None
    area_low_m2: float | None = None
    area_high_m2: float | None = None
    users_accuracy: float | None = None
    users_accuracy_se: float | None = None
    producers_accuracy: float | None = None
    producers_accuracy_se: float | None = None


@dataclass(frozen=True)
class AreaTable:
    """Area per class.

    Attributes:
        kind: ``descriptive``: pixels counted in the map, with no claim about the ground;
            ``estimated``: from a probability sample, with 95 % confidence intervals.
        note: what the figures are, in a sentence.
        rows: one per class.
        design: of the sample.
        sample_points: number of them that were used.
        overall_accuracy: estimated share of the mapped area that is right.
        overall_accuracy_se: its standard error.
    """

    kind: Literal["descriptive", "estimated"]
    note: str
    rows: tuple[AreaRow, ...]
    design: Literal["stratified", "simple"] | None = None
    sample_points: int | None = None
    overall_accuracy: float | None = None
    overall_accuracy_se: float | None = None


@dataclass(frozen=True)
class Picture:
    """A place to look at: image, labels and prediction, small enough for a report.

    Attributes:
        name: of the sample or place.
        kind: what it is shown for.
        score: mIoU of the place (of ``overview`` pictures: of the whole).
        image: (H, W, 3) uint8.
        target: (H, W) uint8, channel index, 255: not labelled.
        predicted: (H, W) uint8, channel index, 255: no answer.
    """

    name: str
    kind: Literal["best", "worst", "overview"]
    score: float
    image: ImageArray = field(repr=False, compare=False)
    target: ChannelArray = field(repr=False, compare=False)
    predicted: ChannelArray = field(repr=False, compare=False)


@dataclass(frozen=True)
class EvaluationRecord:
    """All that an evaluation found.

    Attributes:
        kind: a ``dataset`` of images, or one ``raster``.
        model: name in the model's record.
        data: what it was evaluated on.
        scores: by name, see `geoseg.evaluate.metrics.scores`; also ``mean_boundary_iou``.
        classes: channel k is ``classes[k]``.
        confusion: (K, K) pixels, rows are labels.
        samples: images, or 1.
        pixels: that were scored.
        ignored_pixels: without a label or without an answer.
        calibration: None where it was not measured.
        cells: None for data without a place.
        area: None for data without a place.
        pictures: best, worst, and an overview.
        curves: of the training run: name to (step, value), where the run's folder is known.
        settings: what the figures depend on.
        files: made beside the record, by kind.
        notes: what to know when reading the figures.
        versions: of geoseg, torch and so on.
        seconds: wall time.
        record_version: of this layout.
    """

    kind: EvaluationKind
    model: str
    data: str
    scores: dict[str, float]
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    samples: int
    pixels: int
    ignored_pixels: int
    calibration: Calibration | None = None
    cells: CellSummary | None = None
    area: AreaTable | None = None
    pictures: tuple[Picture, ...] = ()
    curves: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    record_version: int = RECORD_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values: no NaN, no pictures' pixels, lists for tuples."""
        plain: dict[str, Any] = _plain(self)
        return plain

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)

    def write_json(self, path: Path) -> Path:
        """Write the record as a JSON file; an existing one is replaced in one step."""
        temporary = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise MachineError(f"{str(path)!r} cannot be written: {error.strerror}.") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return path


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _plain(v) for name, v in pairs if not isinstance(v, np.ndarray)}
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
