"""A pre-training run, step by step."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from geoseg.config.parse import dump_config
from geoseg.config.run import DataConfig, OptimConfig, RunConfig, TrainerConfig
from geoseg.listener import Listener
from geoseg.train.checkpoints import LAST, disk_errors
from geoseg.train.devices import build_trainer, count_processes
from geoseg.train.folder import CONFIG, discard_run, open_folder, saved_step
from geoseg.train.pretrain_build import AnyConfig, build
from geoseg.train.pretrain_task import Pace
from geoseg.train.record import build_loggers
from geoseg.train.run import TrainResult, build_callbacks, finish, fit

MONITORS = {"classification": "top1", "masked": "explained"}


def pretrain(
    config: AnyConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    listener: Listener | None = None,
) -> TrainResult:
    """Train an encoder to start segmentation from.

    Args:
        config: the run.
        resume: go on from ``last.ckpt`` in its folder.
        overwrite: discard an earlier run in its folder.
        device: ``auto``: as ``config.trainer`` says; or ``cpu``, ``cuda``, ``cuda:N``, ``mps``.
        listener: hears of the steps and may stop the run.

    Raises:
        InputError: data or weights that do not fit, or a loss that is no number.
        MachineError: disk or device.
        InterruptedRunError: the listener stopped the run; its state is saved.
    """
    listener = listener or Listener()
    out = open_folder(Path(config.out), resume=resume, overwrite=overwrite)
    done = saved_step(out) if resume else None
    torch.manual_seed(config.seed)
    processes = count_processes(as_run(config, Pace(1, 1, 1)).trainer, device)
    config, data, task = build(config, processes)
    run = as_run(config, task.pace)
    if overwrite:
        discard_run(out)
    keep, watch = build_callbacks(run, listener)
    trainer = build_trainer(
        run,
        device,
        validates=data.val_split is not None,
        callbacks=[keep, watch],
        loggers=build_loggers(out, run.trainer.loggers, resume_at=done),
    )
    if trainer.is_global_zero:
        with disk_errors(out):
            (out / CONFIG).write_text(dump_config(config), "utf-8")
        listener.start(describe(config, task.pace, str(trainer.strategy.root_device), done or 0))
    fit(trainer, task, data, out / LAST if resume else None)
    return finish(run, trainer, task, data, keep)


def as_run(config: AnyConfig, pace: Pace) -> RunConfig:
    """Return what the trainer and the files of a run need to know, as a training run says it."""
    options = dataclasses.asdict(config.trainer)
    for own in ("epochs", "cooldown_epochs"):
        del options[own]
    every = options.pop("val_every_epochs") * pace.steps_per_epoch
    return RunConfig(
        out=config.out,
        model=config.model,
        data=DataConfig(kind="folder"),
        optim=OptimConfig(clip_norm=config.optim.clip_norm),
        trainer=TrainerConfig(
            **options,
            steps=pace.steps,
            val_every_steps=min(every, pace.steps),
            monitor=MONITORS[config.task],
        ),
        card=config.card,
        seed=config.seed,
    )


def describe(config: AnyConfig, pace: Pace, device: str, done: int) -> dict[str, Any]:
    """Return the plan that a listener is told."""
    options = config.trainer
    epochs = options.epochs + options.cooldown_epochs
    return {
        "unit": "steps",
        "model": config.model.name,
        "steps": pace.steps,
        "done": done,
        "batch_size": options.batch_size,
        "device": device,
        "precision": options.precision,
        "sentence": (
            f"{config.model.name}: {epochs} epochs of {pace.steps_per_epoch} steps of "
            f"{pace.samples_per_step} images, {device}"
        ),
    }
