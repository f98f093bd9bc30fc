"""Evaluate a model: on a raster with labels, or on a split of a data set, step by step."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from geoseg.config.run import RunConfig
from geoseg.data.build import build_split
from geoseg.data.sample import IGNORE
from geoseg.errors import DtypeMismatchError, InputError, InterruptedRunError
from geoseg.evaluate.area import describe_area, estimate_area
from geoseg.evaluate.calibration import (
    PixelSample,
    calibrate,
    check_storable,
    store_temperature,
)
from geoseg.evaluate.cells import summarise_cells, write_cells
from geoseg.evaluate.curves import read_curves
from geoseg.evaluate.dataset import evaluate_dataset
from geoseg.evaluate.error_map import ErrorCodes, open_error_map, publish_error_map
from geoseg.evaluate.error_polygons import write_error_polygons
from geoseg.evaluate.examples import PICTURE_PX, draw_scene
from geoseg.evaluate.labels import MapLabels
from geoseg.evaluate.options import EvaluateOptions
from geoseg.evaluate.outputs import Outputs, prepare, publish
from geoseg.evaluate.points import SamplePoints
from geoseg.evaluate.record import AreaTable, Calibration, EvaluationRecord
from geoseg.evaluate.report import METRICS_NAME
from geoseg.evaluate.scene import ClassMap, SceneCounts, empty_counts, score_scene
from geoseg.evaluate.setting import Setting, plan_evaluation
from geoseg.evaluate.summary import all_scores, class_rows, matrix_rows, versions
from geoseg.listener import Listener
from geoseg.predict import predict_raster
from geoseg.predict.collect import LogitsTap
from geoseg.predict.model import as_segmenter, choose_device
from geoseg.predict.plan import plan_prediction
from geoseg.predict.tiles import VIEWS
from geoseg.raster.gdal import quiet_georeference
from geoseg.raster.reader import ANY_DTYPE, READ_AS
from geoseg.spec import ModelSpec
from geoseg.types import ValidMask, Window

Model = str | Path | nn.Module


def evaluate_raster(
    model: Model,
    raster: str | Path,
    labels: str | Path,
    out_dir: str | Path,
    *,
    options: EvaluateOptions | None = None,
    listener: Listener | None = None,
) -> EvaluationRecord:
    """Predict a raster as `predict_raster` does, and score the map against labels.

    Args:
        model: as for `predict_raster`.
        raster: anything that rasterio opens.
        labels: raster of class ids or of the classes' colours, or polygons.
        out_dir: folder for ``class_map.tif``, ``error_map.tif``, ``errors.gpkg``, ``cells.gpkg``,
            ``metrics.json`` and ``report.html``.
        options: how; None: as the model advises.
        listener: hears of progress and may stop the run.

    Returns:
        What was found; the same as in ``metrics.json``, and the pictures.

    Raises:
        InputError: raster, model and labels do not fit each other, or a file is damaged.
        UsageError: outputs exist, or options contradict each other.
        MachineError: disk, memory or device.
    """
    began = time.perf_counter()
    options, listener = options or EvaluateOptions(), listener or Listener()
    outputs = Outputs(Path(out_dir))
    if options.store_temperature is not None:
        check_storable(model, options.store_temperature)
    device = choose_device(options.predict.device)
    segmenter = as_segmenter(model, device, options.predict.precision)
    spec = segmenter.spec
    with quiet_georeference():
        setting = plan_evaluation(spec, str(raster), Path(labels), options, listener=listener)
        # Once more when it is predicted: here, so that a fault leaves no folder behind.
        plan_prediction(segmenter, str(raster), setting.predict, device)
        if setting.labels.note:
            listener.log("info", setting.labels.note)
        prepare(outputs, setting.inputs, options)
        sample = PixelSample(spec.num_classes, views=len(VIEWS[options.predict.tta]))
        predict_raster(
            segmenter,
            raster,
            outputs.class_map,
            options=setting.predict,
            listener=listener,
            tap=_sampler(sample, setting.labels),
        )
        class_map = ClassMap(outputs.class_map, spec.classes)
        with _advice_when_stopped():
            counts = _walk(class_map, setting, outputs, listener)
        area = _area(spec, class_map, counts, setting.points)
        calibration = _calibration(sample, spec, model, options)
        pictures = draw_scene(
            class_map,
            setting.labels,
            counts,
            raster=str(raster),
            bands=setting.bands,
            offset=setting.crop,
        )
    record = EvaluationRecord(
        kind="raster",
        model=spec.name,
        data=Path(raster).name,
        scores=all_scores(counts.confusion, counts.boundary, spec.classes),
        classes=class_rows(counts.confusion, counts.boundary, spec.classes, counts.mapped_m2),
        confusion=matrix_rows(counts.confusion),
        samples=1,
        pixels=int(counts.confusion.counts.sum()),
        ignored_pixels=counts.ignored,
        calibration=calibration,
        cells=summarise_cells(counts.cells, setting.cell_m) if counts.cells else None,
        area=area,
        pictures=pictures,
        settings=setting.record(class_map),
        notes=setting.notes,
        versions=versions(),
        seconds=time.perf_counter() - began,
    )
    return publish(record, outputs)


def evaluate_config(
    model: Model,
    config: RunConfig,
    out_dir: str | Path,
    *,
    split: Literal["train", "val", "test"] = "val",
    options: EvaluateOptions | None = None,
    listener: Listener | None = None,
) -> EvaluationRecord:
    """Score a model on a split of a run file's data, by the run file's protocol.

    Args:
        model: as for `predict_raster`.
        config: ``data`` and ``evaluation`` count.
        out_dir: folder for ``metrics.json`` and ``report.html``.
        split: which one.
        options: device, ``store_temperature`` and ``overwrite`` count.
        listener: hears of each sample and may stop the run.

    Raises:
        InputError: model and data do not fit each other, or files are missing or damaged.
        UsageError: outputs exist.
    """
    options, listener = options or EvaluateOptions(), listener or Listener()
    outputs = Outputs(Path(out_dir), is_raster=False)
    if options.store_temperature is not None:
        check_storable(model, options.store_temperature)
    # Published figures are those of full precision.
    segmenter = as_segmenter(model, choose_device(options.predict.device), "fp32")
    wanted, got = (READ_AS.get(t, t) for t in (segmenter.spec.dtype, config.data.dtype))
    if wanted not in (got, ANY_DTYPE):
        raise DtypeMismatchError(
            f"model {segmenter.spec.name!r} expects {segmenter.spec.dtype} values; the data are "
            f"{config.data.dtype}. Evaluate on data of the type that the model was trained on."
        )
    data = build_split(config.data, split)
    name = config.data.root or (config.data.train.images if config.data.train else "")
    said = f"{split} split of {config.data.kind} data {name}".strip()
    prepare(outputs, [], options)
    record = evaluate_dataset(segmenter, data, config.evaluation, data=said, listener=listener)
    calibration = record.calibration
    if calibration is not None and options.store_temperature is not None:
        calibration = _stored(calibration, model, options.store_temperature)
    curves = Path(config.out) / METRICS_NAME
    is_own = not isinstance(model, nn.Module) and Path(model).resolve().parent == (
        Path(config.out).resolve()
    )
    return publish(
        dataclasses.replace(
            record,
            calibration=calibration,
            curves=read_curves(curves) if is_own and curves.exists() else {},
            settings={**record.settings, **({"in_sample": split == "train"} if is_own else {})},
        ),
        outputs,
    )


def _walk(
    class_map: ClassMap, setting: Setting, outputs: Outputs, listener: Listener
) -> SceneCounts:
    """Return the counts of the whole map; write the errors and the cells on the way."""
    listener.log("info", "scoring the map")
    counts = empty_counts(class_map, setting.cells, PICTURE_PX)
    codes = ErrorCodes(class_map.classes)
    size = class_map.grid.height, class_map.grid.width
    with open_error_map(outputs.error_map, codes, class_map.info.georef, size) as error_map:
        score_scene(
            class_map,
            setting.labels,
            counts,
            distance_px=setting.distance_px,
            error_map=error_map,
            listener=listener,
        )
        confusion = counts.confusion.counts.numpy()
        if not confusion.any():
            raise InputError(
                "expected labels where the map has an answer; no pixel has both. Check that they "
                "cover the imagery and are not all left out."
            )
    publish_error_map(outputs.error_map, codes, confusion)
    if not class_map.info.georef.is_by_points:
        write_error_polygons(
            outputs.error_map,
            outputs.errors,
            codes.legend(confusion),
            max_memory_bytes=setting.predict.max_memory_bytes,
            listener=listener,
        )
    if counts.cells is not None:
        write_cells(counts.cells, class_map.grid, class_map.classes, outputs.cells)
    return counts


@contextlib.contextmanager
def _advice_when_stopped() -> Iterator[None]:
    """Say what to do when a run is stopped between the prediction and the report."""
    try:
        yield
    except InterruptedRunError as error:
        raise InterruptedRunError(
            "stopped. The map is finished, its scores are not: give --overwrite to evaluate again."
        ) from error


def _area(
    spec: ModelSpec, class_map: ClassMap, counts: SceneCounts, points: SamplePoints | None
) -> AreaTable | None:
    if not class_map.has_place:
        return None
    if points is None:
        return describe_area(spec.classes, counts.mapped_m2)
    found = points.count(class_map)
    table = estimate_area(spec.classes, counts.mapped_m2, found, design=points.options.design)
    left_out = len(points.xs) - int(found.sum())
    if left_out:
        note = f"{table.note} {left_out} points off the map or without a class were left out."
        table = dataclasses.replace(table, note=note)
    return table


def _calibration(
    sample: PixelSample, spec: ModelSpec, model: Model, options: EvaluateOptions
) -> Calibration | None:
    found = calibrate(*sample.result(), spec.temperature)
    if found is None:
        return None
    if options.predict.resume:
        note = "measured on the part of the map that this call predicted"
        found = dataclasses.replace(found, note="; ".join(filter(None, (found.note, note))))
    if options.store_temperature is None:
        return found
    return _stored(found, model, options.store_temperature)


def _stored(calibration: Calibration, model: Model, out: Path) -> Calibration:
    path = store_temperature(model, calibration.best_temperature, out)
    return dataclasses.replace(calibration, stored_in=str(path))


def _sampler(sample: PixelSample, labels: MapLabels) -> LogitsTap:
    """Return what draws labelled pixels from the blended logits of a prediction."""

    def draw(window: Window, logits: Tensor, valid: ValidMask | None) -> None:
        target = labels.read(window)
        if valid is not None:
            target[~valid] = IGNORE
        known = torch.from_numpy(target)
        sample.add(logits, known, known != IGNORE)

    return draw
