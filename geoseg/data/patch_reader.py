"""Reads patches from rasters: handles that stay open, whole windows, no warping without need."""

import contextlib
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.warp import reproject
from rasterio.windows import Window as RasterioWindow

from geoseg.data.chips import GDAL_SETTINGS, _palette
from geoseg.data.labels import LabelRule, Mask
from geoseg.data.patches import PatchGrid, places_in, whole, window_in
from geoseg.data.sample import IGNORE
from geoseg.errors import RasterReadError
from geoseg.raster.gdal import GDAL_ERRORS, cause_of
from geoseg.raster.info import RasterInfo
from geoseg.raster.reader import Selection, open_handle, read_window
from geoseg.types import ValidMask, Values, Window

Floats = NDArray[np.float32]
Indexes = NDArray[np.int64]
# Open files per process; systems allow a thousand or so.
MOST_HANDLES = 128


class HandlePool:
    """Open rasters, each lent to one thread at a time; every process opens its own."""

    def __init__(self, most: int = MOST_HANDLES) -> None:
        self._most = most
        self._forget()

    def __getstate__(self) -> int:
        """Return what another process needs: no handles."""
        return self._most

    def __setstate__(self, most: int) -> None:
        """Begin without handles."""
        self.__init__(most)  # type: ignore[misc]

    @contextlib.contextmanager
    def lend(self, name: str) -> Iterator[DatasetReader]:
        """Lend an open raster.

        Raises:
            RasterReadError: it cannot be opened.
        """
        handle = self._take(name)
        try:
            yield handle
        finally:
            self._give_back(name, handle)

    def close(self) -> None:
        """Close what is not lent."""
        with self._lock:
            handles = [handle for idle in self._idle.values() for handle in idle]
            self._idle.clear()
        for handle in handles:
            handle.close()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: OrderedDict[str, list[DatasetReader]] = OrderedDict()

    def _take(self, name: str) -> DatasetReader:
        if os.getpid() != self._pid:
            self._forget()  # a fork shares file positions with its parent: open anew
        with self._lock:
            if self._idle.get(name):
                # The last one used has the most blocks of its file in memory.
                return self._idle[name].pop()
            # Opening sets warning filters of the whole process: one thread at a time.
            with rasterio.Env(**GDAL_SETTINGS):
                return open_handle(name)

    def _give_back(self, name: str, handle: DatasetReader) -> None:
        surplus = []
        with self._lock:
            self._idle.setdefault(name, []).append(handle)
            self._idle.move_to_end(name)
            while sum(map(len, self._idle.values())) > self._most:
                oldest = next(iter(self._idle))
                surplus += self._idle.pop(oldest)
        for old in surplus:
            old.close()


@dataclass(frozen=True)
class ImageFile:
    """An image as it is read for training: its header, and which bands make a pixel usable."""

    info: RasterInfo
    selection: Selection

    @property
    def grid(self) -> PatchGrid:
        """The file's own pixels."""
        return grid_of(self.info)


@dataclass(frozen=True)
class LabelFile:
    """A label raster as it is read.

    Attributes:
        info: its header.
        rule: what its values mean.
        bands: to read, 1-based.
        masked: whether the file says by alpha or a mask where it holds labels.
    """

    info: RasterInfo
    rule: LabelRule
    bands: tuple[int, ...]
    masked: bool


def grid_of(info: RasterInfo) -> PatchGrid:
    """Return the pixels of a raster."""
    crs = info.georef.crs
    wkt = crs.to_wkt() if crs is not None and info.georef.has_transform else ""
    return PatchGrid(wkt, info.georef.transform, info.height, info.width)


def read_image(pool: HandlePool, file: ImageFile, grid: PatchGrid) -> tuple[Floats, ValidMask]:
    """Return values (C, H, W) and where they are usable (H, W), False outside of the raster.

    Values are raw, or physical where the file declares scale and offset, as in a prediction. A grid
    whose pixels are the file's is cut out; for any other, values are interpolated.

    Raises:
        RasterReadError: the file cannot be read.
    """
    own = file.grid
    window = window_in(grid, own.crs, own.transform)
    if window is None:
        return _interpolated(pool, file, grid)
    return _cut(pool, file, window)


