"""Reads the tiles of a strip, row by row, ahead of their use, each pixel decoded once.

A *tile row* is the band of pixels under one row of tiles, as wide as the strip. Its upper rows are
copied from the row before; the rest is read in segments of columns, one reader thread and one file
handle each, while the network still works on the row before.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from rasterio.io import DatasetReader

from geoseg.raster.gdal import network_environment
from geoseg.raster.grid import TileGrid
from geoseg.raster.info import RasterInfo
from geoseg.raster.reader import Selection, open_handle, read_window
from geoseg.raster.resample import AxisMap, FloatArray, resample_axis
from geoseg.types import ValidMask, Values, Window

# Narrower reads cost more in calls than they gain in parallel decoding.
MIN_SEGMENT_PX = 1024


@dataclass(frozen=True)
class Source:
    """A raster as it is read for one run.

    Attributes:
        info: its header.
        selection: bands and validity.
        crop: the part that is predicted, in the raster's pixels.
        rows: raster rows of the crop -> rows of the model's grid.
        cols: likewise for columns.
    """

    info: RasterInfo
    selection: Selection
    crop: Window
    rows: AxisMap
    cols: AxisMap

    @property
    def is_resampled(self) -> bool:
        """Whether the model's grid differs from the raster's."""
        return not (self.rows.is_identity and self.cols.is_identity)


@dataclass(frozen=True)
class TileRow:
    """Pixels under one row of tiles of a strip, on the model's grid.

    Attributes:
        index: which row of tiles.
        first_col: column of the model's grid that the arrays start at.
        values: (C, rows, cols); good until the next row of tiles is asked for.
        valid: True where usable, (rows, cols); None: everywhere.
        raster_row: first raster row (within the crop) of ``raster_valid``.
        raster_valid: validity on the raster's own grid, this row and the one before; None when the
            raster is not resampled.
    """

    index: int
    first_col: int
    values: Values
    valid: ValidMask | None
    raster_row: int
    raster_valid: ValidMask | None


class TileReader:
    """Serves tiles of one strip at a time, top to bottom; use as a context manager.

    Args:
        source: what is read.
        grid: where the tiles lie on the model's grid.
        threads: reader threads, each with its own handle.
    """

    def __init__(self, source: Source, grid: TileGrid, *, threads: int) -> None:
        self.source = source
        self.grid = grid
        name = source.info.name
        self._handles: list[DatasetReader] = []
        self._readers: list[ThreadPoolExecutor] = []
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="geoseg-tile-row")
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            for i in range(max(1, threads)):
                self._handles.append(open_handle(name))
                self._readers.append(reader_thread(i))
            stack.pop_all()
        self._cols = (0, 0)
        self._last_row = 0
        self._current: TileRow | None = None
        self._buffers: list[Values] = []
        self._next: Future[TileRow] | None = None

    def __enter__(self) -> "TileReader":
        """Return the reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads and close the handles."""
        self.close()

    def close(self) -> None:
        """Stop the threads and close the handles; what is being read is waited for."""
        self._loader.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.shutdown(wait=True, cancel_futures=True)
        for handle in self._handles:
            handle.close()
        self._handles.clear()

    def start(self, tile_rows: range, tile_cols: range) -> None:
        """Begin with the first of ``tile_rows``, over the columns of ``tile_cols``."""
        self._drain()
        self._cols = self.grid.cols.span(tile_cols[0])[0], self.grid.cols.span(tile_cols[-1])[1]
        self._last_row = tile_rows[-1]
        self._current = None
        self._next = self._loader.submit(self._load, tile_rows[0], None)

    def tile_row(self, row: int) -> TileRow:
        """Return a row of tiles, and start to read the one below it."""
        if self._current is None or self._current.index != row:
            assert self._next is not None, "start() comes first"
            self._current = self._next.result()
            self._next = None
            assert self._current.index == row, "rows are served in order"
            if row < self._last_row:
                self._next = self._loader.submit(self._load, row + 1, self._current)
        return self._current

    def read_tile(self, row: int, col: int) -> tuple[Values, ValidMask | None]:
        """Return a tile's values (C, tile, tile) and validity (tile, tile) or None.

        A raster smaller than the tile is extended by reflection, or by repetition where it has but
        one pixel to reflect.
        """
        band = self.tile_row(row)
        start, stop = self.grid.cols.span(col)
        part = slice(start - band.first_col, stop - band.first_col)
        tile_px = self.grid.cols.tile_px
        values = _extend(band.values[:, :, part], tile_px)
        valid = None if band.valid is None else _extend(band.valid[:, part], tile_px)
        return values, valid

    def _drain(self) -> None:
        if self._next is not None:
            self._next.cancel()
            with contextlib.suppress(BaseException):
                self._next.result()
        self._next = None

    def _load(self, row: int, before: TileRow | None) -> TileRow:
        """Read one row of tiles; called on the loader thread."""
        first, stop = self.grid.rows.span(row)
        values = self._buffer(row, stop - first)
        known = 0
        if before is not None:  # its last rows come again: they are copied, not read
            known = max(0, self.grid.rows.span(before.index)[1] - first)
            values[:, :known] = before.values[:, before.values.shape[1] - known :]
        jobs = []
        for i, (a, b) in enumerate(self._segments()):
            part = slice(a - self._cols[0], b - self._cols[0])
            into = values[:, known:, part]
            jobs.append((part, self._submit(i, (first + known, stop), (a, b), into)))
        parts = [(part, job.result()) for part, job in jobs]
        valid = _joined_valid(before, parts, known, (stop - first, values.shape[2]))
        raster_row, raster_valid = self._raster_valid(before, [segment for _, segment in parts])
        return TileRow(row, self._cols[0], values, valid, raster_row, raster_valid)

    def _buffer(self, row: int, rows: int) -> Values:
        """Return the memory of a row of tiles: two take turns, that in use and the next one."""
        width = self._cols[1] - self._cols[0]
        if not self._buffers or self._buffers[0].shape[2] < width:
            dtype = np.float32 if self.source.is_resampled else self.source.selection.dtype
            bands = len(self.source.selection.bands)
            shape = bands, self.grid.rows.tile_px, width
            self._buffers = []
            self._buffers = [np.empty(shape, dtype) for _ in range(2)]
        return self._buffers[row % 2][:, :rows, :width]

    def _segments(self) -> Iterator[tuple[int, int]]:
        """Yield column ranges of the model's grid, one per reader job, cut at the file's blocks."""
        cols = self.source.cols
        block_px = self.source.info.block_shape[1]
        blocks = max(1, -(-MIN_SEGMENT_PX // block_px))
        step = max(1, round(blocks * block_px / cols.ratio))
        crop_shift = round(self.source.crop.col / cols.ratio)
        start, last = self._cols
        while start < last:
            stop = min(last, (start + crop_shift) // step * step + step - crop_shift)
            yield start, stop
            start = stop

    def _submit(
        self, i: int, rows: tuple[int, int], cols: tuple[int, int], into: Values
    ) -> "Future[_Segment]":
        reader = i % len(self._readers)
        handle = self._handles[reader]
        return self._readers[reader].submit(_read_segment, handle, self.source, rows, cols, into)

    def _raster_valid(
        self, before: TileRow | None, parts: "list[_Segment]"
    ) -> tuple[int, ValidMask | None]:
        """Return the raster-grid validity of this tile row joined to that of the one before."""
        if not self.source.is_resampled:
            return 0, None
        first_row = parts[0].raster_row
        lo, hi = self.source.cols.support(*self._cols)
        new = np.ones((parts[0].raster_height, hi - lo), dtype=bool)
        for part in parts:
            if part.raster_valid is not None:
                at = part.raster_col - lo
                new[:, at : at + part.raster_valid.shape[1]] &= part.raster_valid
        if before is None or before.raster_valid is None:
            return first_row, new
        old_end = before.raster_row + len(before.raster_valid)
        keep_from = self.source.rows.support(*self.grid.rows.span(before.index))[0]
        old = before.raster_valid[max(0, keep_from - before.raster_row) :]
        row = max(before.raster_row, keep_from)
        return row, np.concatenate([old, new[max(0, old_end - first_row) :]])


def reader_thread(i: int) -> ThreadPoolExecutor:
    """Return a thread in whose reads GDAL's messages go to the log, not to stderr."""
    # A VRT opens its sources while it is read, so the network settings hold here too.
    return ThreadPoolExecutor(
        1, thread_name_prefix=f"geoseg-read-{i}", initializer=network_environment().__enter__
    )


