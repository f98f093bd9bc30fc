"""Teach a model from a few digitised polygons, step by step."""

import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from geoseg.checkpoint import load_network, save_model
from geoseg.config import PredictOptions
from geoseg.config.run import DataConfig, FilesConfig, RunConfig
from geoseg.data.build import build_split
from geoseg.data.label_polygons import VECTOR_SUFFIXES
from geoseg.data.sample import IGNORE
from geoseg.data.scenes import describe_images
from geoseg.errors import (
    GeoreferenceError,
    InputError,
    InterruptedRunError,
    ModelFileError,
    OutputExistsError,
    UsageError,
)
from geoseg.evaluate.metrics import ConfusionMatrix, scores
from geoseg.evaluate.protocol import infer_benchmark
from geoseg.listener import Listener
from geoseg.model_files import find_model
from geoseg.models import create_model
from geoseg.predict.place import native_gsd
from geoseg.raster import check_input, inspect_raster, open_raster
from geoseg.raster.info import RasterInfo
from geoseg.segmenter import Segmenter
from geoseg.spec import ClassSpec, ModelSpec
from geoseg.train.checkpoints import LAST
from geoseg.train.finetune_plan import (
    RUN,
    FinetuneOptions,
    plan_data,
    plan_run,
    with_files,
    write_labels,
)
from geoseg.train.lesson import Lesson, read_lesson
from geoseg.train.lesson_raster import RasterLesson, read_raster_lesson, write_cells
from geoseg.train.run import train
from geoseg.train.start import LAST_LAYER
from geoseg.types import Window

logger = logging.getLogger(__name__)

# A model that was taught on a raster is trusted this far around its resolution.
GSD_TOLERANCE = 1.25


@dataclass(frozen=True)
class FinetuneResult:
    """What was learned.

    Attributes:
        model: the file.
        classes: of its maps.
        held_out: number of polygons, or of cells of a label raster, that were scored.
        before: scores of the given model on them; None where its classes were others, or none
            were held out.
        after: scores of the new model; None where none were held out.
        unit: what ``held_out`` counts.
    """

    model: Path
    classes: tuple[ClassSpec, ...]
    held_out: int
    before: dict[str, float] | None
    after: dict[str, float] | None
    unit: Literal["polygons", "cells"] = "polygons"


def finetune(
    model: str | Path,
    raster: str | Path,
    labels: str | Path,
    out: str | Path,
    *,
    options: FinetuneOptions | None = None,
    listener: Listener | None = None,
) -> FinetuneResult:
    """Teach a model from labels on one raster.

    Args:
        model: path of a model file, or name of a shipped model.
        raster: anything that rasterio opens.
        labels: vector file of polygons, or raster of class ids. Ground without a label is ignored.
        out: the new model, ``.safetensors``.
        options: how.
        listener: hears of the steps and may stop the run, which can then be resumed.

    Raises:
        InputError: raster, labels and model do not fit each other.
        UsageError: the output exists, or options contradict each other.
    """
    options, listener = options or FinetuneOptions(), listener or Listener()
    out = Path(out)
    folder = _choose_folder(out, options)
    network, spec = load_network(find_model(model))
    if spec.task != "semantic-segmentation":
        raise ModelFileError(
            f"model {spec.name!r} is for {spec.task}: it makes no maps that labels could better. "
            "Train a segmentation model from it (model.encoder_weights of a run file)."
        )
    spec, scaling = _check_raster(spec, str(raster), options)
    data = plan_data(spec, scaling, options)
    lesson = _read_labels(Path(labels), str(raster), spec, data, options)
    for note in lesson.notes:
        listener.log("info", note)
    with _run_folder(folder, options):
        start = _write_start(network, spec, lesson.classes, folder)
        files = _write_labels(lesson, str(raster), folder)
        config = plan_run(start, spec, with_files(data, files, lesson.classes), options)
        before = None
        if config.data.val is not None:
            _check_held_out(config)
            before = _score(network, spec, config) if lesson.classes == spec.classes else None
        # A run that was stopped before its first checkpoint has nothing to go on with.
        goes_on = options.resume and (Path(config.out) / LAST).exists()
        result = train(
            config,
            resume=goes_on,
            overwrite=not goes_on,
            device=options.device,
            listener=listener,
            warn_of_leaks=False,  # ground of the same scene is held out, which the lesson says
        )
    taught, record = load_network(result.model)
    after = _score(taught, record, config) if config.data.val is not None else None
    taught_on = f"{Path(raster).name} with {Path(labels).name}"
    record = replace(
        record,
        name=out.stem,
        bands=spec.bands,
        nodata_rule=spec.nodata_rule,
        tile=spec.tile,
        description=f"{spec.description} Taught on {Path(raster).name}.".strip(),
        data=f"{spec.data} Then {taught_on}.".strip(),
        recipe=f"geoseg finetune from {spec.name}; {record.recipe}",
        metrics=after or {},
    )
    save_model(out, taught, record)
    shutil.rmtree(folder)
    if isinstance(lesson, RasterLesson):
        cells = int(lesson.held_out.sum())
        return FinetuneResult(out, record.classes, cells, before, after, "cells")
    return FinetuneResult(out, record.classes, len(lesson.held_out), before, after)