def read_label(
    pool: HandlePool, file: LabelFile, grid: PatchGrid, *, unknown: Counter[int] | None = None
) -> Mask:
    """Return the channel index of each pixel, or IGNORE, uint8 (H, W).

    A pixel has the label that its centre lies in, whatever CRS, resolution and direction the two
    have. Overviews, which may be averages, are never read.

    Args:
        pool: of open files.
        file: the labels.
        grid: to read them on.
        unknown: adds up the pixels of values without a class; None: such a value is an error.

    Raises:
        InputError: the file cannot be read, or a value has no class.
    """
    own = grid_of(file.info)
    rows, cols = (whole(p) for p in places_in(grid, own.crs, own.transform))
    mask = np.full((grid.height, grid.width), IGNORE, np.uint8)
    if rows.shape[1] == 1 and cols.shape[0] == 1:
        here = np.flatnonzero((rows[:, 0] >= 0) & (rows[:, 0] < own.height))
        there = np.flatnonzero((cols[0] >= 0) & (cols[0] < own.width))
        if len(here) and len(there):
            part = slice(here[0], here[-1] + 1), slice(there[0], there[-1] + 1)
            mask[part] = _labels_at(pool, file, rows[here], cols[:, there], unknown)
        return mask
    inside = (rows >= 0) & (rows < own.height) & (cols >= 0) & (cols < own.width)
    if inside.any():
        mask[inside] = _labels_at(pool, file, rows[inside], cols[inside], unknown)[0]
    return mask


def read_valid(pool: HandlePool, file: ImageFile, grid: PatchGrid) -> ValidMask:
    """Return where the pixel under each centre of a coarser, parallel grid is usable (H, W)."""
    own = file.grid
    rows, cols = (whole(p) for p in places_in(grid, own.crs, own.transform))
    valid = (rows >= 0) & (rows < own.height) & (cols >= 0) & (cols < own.width)
    if not file.selection.may_be_invalid or not valid.any():
        return valid
    rows, cols = rows.clip(0, own.height - 1), cols.clip(0, own.width - 1)
    first, last = int(rows.min()), int(rows.max())
    known = _cut(pool, file, Window(first, 0, last + 1 - first, own.width))[1]
    result: ValidMask = valid & _pick(known[None], rows - first, cols)[0]
    return result


def _cut(pool: HandlePool, file: ImageFile, window: Window) -> tuple[Floats, ValidMask]:
    own = Window(0, 0, file.info.height, file.info.width)
    row, col = max(window.row, 0), max(window.col, 0)
    row_end, col_end = min(window.row_end, own.height), min(window.col_end, own.width)
    shape = window.height, window.width
    if row >= row_end or col >= col_end:
        values = np.zeros((len(file.selection.bands), *shape), np.float32)
        return values, np.zeros(shape, dtype=bool)
    inner = Window(row, col, row_end - row, col_end - col)
    with pool.lend(file.info.name) as handle:
        raw, known = read_window(handle, file.selection, inner)
    values = raw.astype(np.float32)
    for k, scaling in enumerate(file.selection.scaling):
        if scaling is not None:
            values[k] = values[k] * np.float32(scaling[0]) + np.float32(scaling[1])
    valid = np.ones((inner.height, inner.width), dtype=bool) if known is None else known
    if inner == window:
        return values, valid
    top, left = row - window.row, col - window.col
    place = slice(top, top + inner.height), slice(left, left + inner.width)
    padded = np.zeros((len(values), *shape), np.float32)
    padded[:, place[0], place[1]] = values
    padded_valid = np.zeros(shape, dtype=bool)
    padded_valid[place] = valid
    return padded, padded_valid


