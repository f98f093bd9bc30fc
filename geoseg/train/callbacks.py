"""What watches a run: progress and stopping, losses that are no number, the metrics."""

import copy
import signal
import threading
import time
from pathlib import Path
from typing import Any, override

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from geoseg.data.sample import Batch
from geoseg.errors import InputError, InterruptedRunError
from geoseg.listener import Listener
from geoseg.train.averaging import AveragedTask
from geoseg.train.checkpoints import LAST, KeepBest, is_finite

SAVE_EVERY_S = 10.0  # rows of the metrics
AGREE_EVERY_STEPS = 10  # of several processes, on stopping


class FiniteLoss:
    """Stops a run whose loss is no number any more, before that is saved.

    The check waits for the device; on an accelerator it is made every few steps only, and finds
    the step by then.
    """

    def __init__(self) -> None:
        self._bad_step: Tensor | None = None

    def note(self, loss: Tensor, step: int) -> None:
        """Remember the first step with such a loss, on the device."""
        now = torch.where(torch.isfinite(loss.detach()), -1, step)
        self._bad_step = now if self._bad_step is None else first(self._bad_step, now)

    def check_all(self, trainer: L.Trainer, task: AveragedTask) -> None:
        """Raise an InputError if there was one, or the weights are no numbers."""
        self.check(trainer, task, weights_are_finite=is_finite(task.trained))

    def check(
        self, trainer: L.Trainer, task: AveragedTask, *, weights_are_finite: bool = True
    ) -> None:
        """Raise an InputError if there was one."""
        step = -1 if self._bad_step is None else int(self._bad_step)
        if step < 0 and not weights_are_finite:
            step = trainer.global_step - 1
        if not trainer.strategy.reduce_boolean_decision(step >= 0, all=False):
            return
        step = step if step >= 0 else trainer.global_step - 1
        rate = task.learning_rate(step)
        kept = Path(trainer.default_root_dir, LAST).exists()
        raise InputError(
            f"the loss is no finite number at step {step} (learning rate {rate:.3g}). "
            + ("The last good checkpoint is kept" if kept else "There is no checkpoint yet")
            + ": lower optim.lr, set optim.clip_norm or a longer optim.warmup_steps, and "
            + ("give --resume." if kept else "start again.")
        )


def first(before: Tensor, now: Tensor) -> Tensor:
    """Return the earlier of two steps, where -1 is none."""
    return torch.where(before >= 0, before, now)


