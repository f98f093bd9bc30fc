"""Reads boxes of the model's grid from a raster: what a reader thread does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from rasterio.io import DatasetReader

from geoseg.raster.gdal import network_environment
from geoseg.raster.grid import TileGrid
from geoseg.raster.info import RasterInfo
from geoseg.raster.reader import Selection, read_window
from geoseg.raster.resample import AxisMap, FloatArray, resample_axis
from geoseg.types import ValidMask, Values, Window

# Narrower reads cost more in calls than they gain in parallel decoding.
MIN_SEGMENT_PX = 1024
# Read ahead of the network for each thread, so that it has work while another segment is slow.
AHEAD_PX = 2 * MIN_SEGMENT_PX


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


def segment_px(source: Source) -> int:
    """Return the columns of the model's grid that one job reads: whole blocks of the file."""
    block_px = source.info.block_shape[1]
    blocks = max(1, -(-MIN_SEGMENT_PX // block_px))
    return max(1, round(blocks * block_px / source.cols.ratio))


def segments_ahead(
    source: Source, grid: TileGrid, width_px: int, *, threads: int, batch: int
) -> int:
    """Return how many segments of a strip are read ahead of the tiles that are run.

    All threads are kept busy and a batch is covered, but no more than a row of tiles is ahead; of
    files whose blocks are as wide as they are, that is one segment.
    """
    ahead_px = max(threads * AHEAD_PX, batch * grid.cols.tile_px)
    return max(1, -(-min(ahead_px, width_px) // segment_px(source)))


def reader_bytes(source: Source, grid: TileGrid, width_px: int, *, threads: int, batch: int) -> int:
    """Return the memory that reading a strip of ``width_px`` columns takes at most."""
    item, bands = np.dtype(source.selection.dtype).itemsize, len(source.selection.bands)
    step, tile = segment_px(source), grid.rows.tile_px
    segments = segments_ahead(source, grid, width_px, threads=threads, batch=batch)
    segments += -(-tile // step) + (1 if step < width_px else 0)  # those under a tile
    pixels = min(segments * step, 2 * width_px) * tile + width_px * grid.rows.most_shared_px
    valid = 2 * width_px * tile if source.selection.may_be_invalid else 0
    if not source.is_resampled:
        return bands * item * pixels + valid
    # Each thread holds its part of the raster as read, as float32 and without its gaps, and that
    # part resampled along rows, with what resampling makes of it.
    columns = min(step, width_px) * source.cols.ratio
    rows = tile * source.rows.ratio
    at_work = threads * bands * columns * (rows * (item + 8) + tile * 12)
    # Validity of this row of tiles and the one before it, on the raster's grid and on the model's.
    on_both = 2 * width_px * tile * (1 + source.rows.ratio * source.cols.ratio)
    return round(4 * bands * pixels + at_work + on_both)


def reader_thread(i: int) -> ThreadPoolExecutor:
    """Return a thread in whose reads GDAL's messages go to the log, not to stderr."""
    # A VRT opens its sources while it is read, so the network settings hold here too.
    return ThreadPoolExecutor(
        1, thread_name_prefix=f"geoseg-read-{i}", initializer=network_environment().__enter__
    )


@dataclass(frozen=True)
class Validity:
    """Validity of a box of the model's grid, on it and on the raster's own; None: everywhere."""

    valid: ValidMask | None
    raster_row: int = 0
    raster_col: int = 0
    raster_valid: ValidMask | None = None


def read_segment(
    handle: DatasetReader,
    source: Source,
    rows: tuple[int, int],
    cols: tuple[int, int],
    into: Values,
) -> Validity:
    """Read a box of the model's grid ``into`` memory of its size; called on a reader thread."""
    row_lo, row_hi = source.rows.support(*rows)
    col_lo, col_hi = source.cols.support(*cols)
    crop = source.crop
    window = Window(crop.row + row_lo, crop.col + col_lo, row_hi - row_lo, col_hi - col_lo)
    if not source.is_resampled:
        return Validity(read_window(handle, source.selection, window, into)[1])

    values, valid = read_window(handle, source.selection, window)
    if valid is not None and not valid.any():
        into[:] = 0
        nothing = np.zeros((rows[1] - rows[0], cols[1] - cols[0]), dtype=bool)
        return Validity(nothing, row_lo, col_lo, valid)

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
    return Validity(shares, row_lo, col_lo, valid)
