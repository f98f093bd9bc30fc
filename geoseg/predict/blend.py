"""Blends overlapping tiles of logits, holding no more than one row of tiles' overlap.

Weights along an axis rise and fall as a squared sine over each overlap and are divided by their sum
beforehand, so that a pixel's weights sum to one and need no division later. They are never zero
where a tile counts. A pixel's sum runs over its tiles row by row, left to right, always: the result
does not depend on panels, strips, threads or interruptions.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg import _native
from geoseg.raster.grid import Axis, TileGrid
from geoseg.types import Window

# The window's floor: a tile's outermost counting pixel keeps this share before normalisation.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Finished:
    """Blended logits that no further tile touches.

    Attributes:
        window: where, on the model's grid.
        logits: (planes, H, W), float32; valid until the next tile is added.
    """

    window: Window
    logits: Tensor


def blend_weights(axis: Axis) -> list[NDArray[np.float32]]:
    """Return each tile's weights along an axis, (tile_px,); at every pixel they sum to one."""
    raw = []
    total = np.zeros(axis.length_px)
    for i in range(len(axis)):
        start, stop = axis.span(i)
        window = _window(axis, i)
        raw.append(window)
        total[start:stop] += window[: stop - start]
    weights = []
    for i, window in enumerate(raw):
        start, stop = axis.span(i)
        normalised = np.zeros(axis.tile_px, np.float32)
        normalised[: stop - start] = window[: stop - start] / total[start:stop]
        weights.append(normalised)
    return weights


def _window(axis: Axis, i: int) -> NDArray[np.float64]:
    """Return tile ``i``'s window before normalisation, (tile_px,); 0 in the halo."""
    start = axis.starts[i]
    first, stop = axis.core(i)
    positions = start + np.arange(axis.tile_px) + 0.5
    window = np.ones(axis.tile_px)
    if i > 0:
        window *= _ramp(positions - first, axis.core(i - 1)[1] - first)
    if i < len(axis) - 1:
        window *= _ramp(stop - positions, stop - axis.core(i + 1)[0])
    window[(positions < first) | (positions > stop)] = 0.0
    return window


def _ramp(distance_px: NDArray[np.floating[Any]], overlap_px: int) -> NDArray[np.float64]:
    """Return a squared sine from the edge of a core to the end of its overlap, then one."""
    if overlap_px <= 0:
        return np.ones_like(distance_px)
    share = np.clip(distance_px / overlap_px, 0.0, 1.0)
    return np.maximum(np.sin(share * (math.pi / 2)) ** 2, LEAST_WEIGHT)


