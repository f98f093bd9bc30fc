"""Which devices a run takes, and Lightning's trainer for them."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from geoseg.config.run import RunConfig, TrainerConfig
from geoseg.errors import BackendUnavailableError, UsageError
from geoseg.predict.memory import keep_freed_memory

PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def choose_devices(options: TrainerConfig, device: str) -> tuple[str, Any]:
    """Return Lightning's accelerator and devices.

    Args:
        options: ask for some; ``auto`` is all GPUs, or one process on the CPU.
        device: ``auto``, or one that replaces what the run file asks for.

    Raises:
        UsageError: no such kind of device.
        BackendUnavailableError: there is none of the kind.
    """
    kind, _, index = device.partition(":")
    if kind not in {"auto", "cpu", "cuda", "mps"} or (index and not index.isdigit()):
        raise UsageError(f"expected a device auto, cpu, cuda, cuda:N or mps; got {device!r}.")
    if kind == "auto":
        kind = {"gpu": "cuda"}.get(options.accelerator, options.accelerator)
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return "cpu", options.devices or 1
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise BackendUnavailableError("this machine has no MPS device. Give --device cpu.")
        return "mps", 1
    count = torch.cuda.device_count()
    wanted = int(index) + 1 if index else (options.devices or 1)
    if count < wanted:
        raise BackendUnavailableError(
            f"expected {wanted} CUDA device(s) or more; this machine has {count}. Give --device "
            "cpu, or another trainer.devices."
        )
    return "gpu", [int(index)] if index else (options.devices or count)


def count_processes(options: TrainerConfig, device: str) -> int:
    """Return the number of processes over all machines."""
    _, devices = choose_devices(options, device)
    per_node = len(devices) if isinstance(devices, list) else int(devices)
    return per_node * options.nodes


def build_trainer(
    config: RunConfig,
    device: str,
    *,
    validates: bool,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
) -> L.Trainer:
    """Return the trainer.

    Args:
        config: the run.
        device: see `choose_devices`.
        validates: whether there is a validation split.
        callbacks: in the order in which they are called.
        loggers: that are told the metrics.
    """
    options = config.trainer
    accelerator, devices = choose_devices(options, device)
    on_cpu = accelerator == "cpu"
    if on_cpu:
        keep_freed_memory()
    several = count_processes(options, device) > 1
    # A requeued job is resumed by geoseg's own checkpoint.
    plugins: Any = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None
    with quiet_lightning():
        return L.Trainer(
            default_root_dir=config.out,
            accelerator=accelerator,
            devices=devices,
            num_nodes=options.nodes,
            strategy="ddp" if several else "auto",
            plugins=plugins,
            precision=PRECISIONS[options.precision],
            max_steps=options.steps,
            accumulate_grad_batches=options.accumulate,
            gradient_clip_val=config.optim.clip_norm,
            val_check_interval=options.val_every_steps * options.accumulate,
            check_val_every_n_epoch=None,
            limit_val_batches=None if validates else 0,
            sync_batchnorm=options.sync_batch_norm and several and not on_cpu,
            deterministic=options.deterministic,
            benchmark=not on_cpu and not options.deterministic,
            callbacks=list(callbacks),
            logger=list(loggers),
            log_every_n_steps=options.log_every_steps,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice and notices to itself: the run file has decided these things."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            # Kernels of one pixel's height have two layouts that are one; nothing is copied.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def same_interrupt() -> Iterator[None]:
    """Put the handler of Ctrl-C back that Lightning switches off for good after a first one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