def _choose_folder(out: Path, options: FinetuneOptions) -> Path:
    """Return the folder that the run works in, beside the output."""
    if options.resume and options.overwrite:
        raise UsageError("--resume goes on with a run and --overwrite discards it; give one.")
    if out.suffix != ".safetensors":
        raise UsageError(f"OUT: expected a name that ends with .safetensors; got {out.name!r}.")
    if out.exists() and not options.overwrite:
        raise OutputExistsError(f"{str(out)!r} exists. Give --overwrite to replace it.")
    folder = out.with_name(f"{out.name}.run")
    if folder.exists() and not (options.resume or options.overwrite):
        raise OutputExistsError(
            f"{str(folder)!r} holds a stopped run. Give --resume to go on, --overwrite to begin "
            "anew."
        )
    if options.resume and not folder.exists():
        raise UsageError(f"nothing to resume: {str(folder)!r} does not exist.")
    return folder


@contextmanager
def _run_folder(folder: Path, options: FinetuneOptions) -> Iterator[None]:
    """Make the folder of a run; a fault before there is anything to go on with removes it."""
    if options.overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except InterruptedRunError:
        raise
    except Exception:
        if not (folder / RUN / LAST).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_raster(
    spec: ModelSpec, raster: str, options: FinetuneOptions
) -> tuple[ModelSpec, list[tuple[float, float]]]:
    """Return the record with the raster's resolution among those known, and (mean, std) per band.

    The statistics are those of the stored values, whatever scale and offset the raster declares.
    """
    with open_raster(raster) as dataset:
        info = inspect_raster(dataset, raster)
    selection = check_input(info, spec, options.bands)
    stored = []
    for band, declared in zip(spec.bands, selection.scaling, strict=True):
        scale, offset = declared or (band.scale, band.offset)
        stored.append(((band.mean - offset) / scale, band.std / scale))
    return _with_resolution(spec, info, raster), stored


def _with_resolution(spec: ModelSpec, info: RasterInfo, raster: str) -> ModelSpec:
    gsd_m = _gsd_m(info)
    if gsd_m is None or spec.gsd_m is None:
        return spec
    finest, coarsest = spec.gsd_m
    known = min(finest, gsd_m / GSD_TOLERANCE), max(coarsest, gsd_m * GSD_TOLERANCE)
    if known != spec.gsd_m:
        logger.info("%s is %.3g m per pixel: the new model knows that too", raster, gsd_m)
    return replace(spec, gsd_m=(round(known[0], 4), round(known[1], 4)))