class Mosaic:
    """Sums the tiles of a strip, left to right and top to bottom.

    Args:
        grid: where tiles lie.
        planes: views x classes.
        tile_cols: tile columns of the strip.
        cols: columns [first, stop) of the model's grid that the strip has to finish.
        device: where sums are kept.
    """

    def __init__(
        self,
        grid: TileGrid,
        planes: int,
        tile_cols: range,
        cols: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.grid = grid
        self.tile_cols = tile_cols
        self._cols = cols
        self._weights_y = [torch.from_numpy(w).to(device) for w in blend_weights(grid.rows)]
        self._weights_x = [torch.from_numpy(w).to(device) for w in blend_weights(grid.cols)]
        tile = grid.rows.tile_px
        self._origin = grid.cols.starts[tile_cols[0]]
        width = grid.cols.starts[tile_cols[-1]] + tile - self._origin
        # Two tiles' sums: the current one and the one to its left, whose overlap moves on.
        self._sums = torch.zeros((2, planes, tile, tile), device=device)
        self._carry = torch.zeros((planes, grid.rows.most_shared_px, width), device=device)
        self._carried = 0
        self._row = -1

    def start_row(self, row: int) -> None:
        """Go on with tile row ``row``, which follows the one before or starts afresh."""
        rows = self.grid.rows
        follows = row == self._row + 1 and self._row >= 0
        self._carried = max(0, rows.span(self._row)[1] - rows.starts[row]) if follows else 0
        self._row = row

    def add(self, col: int, logits: Tensor | None) -> Finished | None:
        """Add a tile and return what it completes within the strip.

        Args:
            col: tile column, each of the strip's in turn.
            logits: (planes, tile, tile); None for a tile that no valid pixel needs.
        """
        sums = self._sums[col % 2]
        left, carry = self._before(col)
        blend(
            sums,
            left,
            carry,
            logits=logits,
            weight_y=self._weights_y[self._row],
            weight_x=self._weights_x[col],
        )
        self._keep_overlap(col, sums)
        return self._finished(col, sums)

    def _before(self, col: int) -> tuple[Tensor, Tensor]:
        """Return the sums that a tile starts from, of its left neighbour and of the row above."""
        tile = self.grid.rows.tile_px
        shift = tile
        if col != self.tile_cols[0]:
            shift = min(tile, self.grid.cols.starts[col] - self.grid.cols.starts[col - 1])
        at = self.grid.cols.starts[col] - self._origin
        left = self._sums[(col + 1) % 2][:, :, shift:]
        return left, self._carry[:, : self._carried, at : at + tile]

    def _keep_overlap(self, col: int, sums: Tensor) -> None:
        """Keep the rows that the next row of tiles adds to, of columns complete in this row."""
        rows, cols = self.grid.rows, self.grid.cols
        if self._row + 1 >= len(rows):
            return
        shift = rows.starts[self._row + 1] - rows.starts[self._row]
        last = col == self.tile_cols[-1]
        width = rows.tile_px if last else cols.starts[col + 1] - cols.starts[col]
        kept = sums[:, shift:, :width]
        at = cols.starts[col] - self._origin
        _copy(self._carry[:, : kept.shape[1], at : at + width], kept)

    def _finished(self, col: int, sums: Tensor) -> Finished | None:
        row_bounds, col_bounds = self.grid.rows.bounds, self.grid.cols.bounds
        top, bottom = row_bounds[self._row], row_bounds[self._row + 1]
        left = max(col_bounds[col], self._cols[0])
        right = min(col_bounds[col + 1], self._cols[1])
        if left >= right:
            return None
        y, x = self.grid.rows.starts[self._row], self.grid.cols.starts[col]
        logits = sums[:, top - y : bottom - y, left - x : right - x]
        return Finished(Window(top, left, bottom - top, right - left), logits)


def blend(
    sums: Tensor,
    left: Tensor,
    carry: Tensor,
    *,
    logits: Tensor | None,
    weight_y: Tensor,
    weight_x: Tensor,
) -> None:
    """Write a tile's sums: what it starts from, plus its weighted logits.

    Args:
        sums: out, (planes, H, W).
        left: sums of the left neighbour over the shared columns, (planes, H, shared columns).
        carry: sums of the tile row above over the shared rows, (planes, shared rows, W).
        logits: (planes, H, W); None: nothing to add.
        weight_y: (H,).
        weight_x: (W,).
    """
    if sums.device.type == "cpu" and _native.library() is not None:
        _native.blend(
            sums.numpy(),
            left.numpy(),
            carry.numpy(),
            logits=None if logits is None else logits.numpy(),
            weight_y=weight_y.numpy(),
            weight_x=weight_x.numpy(),
        )
    else:
        blend_reference(sums, left, carry, logits=logits, weight_y=weight_y, weight_x=weight_x)


def blend_reference(
    sums: Tensor,
    left: Tensor,
    carry: Tensor,
    *,
    logits: Tensor | None,
    weight_y: Tensor,
    weight_x: Tensor,
) -> None:
    """Do the same: the specification of the kernel, and what runs on other devices."""
    known, carried = left.shape[2], carry.shape[1]
    sums[:, :, :known] = left
    sums[:, :carried, known:] = carry[:, :, known:]
    sums[:, carried:, known:] = 0.0
    if logits is not None:
        sums += (weight_y[:, None] * weight_x[None, :]) * logits


def _copy(to: Tensor, source: Tensor) -> None:
    """Copy on one thread: torch's own threads are busy with the network."""
    if to.device.type == "cpu":
        to.numpy()[:] = source.numpy()
    else:
        to.copy_(source)
