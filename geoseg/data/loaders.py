"""Loaders of any run: endless training batches from the trainer's step on, the others once."""

import os
from collections.abc import Callable
from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from geoseg.data.sample import Batch, Split
from geoseg.data.stream import (
    NOT_COUNTED,
    Draw,
    SeededDataset,
    Stream,
    collate,
    raise_failed,
    split_items,
)
from geoseg.data.workers import leave_signals

MOST_WORKERS = 8


class StreamDataModule(L.LightningDataModule):
    """Loaders of a run, in every process the same.

    Args:
        train_split: of the training samples.
        val_split: of the validation; None: there is none.
        batch_size: of one process, in training.
        val_batch_size: in validation.
        seed: of the order.
        accumulate: batches per step.
        workers: processes that read; None: one per core up to 8.
        restart: called with the position before each training sample, so that its draws begin
            there.
    """

    def __init__(
        self,
        train_split: Split,
        val_split: Split | None,
        *,
        batch_size: int,
        val_batch_size: int = 1,
        seed: int,
        accumulate: int = 1,
        workers: int | None = None,
        restart: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self.train_split = train_split
        self.val_split = val_split
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.seed = seed
        self.accumulate = accumulate
        self.workers = workers
        self.restart = restart

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return endless batches, from the trainer's step on."""
        rank, processes, done = 0, 1, 0
        if self.trainer is not None:
            rank, processes = self.trainer.global_rank, self.trainer.world_size
            done = self.trainer.global_step * self.accumulate
        stream = Stream(
            self.train_split, self.batch_size, seed=self.seed, rank=rank, processes=processes
        )
        stream.start = done
        dataset = SeededDataset(self.train_split, self.restart)
        return DataLoader(dataset, batch_sampler=stream, **self._loading())

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return this process's share of the validation samples."""
        assert self.val_split is not None
        return self.each_once(self.val_split, self.val_batch_size)

    def each_once(self, split: Split, batch_size: int = 1) -> DataLoader[Batch]:
        """Return this process's share of a split's samples, in order."""
        rank = self.trainer.global_rank if self.trainer is not None else 0
        processes = self.trainer.world_size if self.trainer is not None else 1
        items = split_items(split)
        # A process without any would leave the others waiting for its counts.
        draws: list[Draw] = list(enumerate(items))[rank::processes] or [(NOT_COUNTED, items[0])]
        dataset = SeededDataset(split)
        return DataLoader(dataset, batch_size=batch_size, sampler=draws, **self._loading())

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Raise in this process what failed in a worker."""
        raise_failed(batch)
        return batch

    def _loading(self) -> dict[str, Any]:
        workers = self.workers
        if workers is None:
            workers = min(MOST_WORKERS, usable_cores())
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "num_workers": workers,
            "collate_fn": collate,
            "persistent_workers": workers > 0,
            "worker_init_fn": leave_signals,
            "pin_memory": on_cuda,
            "prefetch_factor": 4 if workers > 0 else None,
        }


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