class Watch(Callback):
    """Follows the steps: metrics, progress, and stopping when the listener asks for it.

    Args:
        listener: is told.
        keep: writes the checkpoint of a stopped run.
        finite: checks the loss.
        total: steps of the run.
        log_every_steps: between rows of the metrics.
        accumulate: batches per step.

    Attributes:
        due: whether the step that was saved last is still to be validated.
    """

    def __init__(
        self,
        listener: Listener,
        keep: KeepBest,
        finite: FiniteLoss,
        *,
        total: int,
        log_every_steps: int,
        accumulate: int,
    ) -> None:
        self.listener = listener
        self.keep = keep
        self.finite = finite
        self.total = total
        self.every = log_every_steps
        self.accumulate = accumulate
        self._losses: Tensor | None = None
        self._batches = 0
        self._samples = 0
        self._since = self._saved = time.perf_counter()
        self._val_every = 1
        self.due = False
        self._val_progress: dict[str, Any] = {}
        self._sigterm = signal.getsignal(signal.SIGTERM)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know, with the losses since the last row."""
        losses = None if self._losses is None else float(self._losses)
        return {"due": self.due, "losses": losses, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        losses = state_dict["losses"]
        self.due, self._batches = state_dict["due"], state_dict["batches"]
        self._losses = None if losses is None else torch.tensor(losses)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Let a run begin that lacks nothing but the validation of its last step."""
        if self.due:
            trainer.fit_loop.epoch_loop.max_steps = self.total + 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Start the clock; let SIGTERM ask for a stop as before, and not end the run unsaved.

        A validation that was stopped is made again first.
        """
        if callable(self._sigterm) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)
        trainer.fit_loop.epoch_loop.max_steps = self.total
        if self.due:
            self.due = False
            validate(trainer)
        self._since = time.perf_counter()
        self._val_every = max(1, int(trainer.val_check_batch or 1) // self.accumulate)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note the loss; at the end of a step, tell, check and perhaps stop."""
        assert isinstance(pl_module, AveragedTask)
        loss: Tensor = outputs["loss"].detach() * self.accumulate  # Lightning divides it
        self.finite.note(loss, trainer.global_step - 1)
        self._losses = loss if self._losses is None else self._losses + loss
        self._batches += 1
        self._samples += len(batch["image"]) * trainer.world_size
        if (batch_idx + 1) % self.accumulate:
            return
        is_log_step = trainer.global_step % self.every == 0 or trainer.global_step == self.total
        if is_log_step or (trainer.strategy.root_device.type == "cpu" and trainer.world_size == 1):
            self.finite.check(trainer, pl_module)
        if is_log_step:
            self._log(trainer, pl_module)
        self.listener.progress(trainer.global_step, self.total, 0)
        self._end_step(trainer, pl_module)

    def _end_step(self, trainer: L.Trainer, task: AveragedTask) -> None:
        """Save where that is due without a validation; stop if asked, but not before one."""
        is_last = trainer.global_step == self.total
        if is_last or trainer.global_step % self._val_every == 0:
            if trainer.enable_validation:
                # Lightning validates after every n-th batch; the last step is one in any case.
                trainer.val_check_batch = 1 if is_last else trainer.val_check_batch
                return
            self.finite.check_all(trainer, task)
            self.keep.write_last(trainer)
        self._stop_if_asked(trainer, task)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Note Lightning's count of images, to which a validation that is stopped goes back."""
        self._val_progress = copy.deepcopy(val_loop(trainer).batch_progress.state_dict())

    @override
    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop if asked to; on resuming, the validation is made anew."""
        assert isinstance(pl_module, AveragedTask)
        if trainer.world_size == 1:  # several have not the same number of images to agree after
            self._stop_if_asked(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say the score; stop if asked to."""
        assert isinstance(pl_module, AveragedTask)
        score = pl_module.val_scores.get(self.keep.monitor, float("nan"))
        best = self.keep.best_step == trainer.global_step
        self.listener.log(
            "info",
            f"step {trainer.global_step}: {self.keep.monitor} {score:.4f}"
            f"{' (best so far)' if best else ''}",
        )
        self._since = time.perf_counter()
        self._stop_if_asked(trainer, pl_module, saved=True)

    def _log(self, trainer: L.Trainer, task: AveragedTask) -> None:
        now = time.perf_counter()
        assert self._losses is not None
        row = {
            "loss": float(self._losses) / self._batches,
            "lr": task.learning_rate(trainer.global_step - 1),
            "samples_per_s": self._samples / max(1e-9, now - self._since),
        }
        for logger in trainer.loggers:
            logger.log_metrics(row, trainer.global_step)
            if now - self._saved > SAVE_EVERY_S:
                logger.save()
        if now - self._saved > SAVE_EVERY_S:
            self._saved = now
        self._losses, self._batches, self._samples, self._since = None, 0, 0, now

    def _stop_if_asked(
        self, trainer: L.Trainer, task: AveragedTask, *, saved: bool = False
    ) -> None:
        # Processes have to agree, which takes time.
        if trainer.world_size > 1 and not saved and trainer.global_step % AGREE_EVERY_STEPS:
            return
        asked: InterruptedRunError | None = None
        try:
            self.listener.check()
        except InterruptedRunError as error:
            asked = error
        if not trainer.strategy.reduce_boolean_decision(asked is not None, all=False):
            return
        if not saved:
            self.finite.check_all(trainer, task)
            self.due = bool(trainer.validating)
            if self.due:
                val_loop(trainer).batch_progress.load_state_dict(self._val_progress)
            self.keep.write_last(trainer)
        raise InterruptedRunError(
            f"stopped after step {trainer.global_step}. The checkpoint is kept: give --resume to "
            "go on."
        ) from asked


def val_loop(trainer: L.Trainer) -> Any:
    """Return the loop that validates during training."""
    return trainer.fit_loop.epoch_loop.val_loop


def validate(trainer: L.Trainer) -> None:
    """Validate from the first image on, as Lightning does after a step for which it is due."""
    trainer.validating = True
    val_loop(trainer).restarting = False
    val_loop(trainer).run()
    trainer.training = True
