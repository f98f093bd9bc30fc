"""Separable resampling between the raster's own grid and the one the model runs on.

Both grids share their outer edges. Weights are a triangle as wide as the coarser of the two pixels,
so that nothing is shifted and nothing aliases. A value depends on its own position only, never on
the window it was computed in, which keeps maps independent of tiles, panels and shards; hence plain
element-wise sums and no matrix product.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class AxisMap:
    """Maps pixels of one axis from a grid of ``source`` pixels to one of ``target`` pixels."""

    source: int
    target: int

    @property
    def ratio(self) -> float:
        """Source pixels per target pixel."""
        return self.source / self.target

    @property
    def is_identity(self) -> bool:
        """Whether the grids are one."""
        return self.source == self.target

    def support(self, first: int, stop: int) -> tuple[int, int]:
        """Return the source pixels [lo, hi) that target pixels [first, stop) are made of."""
        if self.is_identity:
            return first, stop
        radius = max(1.0, self.ratio)
        low = math.ceil((first + 0.5) * self.ratio - 0.5 - radius)
        high = math.floor((stop - 0.5) * self.ratio - 0.5 + radius) + 1
        return max(0, low), min(self.source, high)

    def complete(self, source_stop: int) -> int:
        """Return how many target pixels are complete once source pixels before a stop are known."""
        if source_stop >= self.source:
            return self.target
        # support() ends at floor(centre + radius) + 1, which must not pass source_stop.
        radius = max(1.0, self.ratio)
        count = max(0, math.floor((source_stop + 0.5 - radius) / self.ratio + 0.5) + 1)
        while count > 0 and self.support(count - 1, count)[1] > source_stop:
            count -= 1
        return count

    def taps(self, first: int, stop: int) -> tuple[NDArray[np.intp], FloatArray]:
        """Return source indexes and weights (stop - first, taps) of target pixels."""
        radius = max(1.0, self.ratio)
        centres = (np.arange(first, stop) + 0.5) * self.ratio - 0.5
        count = 2 * math.ceil(radius) + 1
        lowest = np.ceil(centres - radius).astype(np.intp)
        index = lowest[:, None] + np.arange(count)  # (targets, taps)
        weight = np.maximum(0.0, 1.0 - np.abs(index - centres[:, None]) / radius)
        weight[(index < 0) | (index >= self.source)] = 0.0
        weight /= weight.sum(axis=1, keepdims=True)
        return index.clip(0, self.source - 1), weight.astype(np.float32)


def resample_axis(
    values: FloatArray, axis_map: AxisMap, first: int, stop: int, *, axis: int, offset: int
) -> FloatArray:
    """Return target pixels [first, stop) along one axis.

    Args:
        values: source values whose ``axis`` starts at source pixel ``offset``.
        axis_map: source to target grid.
        first: first target pixel.
        stop: target pixel after the last.
        axis: which axis of ``values``.
        offset: source pixel that ``values`` starts at.
    """
    if axis_map.is_identity:
        return np.take(values, range(first - offset, stop - offset), axis=axis)
    index, weight = axis_map.taps(first, stop)
    # Taps with no weight may lie outside of what was read.
    index = (index - offset).clip(0, values.shape[axis] - 1)
    shape = [1] * values.ndim
    shape[axis] = stop - first
    total = None
    for tap in range(index.shape[1]):
        part = np.take(values, index[:, tap], axis=axis) * weight[:, tap].reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total
