"""A training run, step by step."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from geoseg.config.parse import dump_config, parse_config
from geoseg.config.run import RunConfig
from geoseg.data.datamodule import SegmentationDataModule
from geoseg.data.leaks import check_leak
from geoseg.data.loaders import StreamDataModule
from geoseg.errors import UsageError
from geoseg.evaluate.report import write_training_report
from geoseg.listener import Listener
from geoseg.models import MODELS
from geoseg.segmenter import Segmenter
from geoseg.spec import Architecture
from geoseg.train.averaging import AveragedTask
from geoseg.train.batch_size import find_batch_size
from geoseg.train.build import build_network, build_spec, build_task, recipe, resolve
from geoseg.train.callbacks import FiniteLoss, Watch
from geoseg.train.checkpoints import LAST, MODEL, KeepBest, disk_errors, named_metrics, write_model
from geoseg.train.curves import CURVES, draw_curves
from geoseg.train.devices import (
    build_trainer,
    choose_devices,
    count_processes,
    quiet_lightning,
    same_interrupt,
)
from geoseg.train.folder import (
    CONFIG,
    SCORES,
    check_resumable,
    discard_run,
    open_folder,
    saved_step,
)
from geoseg.train.precision import record_bf16
from geoseg.train.record import METRICS, build_loggers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a run has made.

    Attributes:
        out: its folder.
        model: the model file with the best weights.
        metrics: scores of the best weights, what they are of, and the steps.
    """

    out: Path
    model: Path
    metrics: dict[str, Any]


def train(
    config: RunConfig,
    *,
    network: nn.Module | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    listener: Listener | None = None,
    warn_of_leaks: bool = True,
) -> TrainResult:
    """Train a model as a run file says.

    Args:
        config: the run.
        network: of your own, (N, C, H, W) -> (N, K, H, W), in place of the one that ``model``
            names; its weights are its start. The model file has its weights, and the name of its
            class: `load_network` cannot build it again.
        resume: go on from ``last.ckpt`` in its folder.
        overwrite: discard an earlier run in its folder.
        device: ``auto``: as ``config.trainer`` says; or ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
        listener: hears of the steps and may stop the run.
        warn_of_leaks: say so where validation images lie on or beside training ground.

    Raises:
        InputError: data or weights that do not fit, or a loss that is no number.
        MachineError: disk or device.
        InterruptedRunError: the listener stopped the run; its state is saved.
    """
    listener = listener or Listener()
    choose_devices(config.trainer, device)
    out = open_folder(Path(config.out), resume=resume, overwrite=overwrite)
    done = saved_step(out) if resume else None
    data = SegmentationDataModule(config)
    config = resolve(config, data)
    first_convolution = ""
    own = network
    if network is None:
        network, first_convolution = build_network(config)
    spec = build_spec(config, data, first_convolution)
    if own is not None:
        spec = replace(spec, architecture=Architecture(own_name(own)))
    segmenter = Segmenter(network, spec)
    config = settle_batch_size(config, segmenter, device=device, resume=resume)
    data.batch_size = int(config.trainer.batch_size)
    segmenter.spec = replace(segmenter.spec, recipe=recipe(config))
    task = build_task(config, data, segmenter)
    if overwrite:
        discard_run(out)
    keep, watch = build_callbacks(config, listener)
    trainer = build_trainer(
        config,
        device,
        validates=data.val_split is not None,
        callbacks=[keep, watch],
        loggers=build_loggers(out, config.trainer.loggers, resume_at=done),
    )
    if trainer.is_global_zero:
        begin(config, out, resume=resume)
        if warn_of_leaks and data.val_split is not None:
            for leak in check_leak(data.train_split, data.val_split):
                logger.warning("%s", leak)
        place = str(trainer.strategy.root_device)
        listener.start(describe(config, data, spec.architecture.name, device=place, done=done or 0))
    fit(trainer, task, data, out / LAST if resume else None)
    return finish(config, trainer, task, data, keep, own=own)


