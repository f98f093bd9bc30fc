"""Reads the tiles of a strip, row by row, ahead of their use.

A *tile row* is the band of pixels under one row of tiles, as wide as the strip. It is read in
*segments* of columns, one reader thread and one file handle each, a few segments ahead of the tile
that the network is at. A segment holds only the rows that no tile above has; those that two rows of
tiles share are kept from the upper one. So memory depends on the strip's width by the shared rows
alone.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from geoseg.raster.grid import TileGrid
from geoseg.raster.reader import open_handle
from geoseg.raster.segments import (
    Source,
    Validity,
    read_segment,
    reader_thread,
    segment_px,
    segments_ahead,
)
from geoseg.types import ValidMask, Values


@dataclass
class TileRow:
    """Validity of the pixels under one row of tiles of a strip.

    It grows to the right: columns count once the tile above them has been asked for.

    Attributes:
        index: which row of tiles.
        first_col: column of the model's grid that ``valid`` starts at.
        valid: True where usable, (rows, cols) on the model's grid; None: everywhere so far.
        raster_row: first raster row (within the crop) of ``raster_valid``.
        raster_valid: validity on the raster's own grid, of this row of tiles and of what is still
            needed of the one before; None when the raster is not resampled.
    """

    index: int
    first_col: int
    valid: ValidMask | None
    raster_row: int
    raster_valid: ValidMask | None


@dataclass(frozen=True)
class _Segment:
    """New pixels of a row of tiles, in columns [start, stop) of the model's grid."""

    row: int
    start: int
    stop: int
    memory: NDArray[Any]  # flat, from the pool
    values: Values  # in that memory, (C, new rows, columns)
    job: "Future[Validity]"


