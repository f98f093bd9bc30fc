"""Endless batches in a drawn order that is a function of seed and position, nothing else.

A run that goes on at step n sees what an uninterrupted one sees, whatever the number of workers;
and P processes together see what one process with P times the batch sees.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from geoseg.data.sample import IGNORE, Batch, Sample, Split, collate_samples
from geoseg.errors import GeosegError

# Position in the stream, and what the data set is asked for there.
Draw = tuple[int, Any]
FAILED = "error"
NOT_COUNTED = -1  # position of a sample that is read for nothing


def mix(*numbers: int) -> int:
    """Return a seed of 63 bits made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Stream(Sampler[list[Draw]]):
    """Batches without end; every sample comes once before one comes again.

    Args:
        split: of the training samples.
        batch_size: of one process.
        seed: of the order.
        rank: of this process.
        processes: that share the stream.

    Attributes:
        start: number of batches that are skipped.
    """

    def __init__(
        self, split: Split, batch_size: int, *, seed: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.start = 0

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the draws of a batch."""
        position = self.start * self.batch_size * self.processes + self.rank
        epoch, items = -1, self.items(0)
        size = len(items)
        while True:
            batch: list[Draw] = []
            for _ in range(self.batch_size):
                if position // size != epoch:
                    epoch = position // size
                    items = self.items(epoch)
                batch.append((position, items[position % size]))
                position += self.processes
            yield batch

    def items(self, epoch: int) -> Sequence[Any]:
        """Return what the data set is asked for in a pass, in order."""
        seed = mix(self.seed, epoch)
        sampler = self.split.sampler
        if sampler is None:
            generator = torch.Generator().manual_seed(seed)
            return torch.randperm(_length(self.split), generator=generator).tolist()
        set_epoch = getattr(sampler, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return list(sampler)


class SeededDataset(Dataset[Sample]):
    """Samples of a split whose random augmentation depends on their position alone.

    An error is handed on as a sample: raised in a worker, it would lose its class and carry a
    traceback in place of its sentence.

    Args:
        split: of the samples.
        restart: called with the position before each, so that its draws begin there.
    """

    def __init__(self, split: Split, restart: Callable[[int], None] | None = None) -> None:
        self.split = split
        self.restart = restart

    def __getitem__(self, draw: Draw) -> Sample:
        """Return the sample of a draw."""
        position, item = draw
        if self.restart is not None:
            self.restart(position)
        try:
            sample = self.split.dataset[item]
        except GeosegError as error:
            return {FAILED: error}
        if position == NOT_COUNTED and "mask" in sample:
            sample["mask"] = torch.full_like(sample["mask"], IGNORE)
        return sample


def collate(samples: Sequence[Sample]) -> Batch:
    """Return a batch, or the first error among its samples."""
    failed = next((s for s in samples if FAILED in s), None)
    return dict(failed) if failed is not None else collate_samples(samples)


def raise_failed(batch: Batch) -> None:
    """Raise the error that a batch carries, if any."""
    error = batch.get(FAILED)
    if isinstance(error, GeosegError):
        raise error


def split_items(split: Split) -> list[Any]:
    """Return what a split's data set is asked for to get every sample once, in order."""
    return list(range(_length(split))) if split.sampler is None else list(split.sampler)


def _length(split: Split) -> int:
    return len(split.dataset)  # type: ignore[arg-type]  # torch declares no length
