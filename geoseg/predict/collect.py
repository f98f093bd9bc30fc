"""Gathers what the mosaic finishes into full rows of the output, tile row by tile row."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.predict.blend import Finished
from geoseg.predict.plan import PredictPlan
from geoseg.predict.scores import Layers, ScoreKinds, classify, empty_layers, fill_nodata
from geoseg.raster.grid import Panel
from geoseg.raster.resample import resample_axis
from geoseg.raster.tiles import TileRow
from geoseg.segmenter import Segmenter
from geoseg.spec import ModelSpec
from geoseg.types import ValidMask, Window

# Resampled logits are brought back in pieces of this many columns, to bound memory.
COLUMNS_AT_ONCE = 1024

# Hears of blended logits on their way into the map: a window of the output, (views x K, H, W), and
# where they are valid (None: everywhere). They hold until it returns; it runs on the blending
# thread.
LogitsTap = Callable[[Window, Tensor, ValidMask | None], None]


@dataclass(frozen=True)
class OutputRows:
    """Finished rows of the output, as wide as the strip."""

    row: int
    layers: Layers  # (bands, rows, columns) each


class RowMemory:
    """Memory of the output under two rows of tiles, which take turns.

    One is written while the next is filled; they stay for the whole run, so that the heap is not
    torn by large blocks that come and go beside the network's own.
    """

    def __init__(self, spec: ModelSpec, kinds: ScoreKinds) -> None:
        self._spec = spec
        self._kinds = kinds
        self._memory: list[Layers] = [{}, {}]
        self._turn = 0

    def take(self, height: int, width: int) -> Layers:
        """Return layers as `empty_layers` makes them; good until the call after the next."""
        self._turn = 1 - self._turn
        pixels = height * width
        flat = self._memory[self._turn]
        if any(layer.shape[-1] < pixels for layer in flat.values()) or not flat:
            self._memory[self._turn] = flat = {}  # the old memory goes before the new comes
            self._memory[self._turn] = flat = empty_layers(self._spec, self._kinds, 1, pixels)
        return {
            name: layer.ravel()[: len(layer) * pixels].reshape(len(layer), height, width)
            for name, layer in flat.items()
        }


class Collector:
    """Turns finished logits of one strip into rows of the output.

    Args:
        plan: of the run.
        segmenter: its record names classes and temperature.
        panel: the first one of the strip that is made; rows of tiles above it are run for their
            overlap alone.
        memory: of the rows it returns.
        tap: hears of all logits that become pixels of the map.
    """

    def __init__(
        self,
        plan: PredictPlan,
        segmenter: Segmenter,
        panel: Panel,
        memory: RowMemory,
        tap: LogitsTap | None = None,
    ) -> None:
        self.plan = plan
        self.memory = memory
        self.spec = segmenter.spec
        self.tap = tap
        window = plan.window(panel)
        self.first_row = window.row
        self.cols = window.col, window.col_end
        self.model_cols = plan.strip_cols(panel)
        self._rows: Layers | None = None
        self._logits: NDArray[np.float32] | None = None
        self._first_row = 0

    def begin_row(self, tile_row: TileRow) -> None:
        """Start on the cells of a tile row."""
        self._tile_row = tile_row
        self._rows = None

    def put(self, finished: Finished) -> None:
        """Take a finished block of the current tile row."""
        if self.plan.source.is_resampled:
            self._keep(finished)
            return
        w = finished.window
        if w.row < self.first_row:
            return
        if self._rows is None:
            width = self.cols[1] - self.cols[0]
            self._rows = self.memory.take(w.height, width)
        part = slice(w.col - self.cols[0], w.col_end - self.cols[0])
        layers = {name: rows[:, :, part] for name, rows in self._rows.items()}
        valid = output_valid(self.plan, self._tile_row, w)
        if valid is not None and not valid.any():
            fill_nodata(layers, self.spec)
            return
        self._classify(w, finished.logits, valid, layers)

    def end_row(self) -> OutputRows | None:
        """Return the output rows that the current tile row has completed, if any."""
        bounds = self.plan.grid.rows.bounds
        row = self._tile_row.index
        if not self.plan.source.is_resampled:
            return None if self._rows is None else OutputRows(bounds[row], self._rows)
        back = self.plan.rows_back
        first = max(self.first_row, back.complete(bounds[row]))
        return self._bring_back(first, back.complete(bounds[row + 1]))

    def _keep(self, finished: Finished) -> None:
        """Add a block of logits on the model's grid to the rows that are kept."""
        w, first = finished.window, self.model_cols[0]
        if self._logits is None or w.row >= self._first_row + self._logits.shape[1]:
            self._grow(w, finished.logits.shape[0])
        assert self._logits is not None
        rows = slice(w.row - self._first_row, w.row_end - self._first_row)
        self._logits[:, rows, w.col - first : w.col_end - first] = finished.logits.cpu().numpy()

    def _grow(self, w: Window, planes: int) -> None:
        """Make room for the rows of ``w`` below those that later output rows still need."""
        width = self.model_cols[1] - self.model_cols[0]
        old = self._logits
        if old is None or w.row != self._first_row + old.shape[1]:
            self._first_row = w.row
            self._logits = np.zeros((planes, w.height, width), np.float32)
            return
        back = self.plan.rows_back
        next_row = back.complete(self.plan.grid.rows.bounds[self._tile_row.index])
        needed = back.support(next_row, next_row + 1)[0] if next_row < back.target else w.row
        keep = old[:, max(0, needed - self._first_row) :]
        self._first_row = w.row - keep.shape[1]
        self._logits = np.concatenate([keep, np.zeros((planes, w.height, width), np.float32)], 1)

    def _bring_back(self, row: int, row_end: int) -> OutputRows | None:
        """Resample the kept logits to output rows [row, row_end) and classify them."""
        if row >= row_end or self._logits is None:
            return None
        width = self.cols[1] - self.cols[0]
        layers = self.memory.take(row_end - row, width)
        for start in range(self.cols[0], self.cols[1], COLUMNS_AT_ONCE):
            stop = min(start + COLUMNS_AT_ONCE, self.cols[1])
            piece = slice(start - self.cols[0], stop - self.cols[0])
            pieces = {name: rows[:, :, piece] for name, rows in layers.items()}
            window = Window(row, start, row_end - row, stop - start)
            valid = raster_valid(self.plan, self._tile_row, window)
            if valid is not None and not valid.any():
                fill_nodata(pieces, self.spec)
                continue
            self._classify(window, self._resampled(window), valid, pieces)
        return OutputRows(row, layers)

    def _classify(
        self, window: Window, logits: Tensor, valid: ValidMask | None, layers: Layers
    ) -> None:
        classify(logits, valid, self.spec, self.plan.views, layers)
        if self.tap is not None:
            self.tap(window, logits, valid)

    def _resampled(self, window: Window) -> Tensor:
        """Return the kept logits on the raster's grid, (planes, height, width) of ``window``."""
        assert self._logits is not None
        rows, cols = self.plan.rows_back, self.plan.cols_back
        lo, hi = cols.support(window.col, window.col_end)
        part = self._logits[:, :, lo - self.model_cols[0] : hi - self.model_cols[0]]
        part = resample_axis(part, rows, window.row, window.row_end, axis=1, offset=self._first_row)
        part = resample_axis(part, cols, window.col, window.col_end, axis=2, offset=lo)
        return torch.from_numpy(np.ascontiguousarray(part))