def _interpolated(pool: HandlePool, file: ImageFile, grid: PatchGrid) -> tuple[Floats, ValidMask]:
    """Return the image on another grid: bilinear, over all pixels below a coarser one."""
    own = file.grid
    rows, cols = (_known(p) for p in places_in(grid, own.crs, own.transform))
    values = np.full((len(file.selection.bands), grid.height, grid.width), np.nan, np.float32)
    # Two pixels of the coarser grid beyond the patch take part in its border.
    reach = 2 + 2 * max(np.ptp(rows) / grid.height, np.ptp(cols) / grid.width)
    row, row_end = _clip_span(rows, reach, own.height)
    col, col_end = _clip_span(cols, reach, own.width)
    if row >= row_end or col >= col_end:
        return np.nan_to_num(values), np.zeros(values.shape[1:], dtype=bool)
    window = Window(row, col, row_end - row, col_end - col)
    source, known = _cut(pool, file, window)
    source[:, ~known] = np.nan
    reproject(
        source,
        values,
        src_crs=own.crs,
        src_transform=own.part(window).transform,
        src_nodata=np.nan,
        dst_crs=grid.crs,
        dst_transform=grid.transform,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
    )
    valid: ValidMask = np.isfinite(values).all(axis=0)
    values[:, ~valid] = 0
    return values, valid


def _labels_at(
    pool: HandlePool,
    file: LabelFile,
    rows: Indexes,
    cols: Indexes,
    unknown: Counter[int] | None,
) -> Mask:
    """Return labels of a raster's pixels: of rows (H, 1) and columns (1, W), or of pairs (N,).

    Returns:
        (H, W), or (1, N).
    """
    row, col = int(rows.min()), int(cols.min())
    window = Window(row, col, int(rows.max()) + 1 - row, int(cols.max()) + 1 - col)
    name = file.info.name
    box = RasterioWindow(window.col, window.row, window.width, window.height)
    with pool.lend(name) as handle:
        try:
            values = handle.read(list(file.bands), window=box)
            known = handle.dataset_mask(window=box) if file.masked else None
            palette = _palette(handle) if file.rule.as_colors else None
        except GDAL_ERRORS as error:
            raise RasterReadError(
                f"{name!r}: rows {window.row} to {window.row_end} and columns {window.col} to "
                f"{window.col_end} cannot be read: {cause_of(error)}. Get the file again."
            ) from error
    # Picked before they are looked up: a coarse grid takes few of the pixels that it reads.
    values = _pick(values, rows - row, cols - col)
    nodata = file.info.nodata[0]
    if unknown is None:
        mask = file.rule.encode(values, name, palette=palette, nodata=nodata)
    else:
        mask, found = file.rule.try_encode(values, name, palette=palette, nodata=nodata)
        unknown.update(found)
    if known is not None:
        mask[_pick(known[None], rows - row, cols - col)[0] == 0] = IGNORE
    return mask


def _pick(values: Values, rows: Indexes, cols: Indexes) -> Values:
    """Return pixels of (B, H, W): of rows (H, 1) and columns (1, W), or of pairs as (B, 1, N)."""
    if rows.ndim == 1:
        return values[:, rows, cols][:, None]
    if rows.size == values.shape[1] and (rows.size == 1 or np.all(np.diff(rows[:, 0]) == 1)):
        down = values
    else:
        down = np.take(values, rows[:, 0], axis=1)
    if cols.size == values.shape[2] and (cols.size == 1 or np.all(np.diff(cols[0]) == 1)):
        return down
    return np.take(down, cols[0], axis=2)


def _known(places: NDArray[np.float64]) -> NDArray[np.float64]:
    return places[np.isfinite(places)] if np.isfinite(places).any() else np.array([-1e9])


def _clip_span(places: NDArray[np.float64], reach: float, length: int) -> tuple[int, int]:
    return max(0, int(places.min() - reach)), min(length, int(places.max() + reach) + 1)
