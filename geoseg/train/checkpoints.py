"""What a run leaves behind: the state to go on from, and the best weights as a model file."""

import difflib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from safetensors import SafetensorError
from torch import nn

from geoseg.checkpoint import is_disk_full, save_model
from geoseg.errors import DiskFullError, MachineError, UsageError
from geoseg.spec import ModelSpec
from geoseg.train.averaging import AveragedTask

LAST = "last.ckpt"
MODEL = "model.safetensors"


class KeepBest(Callback):
    """Writes ``last.ckpt`` and, when the score is better, ``model.safetensors``.

    Args:
        out: folder of the run.
        monitor: the score that decides; higher is better.
        patience: validations without a better score after which the run stops; None: never.
        half: store the model's matrices in half precision.
        check: called before anything is written; raises if the weights are not to be kept.

    Attributes:
        best: score of the model file.
        best_step: at which it was reached.
        best_scores: all scores at that step.
        waited: validations since.
    """

    def __init__(
        self,
        out: Path,
        monitor: str,
        *,
        patience: int | None = None,
        half: bool = False,
        check: Callable[[L.Trainer, AveragedTask], None],
    ) -> None:
        self.out = out
        self.monitor = monitor
        self.patience = patience
        self.half = half
        self.check = check
        self.best = -math.inf
        self.best_step = 0
        self.best_scores: dict[str, float] = {}
        self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "best_scores": self.best_scores,
            "waited": self.waited,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        for key, value in state_dict.items():
            setattr(self, key, value)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """End a resumed run whose patience was at its end already."""
        self._stop_if_impatient(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep what the validation has found, and what it was made with."""
        assert isinstance(pl_module, AveragedTask)
        self.check(trainer, pl_module)
        if self.monitor not in pl_module.val_scores:
            known = sorted(pl_module.val_scores)
            close = difflib.get_close_matches(self.monitor, known, n=3, cutoff=0.5) or known
            raise UsageError(
                f"trainer.monitor: no score is called {self.monitor!r}. Did you mean "
                f"{' or '.join(close)}?"
            )
        score = pl_module.val_scores[self.monitor]
        # A score that is no number (no labelled pixel at all) is better than no model, and no more.
        if score > self.best or self.best_step == 0 or math.isnan(self.best):
            self.best, self.best_step = score, trainer.global_step
            self.best_scores, self.waited = dict(pl_module.val_scores), 0
            self.write_model(trainer, pl_module)
        else:
            self.waited += 1
        self._stop_if_impatient(trainer)
        found = {f"val_{name}": value for name, value in pl_module.val_scores.items()}
        for logger in trainer.loggers:
            logger.log_metrics(found, trainer.global_step)
        self.write_last(trainer)

    def _stop_if_impatient(self, trainer: L.Trainer) -> None:
        if self.patience is not None and self.waited >= self.patience:
            trainer.should_stop = True

    def write_model(self, trainer: L.Trainer, task: AveragedTask) -> None:
        """Write the model file, in the first process."""
        if trainer.is_global_zero:
            spec = replace(task.spec, metrics=named_metrics(task.val_scores))
            write_model(self.out / MODEL, task.kept_network(), spec, half=self.half)

    def write_last(self, trainer: L.Trainer) -> None:
        """Write the metrics, then the state to resume from, in one step.

        In this order: a resumed run drops rows after its step, and would never write missing ones.
        """
        for logger in trainer.loggers:
            logger.save()
        temporary = self.out / f".{LAST}.part"
        with disk_errors(self.out):
            try:
                trainer.save_checkpoint(temporary)
                if trainer.is_global_zero:
                    _sync(temporary)
                    temporary.replace(self.out / LAST)
            finally:
                if trainer.is_global_zero:
                    temporary.unlink(missing_ok=True)


def write_model(path: Path, network: nn.Module, spec: ModelSpec, *, half: bool) -> None:
    """Write a model file, or say why the disk does not take it."""
    with disk_errors(path.parent):
        save_model(path, network, spec, half=half)


def named_metrics(found: dict[str, float]) -> dict[str, float]:
    """Return validation scores as a model's record has them; those that are no number are left."""
    return {
        f"val_{name}": round(value, 4) for name, value in found.items() if not math.isnan(value)
    }


def is_finite(network: nn.Module) -> bool:
    """Return whether all weights are finite numbers."""
    total = torch.stack([p.detach().sum(dtype=torch.float32) for p in network.parameters()]).sum()
    return bool(torch.isfinite(total))


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn what a full or failing disk does into a DiskFullError or MachineError."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        is_full = isinstance(error, DiskFullError) or is_disk_full(error)
        if isinstance(error, RuntimeError) and "write" not in str(error) and not is_full:
            raise
        if is_full:
            raise DiskFullError(
                f"the disk of {str(out)!r} is full. The last checkpoint is kept: free some space "
                "and give --resume."
            ) from error
        raise MachineError(
            f"{str(out)!r} cannot be written: {error}. The last checkpoint is kept: mend the cause "
            "and give --resume."
        ) from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
