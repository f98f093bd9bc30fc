"""A run's folder: what lies in it, and when it may be used."""

import dataclasses
from pathlib import Path

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from geoseg.config.run import RunConfig
from geoseg.errors import InputError, OutputExistsError, UsageError
from geoseg.evaluate.report import REPORT_NAME
from geoseg.train.checkpoints import LAST, MODEL, disk_errors
from geoseg.train.curves import CURVES
from geoseg.train.record import METRICS

CONFIG = "config.yaml"
SCORES = "metrics.json"
OWN_FILES = (LAST, MODEL, METRICS, SCORES, CONFIG, CURVES, REPORT_NAME)
# Sections of a run file that change nothing of what a resumed run computes.
FREE_SECTIONS = {"out", "card", "trainer"}
# Values that decide which weights and optimiser groups there are.
FIXED_VALUES = {
    "model.name",
    "model.options",
    "model.in_channels",
    "model.num_classes",
    "data.classes",
    "optim.no_decay",
    "optim.encoder_lr_factor",
    "optim.decoder_lr_factor",
}


def is_first_process() -> bool:
    """Return whether this is the process of a distributed run that writes and speaks."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


def open_folder(out: Path, *, resume: bool, overwrite: bool) -> Path:
    """Make a run's folder, or check that what is there may be used.

    An earlier run stays until `discard_run`: the new one may not fit its data.

    Raises:
        OutputExistsError: it holds files, and neither resume nor overwrite was given; or a file has
            its name.
        UsageError: nothing to resume.
    """
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite discards it; give one.")
    if not is_first_process():  # the first process has checked, and perhaps begun to write
        return out
    if resume and not (out / LAST).exists():
        raise UsageError(
            f"nothing to resume: {str(out / LAST)!r} does not exist. Leave --resume out, or give "
            "the folder of the run as out."
        )
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{str(out)!r} is a file. Give the name of a folder as out.")
    if not (resume or overwrite) and out.exists() and any(out.iterdir()):
        raise OutputExistsError(
            f"{str(out)!r} exists and is not empty. Give --resume to go on with its run, "
            "--overwrite to discard it, or another folder as out."
        )
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    return out


def discard_run(out: Path) -> None:
    """Remove the files of an earlier run, once the new one is ready to begin."""
    if is_first_process():
        with disk_errors(out):
            for name in OWN_FILES:
                (out / name).unlink(missing_ok=True)


def saved_step(out: Path) -> int:
    """Return the step of a run's last checkpoint.

    Raises:
        InputError: it cannot be read.
    """
    try:
        checkpoint = torch.load(out / LAST, map_location="cpu", weights_only=True, mmap=True)
        return int(checkpoint["global_step"])
    except (OSError, RuntimeError, ValueError, LookupError, EOFError) as error:
        raise InputError(
            f"{str(out / LAST)!r} cannot be read ({type(error).__name__}): it is damaged, or no "
            "checkpoint of `geoseg train`. Start anew with --overwrite, from model.safetensors of "
            "the run as model.weights if you keep a copy of it."
        ) from error


def check_resumable(before: RunConfig, now: RunConfig) -> list[str]:
    """Return the names of values that are others than when a run began, as ``section.key``.

    Args:
        before: what was written when it began, all values resolved.
        now: what it goes on with.

    Raises:
        UsageError: the checkpoint does not fit the run any more.
    """
    changed = changed_values(before, now)
    fixed = [name for name in changed if name in FIXED_VALUES]
    if (before.trainer.ema_decay is None) != (now.trainer.ema_decay is None):
        fixed.append("trainer.ema_decay")
    if fixed:
        raise UsageError(
            f"a resumed run keeps {', '.join(fixed)}; the run file has another value. Give the one "
            f"in {str(Path(now.out) / CONFIG)!r}, or --overwrite to begin anew."
        )
    return changed


def changed_values(before: RunConfig, now: RunConfig) -> list[str]:
    """Return the names of values in which two runs differ, as ``section.key``."""
    old, new = dataclasses.asdict(before), dataclasses.asdict(now)
    return [
        f"{section}.{key}"
        for section, values in new.items()
        if section not in FREE_SECTIONS and isinstance(values, dict)
        for key, value in values.items()
        if value != old[section][key]
    ]