@dataclass(frozen=True)
class _Segment:
    """Validity of a box of the model's grid, on it and on the raster's own."""

    valid: ValidMask | None
    raster_row: int = 0
    raster_col: int = 0
    raster_height: int = 0
    raster_valid: ValidMask | None = None


def _joined_valid(
    before: TileRow | None,
    parts: Sequence[tuple[slice, _Segment]],
    known: int,
    shape: tuple[int, int],
) -> ValidMask | None:
    """Return a row of tiles' validity; its first ``known`` rows are the last ones of ``before``."""
    above = None if before is None or known == 0 else before.valid
    if above is None and all(segment.valid is None for _, segment in parts):
        return None
    valid = np.ones(shape, dtype=bool)
    if above is not None:
        valid[:known] = above[-known:]
    for part, segment in parts:
        if segment.valid is not None:
            valid[known:, part] = segment.valid
    return None if valid.all() else valid


def _read_segment(
    handle: DatasetReader,
    source: Source,
    rows: tuple[int, int],
    cols: tuple[int, int],
    into: Values,
) -> _Segment:
    """Read a box of the model's grid ``into`` memory of its size; called on a reader thread."""
    row_lo, row_hi = source.rows.support(*rows)
    col_lo, col_hi = source.cols.support(*cols)
    crop = source.crop
    window = Window(crop.row + row_lo, crop.col + col_lo, row_hi - row_lo, col_hi - col_lo)
    if not source.is_resampled:
        return _Segment(read_window(handle, source.selection, window, into)[1])

    values, valid = read_window(handle, source.selection, window)
    if valid is not None and not valid.any():
        into[:] = 0
        nothing = np.zeros((rows[1] - rows[0], cols[1] - cols[0]), dtype=bool)
        return _Segment(nothing, row_lo, col_lo, row_hi - row_lo, valid)

    def resample(array: FloatArray) -> FloatArray:
        array = resample_axis(array, source.rows, *rows, axis=-2, offset=row_lo)
        return resample_axis(array, source.cols, *cols, axis=-1, offset=col_lo)

    shares = None
    physical = values.astype(np.float32)
    if not source.selection.may_be_invalid:
        resampled = resample(physical)
    else:
        # Only usable pixels count: a weighted mean over them, usable itself if they are half of it.
        # Also where this window has no gap: a pixel's bits must not depend on its window.
        known = np.ones(values.shape[1:], dtype=bool) if valid is None else valid
        weights = resample(known.astype(np.float32))
        sums = resample(np.where(known, physical, np.float32(0)))
        resampled = (sums / np.maximum(weights, np.float32(1e-6))).astype(np.float32)
        shares = None if valid is None else weights >= 0.5
    into[:] = resampled
    return _Segment(shares, row_lo, col_lo, row_hi - row_lo, valid)


def _extend(array: np.ndarray, tile_px: int) -> np.ndarray:
    """Return (..., H, W) grown to at least ``tile_px`` at the bottom and right by reflection."""
    for axis in (-2, -1):
        size = array.shape[axis]
        if size < tile_px:
            pad = [(0, 0)] * array.ndim
            pad[axis] = (0, tile_px - size)
            array = np.pad(array, pad, mode="reflect" if size > 1 else "edge")
    return array