def settle_batch_size(
    config: RunConfig, segmenter: Segmenter, *, device: str, resume: bool
) -> RunConfig:
    """Return the run with a number as its batch size; a resumed one keeps that it began with."""
    size = config.trainer.batch_size
    if size == "auto" and count_processes(config.trainer, device) > 1:
        raise UsageError(
            "trainer.batch_size: auto is for one process, as each would find a size of its own. "
            "Give a number; a run on one device prints what fits."
        )
    if size == "auto" and resume:
        size = parse_config(Path(config.out) / CONFIG).trainer.batch_size
    if size == "auto":
        accelerator, devices = choose_devices(config.trainer, device)
        kind = {"gpu": "cuda"}.get(accelerator, accelerator)
        index = f":{devices[0]}" if isinstance(devices, list) else ""
        place = torch.device(f"{kind}{index}")
        size = find_batch_size(
            segmenter, config.augment.crop_px, device=place, precision=config.trainer.precision
        )
    return replace(config, trainer=replace(config.trainer, batch_size=size))


def build_callbacks(config: RunConfig, listener: Listener) -> tuple[KeepBest, Watch]:
    """Return what keeps the weights and what watches the run, called in this order."""
    options = config.trainer
    finite = FiniteLoss()
    keep = KeepBest(
        Path(config.out),
        options.monitor,
        patience=options.patience,
        half=config.card.half,
        check=finite.check_all,
    )
    watch = Watch(
        listener,
        keep,
        finite,
        total=options.steps,
        log_every_steps=options.log_every_steps,
        accumulate=options.accumulate,
    )
    return keep, watch


def begin(config: RunConfig, out: Path, *, resume: bool) -> None:
    """Write the resolved run file; say in what a resumed run is no more the one that began."""
    if resume and (out / CONFIG).exists():
        changed = check_resumable(parse_config(out / CONFIG), config)
        if changed:
            logger.warning("the run goes on with other values of %s", ", ".join(changed))
    with disk_errors(out):
        (out / CONFIG).write_text(dump_config(config), "utf-8")


def own_name(network: nn.Module) -> str:
    """Return what a network of the user's own is called: its class, as none of ours is called."""
    kind = type(network)
    return f"{kind.__module__}.{kind.__name__}" if kind.__name__ in MODELS else kind.__name__


def describe(
    config: RunConfig, data: SegmentationDataModule, model: str, *, device: str, done: int
) -> dict[str, Any]:
    """Return the plan that a listener is told, with what it should know of the data."""
    options, val = config.trainer, data.val_split
    for split in (data.train_split, val):
        for note in split.notes if split is not None else ():
            logger.warning("%s", note)
    return {
        "unit": "steps",
        "model": model,
        "steps": options.steps,
        "done": done,
        "batch_size": data.batch_size,
        "device": device,
        "precision": options.precision,
        "sentence": (
            f"{model}: {options.steps} steps of {data.batch_size} crops of "
            f"{config.augment.crop_px} px, {len(data.classes)} classes, "
            f"{len(data.train_split.names)} images to train and "
            f"{0 if val is None else len(val.names)} to validate on, {device}"
        ),
    }


def fit(trainer: L.Trainer, task: AveragedTask, data: StreamDataModule, last: Path | None) -> None:
    """Run the steps; the last one is followed by a validation."""
    try:
        with quiet_lightning(), same_interrupt():
            trainer.fit(task, datamodule=data, ckpt_path=last, weights_only=True)
    except SystemExit as leave:
        # Lightning turns Ctrl-C into an exit.
        if isinstance(leave.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from leave
        raise


def finish(
    config: RunConfig,
    trainer: L.Trainer,
    task: AveragedTask,
    data: StreamDataModule,
    keep: KeepBest,
    *,
    own: nn.Module | None = None,
) -> TrainResult:
    """Write what remains, and return what the run has made.

    ``own`` is the network that was given to the run in place of one that the model file names.
    """
    out = Path(config.out)
    metrics = {
        "steps": trainer.global_step,
        "best_step": keep.best_step or trainer.global_step,
        "monitor": config.trainer.monitor,
        **named_metrics(keep.best_scores),
    }
    if trainer.is_global_zero:
        if data.val_split is None:
            write_model(out / MODEL, task.kept_network(), task.spec, half=config.card.half)
        elif config.card.measure_bf16 and task.spec.task == "semantic-segmentation":
            record_bf16(
                out / MODEL,
                data.val_split,
                config.evaluation,
                device=trainer.strategy.root_device,
                half=config.card.half,
                network=own,
            )
        with disk_errors(out):
            (out / SCORES).write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")
            draw_curves(out / METRICS, out / CURVES, config.trainer.monitor)
            if (out / METRICS).exists():
                write_training_report(out)
    return TrainResult(out, out / MODEL, metrics)
