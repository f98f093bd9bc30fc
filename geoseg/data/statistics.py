"""Means, deviations and class counts of a split, in one pass over its samples."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from geoseg.data.sample import IGNORE, Sample, Split
from geoseg.data.stream import split_items
from geoseg.data.workers import leave_signals
from geoseg.errors import InputError


def band_statistics(
    split: Split, max_samples: int | None = None, *, workers: int = 0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each band over the valid pixels.

    Args:
        split: built without augmentation.
        max_samples: samples to look at, spread over the split; None: all.
        workers: processes that read.

    Raises:
        InputError: no valid pixel at all, or a band that is the same everywhere.
    """
    total = Moments()
    for sample in iterate(split, max_samples, workers=workers):
        total = total.merged(moments(sample["image"].numpy(), sample["valid"].numpy()))
    _check(total, split.bands)
    return total.mean, total.std


@dataclass(frozen=True)
class Moments:
    """Pixels, mean and sum of squared deviations of each band; sets can be merged exactly.

    Attributes:
        count: pixels.
        mean: per band; empty where there are no pixels.
        m2: per band, sum of squared deviations from the mean.
    """

    count: int = 0
    mean: tuple[float, ...] = ()
    m2: tuple[float, ...] = ()

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each band."""
        return tuple(math.sqrt(value / self.count) for value in self.m2)

    def merged(self, other: "Moments") -> "Moments":
        """Return the moments of both sets together (Chan, Golub and LeVeque 1983)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        mean, own = np.array(self.mean), np.array(self.m2)
        delta = np.array(other.mean) - mean
        m2 = own + np.array(other.m2) + delta**2 * (self.count * other.count / count)
        mean = mean + delta * (other.count / count)
        return Moments(count, tuple(mean.tolist()), tuple(m2.tolist()))


def moments(values: NDArray[np.generic], valid: NDArray[np.bool_]) -> Moments:
    """Return the moments of an image's valid pixels.

    Args:
        values: (C, H, W).
        valid: (H, W).
    """
    kept = values.reshape(len(values), -1) if valid.all() else values[:, valid]
    if not kept.size:
        return Moments()
    # Band by band: float64 copies of all of them need not be there at once.
    found = [(band.mean(), band.var() * band.size) for band in (b.astype(np.float64) for b in kept)]
    mean, m2 = zip(*found, strict=True)
    return Moments(kept.shape[1], tuple(map(float, mean)), tuple(map(float, m2)))


def class_counts(
    split: Split, max_samples: int | None = None, *, workers: int = 0
) -> NDArray[np.int64]:
    """Return the labelled pixels of each class, int64 (K,).

    Args:
        split: built without augmentation.
        max_samples: samples to look at, spread over the split; None: all.
        workers: processes that read.
    """
    counts = np.zeros(len(split.classes), np.int64)
    for sample in iterate(split, max_samples, workers=workers):
        counts += count_classes(sample["mask"].numpy(), len(counts))
    return counts


def count_classes(mask: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """Return the pixels of each channel of a mask, ignored ones left out."""
    every = np.bincount(mask.ravel(), minlength=IGNORE + 1)
    return every[:num_classes].astype(np.int64)


def iterate(split: Split, max_samples: int | None = None, *, workers: int = 0) -> Iterator[Sample]:
    """Yield the samples of a split one by one; of a sampler's patches one pass.

    Args:
        split: built without augmentation.
        max_samples: as many, spread evenly; None: all.
        workers: processes that read.
    """
    items = list(split_items(split))
    if max_samples is not None and max_samples < len(items):
        chosen = np.linspace(0, len(items) - 1, max_samples).round().astype(int)
        items = [items[i] for i in chosen]
    # The process's own random numbers stay as they are: the loader draws a seed for its workers.
    generator = torch.Generator().manual_seed(0)
    yield from DataLoader(
        split.dataset,
        batch_size=None,
        sampler=items,
        num_workers=workers,
        generator=generator,
        worker_init_fn=leave_signals,
    )


def _check(total: Moments, bands: Sequence[str]) -> None:
    if not total.count:
        raise InputError(
            "data: the training images hold no valid pixel, so mean and std cannot be computed. "
            "Check nodata and alpha, or give data.mean and data.std."
        )
    constant = [band for band, value in zip(bands, total.m2, strict=True) if not value > 0]
    if constant:
        raise InputError(
            f"data: band {constant[0]!r} has the same value in every valid pixel, or one that is "
            "no number. Leave it out by data.bands, or give data.mean and data.std."
        )