def output_valid(plan: PredictPlan, tile_row: TileRow, window: Window) -> ValidMask | None:
    """Return where a window of an image that is not resampled gets an answer; None: everywhere."""
    valid = None
    if tile_row.valid is not None:
        top = window.row - plan.grid.rows.starts[tile_row.index]
        left = window.col - tile_row.first_col
        valid = tile_row.valid[top : top + window.height, left : left + window.width]
    return _within_area(plan, valid, window)


def raster_valid(plan: PredictPlan, tile_row: TileRow, window: Window) -> ValidMask | None:
    """Return the same for an image that is resampled; ``window`` is on the raster's own grid."""
    assert tile_row.raster_valid is not None
    top = window.row - tile_row.raster_row
    left = window.col - plan.source.cols.support(tile_row.first_col, tile_row.first_col + 1)[0]
    valid = tile_row.raster_valid[top : top + window.height, left : left + window.width]
    assert valid.shape == (window.height, window.width)
    return _within_area(plan, None if valid.all() else valid, window)


def is_needed(plan: PredictPlan, tile_row: TileRow, col: int) -> bool:
    """Return whether any pixel that gets an answer lies in the core of a tile."""
    rows = plan.grid.rows.core(tile_row.index)
    cols = plan.grid.cols.core(col)
    if not plan.source.is_resampled:
        if tile_row.valid is None and plan.stencil is None:
            return True
        window = Window(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
        valid = output_valid(plan, tile_row, window)
        return valid is None or bool(valid.any())
    top, bottom = plan.source.rows.support(*rows)
    left, right = plan.source.cols.support(*cols)
    top = max(top, tile_row.raster_row)
    valid = raster_valid(plan, tile_row, Window(top, left, bottom - top, right - left))
    return valid is None or bool(valid.any())


def _within_area(plan: PredictPlan, valid: ValidMask | None, window: Window) -> ValidMask | None:
    if plan.stencil is None:
        return valid
    inside = plan.stencil.mask(window)
    return inside if valid is None else inside & valid