class TileReader:
    """Serves tiles of one strip at a time, top to bottom; use as a context manager.

    Args:
        source: what is read.
        grid: where the tiles lie on the model's grid.
        threads: reader threads, each with its own handle.
        batch: tiles that are run together, which are read ahead.
    """

    def __init__(self, source: Source, grid: TileGrid, *, threads: int, batch: int = 1) -> None:
        self.source = source
        self.grid = grid
        self._dtype = np.dtype(np.float32 if source.is_resampled else source.selection.dtype)
        self._step = segment_px(source)
        self._batch = batch
        self._ahead = 1
        self._handles: list[DatasetReader] = []
        self._readers: list[ThreadPoolExecutor] = []
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            for i in range(max(1, threads)):
                self._handles.append(open_handle(source.info.name))
                self._readers.append(reader_thread(i))
            stack.pop_all()
        self._cols = (0, 0)
        self._first_row = self._last_row = 0
        self._todo: Iterator[tuple[int, int, int, int]] = iter(())
        self._coming: deque[_Segment] = deque()
        self._here: deque[_Segment] = deque()
        self._pool: list[NDArray[Any]] = []
        self._shared = self._empty(0, 0)
        self._tile_row: TileRow | None = None

    def __enter__(self) -> "TileReader":
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads and close the handles."""
        self.close()

    def close(self) -> None:
        """Stop the threads and close the handles; what is being read is waited for."""
        for reader in self._readers:
            reader.shutdown(wait=True, cancel_futures=True)
        for handle in self._handles:
            handle.close()
        self._handles.clear()

    def start(self, tile_rows: range, tile_cols: range) -> None:
        """Begin with the first of ``tile_rows``, over the columns of ``tile_cols``."""
        self._drain()
        self._cols = self.grid.cols.span(tile_cols[0])[0], self.grid.cols.span(tile_cols[-1])[1]
        self._first_row, self._last_row = tile_rows[0], tile_rows[-1]
        self._tile_row = None
        rows = max(self._shared_below(row) for row in tile_rows)
        width = self._cols[1] - self._cols[0]
        if self._shared.shape[1] < rows or self._shared.shape[2] < width:
            self._shared = self._empty(0, 0)  # the old memory goes before the new comes
            self._shared = self._empty(rows, width)
        self._ahead = segments_ahead(
            self.source, self.grid, width, threads=len(self._readers), batch=self._batch
        )
        self._todo = self._segments(tile_rows)
        self._read_ahead()

    def advance(self, row: int, col: int) -> TileRow:
        """Wait for the pixels under a tile; those that only tiles before it need are forgotten.

        Tiles come row by row, each row from left to right to its end.

        Raises:
            RasterReadError: the file is damaged or cut short there.
        """
        if self._tile_row is None or self._tile_row.index != row:
            self._forget(self._cols[1])
            self._tile_row = self._begin_row(row)
        start, stop = self.grid.cols.span(col)
        self._forget(start)
        while not self._here or self._here[-1].stop < stop:
            segment = self._coming.popleft()
            assert segment.row == row, "tiles are served in order"
            self._take(self._tile_row, segment)
            self._here.append(segment)
            self._read_ahead()
        return self._tile_row

    def read_tile(self, row: int, col: int) -> tuple[Values, ValidMask | None]:
        """Return a tile's values (C, tile, tile) and validity (tile, tile) or None.

        A raster smaller than the tile is extended by reflection, or by repetition where it has but
        one pixel to reflect. The values are the caller's own.
        """
        tile_row = self.advance(row, col)
        start, stop = self.grid.cols.span(col)
        top, bottom = self.grid.rows.span(row)
        known = self._known(row)
        values = self._empty(bottom - top, stop - start)
        origin = self._cols[0]
        values[:, :known] = self._shared[:, :known, start - origin : stop - origin]
        for segment in self._here:
            a, b = max(start, segment.start), min(stop, segment.stop)
            if a < b:
                part = segment.values[:, :, a - segment.start : b - segment.start]
                values[:, known:, a - start : b - start] = part
        tile_px = self.grid.cols.tile_px
        valid = tile_row.valid
        if valid is not None:
            valid = _extend(valid[:, start - origin : stop - origin], tile_px)
        return _extend(values, tile_px), valid

    def _drain(self) -> None:
        """Forget the strip before; jobs that have begun are waited for."""
        for segment in self._coming:
            segment.job.cancel()
        for segment in self._coming:
            with contextlib.suppress(Exception, CancelledError):
                segment.job.result()
        self._pool += [segment.memory for segment in (*self._coming, *self._here)]
        self._coming.clear()
        self._here.clear()

    def _empty(self, rows: int, cols: int) -> Values:
        return np.empty((len(self.source.selection.bands), rows, cols), self._dtype)

    def _shared_below(self, row: int) -> int:
        """Return how many rows the row of tiles below ``row`` has in common with it."""
        if row == self._last_row:
            return 0
        return max(0, self.grid.rows.span(row)[1] - self.grid.rows.starts[row + 1])

    def _known(self, row: int) -> int:
        """Return how many rows are there from the row of tiles above, once one has been run."""
        return 0 if row == self._first_row else self._shared_below(row - 1)

    def _segments(self, tile_rows: range) -> Iterator[tuple[int, int, int, int]]:
        """Yield row of tiles, number, first and last column of each segment, in reading order.

        Columns are cut at the file's blocks. A column's segments have one number and so one handle,
        whose cache may still hold the block that two of them share.
        """
        crop_shift = round(self.source.crop.col / self.source.cols.ratio)
        for row in tile_rows:
            start, last = self._cols
            i = 0
            while start < last:
                aligned = (start + crop_shift) // self._step * self._step + self._step - crop_shift
                stop = min(last, aligned)
                yield row, i, start, stop
                start, i = stop, i + 1

    def _read_ahead(self) -> None:
        """Keep the readers busy, so far ahead and no further."""
        while len(self._coming) < self._ahead:
            following = next(self._todo, None)
            if following is None:
                return
            row, i, start, stop = following
            top, bottom = self.grid.rows.span(row)
            top += self._known(row)
            memory, values = self._memory(bottom - top, stop - start)
            reader = i % len(self._readers)
            job = self._readers[reader].submit(
                read_segment,
                self._handles[reader],
                self.source,
                (top, bottom),
                (start, stop),
                values,
            )
            self._coming.append(_Segment(row, start, stop, memory, values, job))

    def _memory(self, rows: int, cols: int) -> tuple[NDArray[Any], Values]:
        """Return memory of the pool, or new memory, and an array (C, rows, cols) in it."""
        shape = len(self.source.selection.bands), rows, cols
        size = int(np.prod(shape))
        fits = [i for i, memory in enumerate(self._pool) if memory.size >= size]
        if fits:
            memory = self._pool.pop(fits[0])
        else:
            self._pool = self._pool[1:]  # what is too small makes room
            memory = np.empty(size, self._dtype)
        return memory, memory[:size].reshape(shape)

    def _begin_row(self, row: int) -> TileRow:
        """Return a row of tiles of which only the rows shared with the one above are known."""
        above = self._tile_row
        top, bottom = self.grid.rows.span(row)
        known = self._known(row)
        valid = None
        if above is not None and above.valid is not None and known:
            shared = above.valid[-known:]
            if not shared.all():
                valid = np.ones((bottom - top, above.valid.shape[1]), dtype=bool)
                valid[:known] = shared
        if not self.source.is_resampled:
            return TileRow(row, self._cols[0], valid, 0, None)
        first, end = self.source.rows.support(top + known, bottom)
        lo, hi = self.source.cols.support(*self._cols)
        keep_from = first
        if above is not None:
            needed = self.source.rows.support(*self.grid.rows.span(above.index))[0]
            keep_from = min(first, max(above.raster_row, needed))
        raster_valid = np.ones((end - keep_from, hi - lo), dtype=bool)
        if above is not None and above.raster_valid is not None:
            old = above.raster_valid[keep_from - above.raster_row :]
            raster_valid[: len(old)] = old
        return TileRow(row, self._cols[0], valid, keep_from, raster_valid)

    def _take(self, tile_row: TileRow, segment: _Segment) -> None:
        """Enter a segment's validity; waits until it is read."""
        found = segment.job.result()
        if found.valid is not None:
            new = segment.values.shape[1]
            if tile_row.valid is None:
                top, bottom = self.grid.rows.span(tile_row.index)
                width = self._cols[1] - self._cols[0]
                # Other threads read it: it appears when it is whole.
                valid = np.ones((bottom - top, width), dtype=bool)
            else:
                valid = tile_row.valid
            part = slice(segment.start - self._cols[0], segment.stop - self._cols[0])
            valid[valid.shape[0] - new :, part] = found.valid
            tile_row.valid = valid
        if tile_row.raster_valid is not None and found.raster_valid is not None:
            box = found.raster_valid
            row = found.raster_row - tile_row.raster_row
            col = found.raster_col - self.source.cols.support(*self._cols)[0]
            tile_row.raster_valid[row : row + box.shape[0], col : col + box.shape[1]] &= box

    def _forget(self, col: int) -> None:
        """Drop the segments that end before a column; keep the rows that the next tiles share."""
        while self._here and self._here[0].stop <= col:
            segment = self._here.popleft()
            self._pool.append(segment.memory)
            below = self._shared_below(segment.row)
            if below == 0:
                continue
            new = segment.values.shape[1]
            part = slice(segment.start - self._cols[0], segment.stop - self._cols[0])
            shared = self._shared[:, :, part]
            again = max(0, below - new)  # shared by three rows of tiles or more
            if again:
                known = self._known(segment.row)
                shared[:, :again] = shared[:, known - again : known].copy()
            shared[:, again:below] = segment.values[:, new - (below - again) :]


def _extend(array: np.ndarray, tile_px: int) -> np.ndarray:
    """Return (..., H, W) grown to at least ``tile_px`` at the bottom and right by reflection."""
    for axis in (-2, -1):
        size = array.shape[axis]
        if size < tile_px:
            pad = [(0, 0)] * array.ndim
            pad[axis] = (0, tile_px - size)
            array = np.pad(array, pad, mode="reflect" if size > 1 else "edge")
    return array