def _gsd_m(info: RasterInfo) -> float | None:
    try:
        whole = Window(0, 0, info.height, info.width)
        gsd_m, _ = native_gsd(info, whole, PredictOptions())
    except GeoreferenceError:
        return None
    return None if gsd_m is None else float((gsd_m[0] * gsd_m[1]) ** 0.5)


def _read_labels(
    labels: Path, raster: str, spec: ModelSpec, data: DataConfig, options: FinetuneOptions
) -> Lesson | RasterLesson:
    """Return what the labels teach, checked against model and raster; writes nothing."""
    if not Path(raster).is_file():
        raise InputError(
            f"expected RASTER to be a file, which training reads many times; got {raster!r}. Copy "
            "it to this machine first (gdal_translate)."
        )
    image = describe_images([raster], data)[raster]
    if labels.suffix.lower() in VECTOR_SUFFIXES:
        return read_lesson(
            labels,
            spec.classes,
            ground=image.grid,
            class_field=options.class_field,
            complete=options.complete,
            background=options.background,
            hold_out=options.hold_out,
            seed=options.seed,
        )
    for name in ("class_field", "complete", "background"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} is for polygons; the labels {str(labels)!r} are a "
                "raster, which holds class ids, and whose nodata is what has no label."
            )
    return read_raster_lesson(
        labels,
        image,
        spec.classes,
        data,
        largest_px=spec.tile.size_px,
        hold_out=options.hold_out,
        seed=options.seed,
    )


def _write_labels(lesson: Lesson | RasterLesson, raster: str, folder: Path) -> list[FilesConfig]:
    if isinstance(lesson, RasterLesson):
        return write_cells(lesson, folder)
    return write_labels(lesson, raster, folder)


def _write_start(
    network: nn.Module, spec: ModelSpec, classes: tuple[ClassSpec, ...], folder: Path
) -> Path:
    """Write the model to start from: what it knows of the new classes is kept."""
    path = folder / "start.safetensors"
    if classes == spec.classes:
        return save_model(path, network, spec)
    architecture = spec.architecture
    wanted = create_model(
        architecture.name,
        in_channels=spec.in_channels,
        num_classes=len(classes),
        **architecture.options,
    )
    weights, fresh = dict(network.state_dict()), wanted.state_dict()
    before = {c.name: k for k, c in enumerate(spec.classes)}
    for part in ("weight", "bias"):
        rows = fresh[LAST_LAYER + part].clone()
        for k, c in enumerate(classes):
            if c.name in before:
                rows[k] = weights[LAST_LAYER + part][before[c.name]]
        weights[LAST_LAYER + part] = rows
    wanted.load_state_dict(weights)
    return save_model(path, wanted, replace(spec, classes=classes, metrics={}, precision={}))


def _check_held_out(config: RunConfig) -> None:
    """Raise unless something can be scored: better said before the lesson than after it."""
    split = build_split(config.data, "val", patch_px=config.evaluation.crop_px)
    assert split.sampler is not None
    if not any((split.dataset[item]["mask"] != IGNORE).any() for item in split.sampler):
        raise InputError(
            "the held-out labels cover no pixel centre with values of the raster. Check the "
            "labels' CRS, draw larger polygons, or give --hold-out 0."
        )


@torch.inference_mode()
def _score(network: nn.Module, spec: ModelSpec, config: RunConfig) -> dict[str, float]:
    """Return scores on what is held out."""
    split = build_split(config.data, "val", patch_px=config.evaluation.crop_px)
    segmenter = Segmenter(network, spec).eval()
    confusion = ConfusionMatrix(spec.num_classes)
    assert split.sampler is not None
    for item in split.sampler:
        sample: dict[str, Any] = split.dataset[item]
        probs = infer_benchmark(segmenter, sample["image"], sample["valid"], config.evaluation)
        confusion.update(sample["mask"], probs.argmax(dim=0))
    found = scores(confusion.counts, [c.name for c in spec.classes])
    return {key: float(value) for key, value in found.items() if not math.isnan(value)}
