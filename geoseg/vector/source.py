"""Opens a class map and a confidence raster, and reads both by strips of rows."""

import contextlib
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import (
    BandMismatchError,
    DtypeMismatchError,
    GeoreferenceError,
    InputError,
    RasterReadError,
)
from geoseg.raster.gdal import GDAL_ERRORS, cause_of, network_environment, quiet_georeference
from geoseg.raster.reader import open_handle
from geoseg.vector.classes import ClassTable, read_classes
from geoseg.vector.rows import NODATA

IDS_END = 2**31
# Two grids are one if no corner of the raster is further off than this, in pixels.
SAME_GRID_PX = 0.01
LEAST_CACHE_BYTES = 16 * 2**20


class Readable[Value: np.generic](Protocol):
    """Anything that is read by rows."""

    def read_rows(self, start: int, stop: int) -> NDArray[Value]:
        """Return rows (stop - start, width)."""


@dataclass
class ClassMap:
    """A class map that is read by strips of rows; a `geoseg.vector.rows.Rows`.

    Attributes:
        name: as given.
        dataset: open.
        classes: names and colours.
        transform: pixel to CRS units.
        crs: None where it has none.
    """

    name: str
    dataset: DatasetReader
    classes: ClassTable
    transform: Affine
    crs: CRS | None
    _masked: bool = False
    _table: NDArray[np.int32] | None = field(default=None, repr=False)

    @property
    def height(self) -> int:
        """Rows of the map."""
        return int(self.dataset.height)

    @property
    def width(self) -> int:
        """Columns of the map."""
        return int(self.dataset.width)

    @property
    def files(self) -> list[Path]:
        """The files it is made of."""
        return [Path(name) for name in self.dataset.files]

    def read_rows(self, start: int, stop: int) -> NDArray[np.int32]:
        """Return the class ids (stop - start, width); -1 where there is none.

        Raises:
            RasterReadError: the file is damaged or cut short there.
            DtypeMismatchError: values that are no class ids.
        """
        values = _read(self.dataset, self.name, start, stop)
        if self._table is not None:
            codes = np.take(self._table, values)
        else:
            codes = _as_codes(values, self.dataset.nodata, self.name)
        if self._masked:
            mask = _read(self.dataset, self.name, start, stop, masks=True)
            codes[mask == 0] = NODATA
        return codes


@dataclass
class ConfidenceMap:
    """A raster of confidences on the map's grid; a `geoseg.vector.rows.ConfidenceRows`."""

    name: str
    dataset: DatasetReader

    def read_rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return values (stop - start, width) in the file's own scale; NaN where there is none.

        Raises:
            RasterReadError: the file is damaged or cut short there.
        """
        raw = _read(self.dataset, self.name, start, stop)
        values = raw.astype(np.float32)
        scale, offset = self.dataset.scales[0], self.dataset.offsets[0]
        if (scale, offset) != (1.0, 0.0):
            values = (raw * float(scale) + float(offset)).astype(np.float32)
        nodata = self.dataset.nodata
        if nodata is not None and not math.isnan(nodata):
            values[raw == nodata] = np.nan
        return values


@contextlib.contextmanager
def open_class_map(name: str) -> Iterator[ClassMap]:
    """Open a raster of class ids.

    Raises:
        RasterReadError: it cannot be opened.
        BandMismatchError: it has several bands.
        DtypeMismatchError: it holds no whole numbers.
        GeoreferenceError: its pixels are placed by control points, or its transform is broken.
    """
    with contextlib.ExitStack() as stack:
        dataset = stack.enter_context(_opened(name))
        with quiet_georeference():
            _check_bands(dataset, name)
            _check_place(dataset, name)
            classes, transform = read_classes(dataset), dataset.transform
        masked = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
        table = _code_table(dataset)
        yield ClassMap(name, dataset, classes, transform, dataset.crs, masked, table)


@contextlib.contextmanager
def open_confidence(path: Path, class_map: ClassMap) -> Iterator[ConfidenceMap]:
    """Open a raster of confidences.

    Raises:
        InputError: it has several bands, or does not lie on the map's grid.
    """
    name = str(path)
    with _opened(name) as dataset:
        if dataset.count != 1:
            raise BandMismatchError(
                f"expected a confidence raster of one band; {name!r} has {dataset.count}. Give the "
                "one that was written with the map (--confidence of geoseg predict)."
            )
        with quiet_georeference():
            _check_same_grid(dataset, class_map, name)
        if np.dtype(dataset.dtypes[0]).kind not in "iuf":
            raise DtypeMismatchError(
                f"expected a confidence raster of real numbers; {name!r} is {dataset.dtypes[0]}."
            )
        yield ConfidenceMap(name, dataset)


class ReadAhead[Value: np.generic]:
    """Reads the strip that follows while the last one is worked on.

    Args:
        rows: what is read, from one thread.
    """

    def __init__(self, rows: Readable[Value], height: int, width: int) -> None:
        self.rows = rows
        self.height = height
        self.width = width
        self._thread = ThreadPoolExecutor(1, "geoseg-read")
        self._next: tuple[int, int, Future[NDArray[Value]]] | None = None

    def read_rows(self, start: int, stop: int) -> NDArray[Value]:
        """Return a strip, and begin with the one below it."""
        ahead, self._next = self._next, None
        if ahead is None or ahead[:2] != (start, stop):
            ahead = start, stop, self._thread.submit(self.rows.read_rows, start, stop)
        strip = ahead[2].result()
        if stop < self.height:
            end = min(self.height, 2 * stop - start)
            self._next = stop, end, self._thread.submit(self.rows.read_rows, stop, end)
        return strip

    def close(self) -> None:
        """Wait for what is being read."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def cache_bytes(dataset: DatasetReader) -> int:
    """Return the block cache that reading by rows needs: two rows of blocks."""
    rows, _ = dataset.block_shapes[0]
    block_row = rows * dataset.width * np.dtype(dataset.dtypes[0]).itemsize
    return max(LEAST_CACHE_BYTES, 2 * block_row)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[DatasetReader]:
    dataset = _open_threaded(name)
    try:
        yield dataset
    finally:
        dataset.close()


def _open_threaded(name: str) -> DatasetReader:
    """Open a GeoTIFF that is decoded by all cores, anything else as usual."""
    try:
        with quiet_georeference(), network_environment():
            return rasterio.open(name, sharing=False, driver="GTiff", num_threads="ALL_CPUS")
    except GDAL_ERRORS:
        return open_handle(name)


def _read(
    dataset: DatasetReader, name: str, start: int, stop: int, *, masks: bool = False
) -> NDArray[Any]:
    window = RasterioWindow(0, start, dataset.width, stop - start)
    try:
        read = dataset.read_masks if masks else dataset.read
        strip: NDArray[Any] = read(1, window=window)
    except GDAL_ERRORS as error:
        raise RasterReadError(
            f"{name!r}: rows {start} to {stop} cannot be read: {cause_of(error)}. "
            "The file is damaged or cut short; get it again."
        ) from error
    return strip


def _code_table(dataset: DatasetReader) -> NDArray[np.int32] | None:
    """Return class ids by stored value, for types of few values."""
    dtype = np.dtype(dataset.dtypes[0])
    if dtype not in {np.dtype("uint8"), np.dtype("uint16")}:
        return None
    table = np.arange(256**dtype.itemsize, dtype=np.int32)
    nodata = dataset.nodata
    if nodata is not None and 0 <= nodata < len(table) and nodata == int(nodata):
        table[int(nodata)] = NODATA
    return table


def _as_codes(values: NDArray[Any], nodata: float | None, name: str) -> NDArray[np.int32]:
    """Return class ids from any type of numbers.

    Raises:
        DtypeMismatchError: a value that is no whole number from 0 to 2^31 - 1.
    """
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    missing = np.zeros(values.shape, bool)
    if values.dtype.kind == "f":
        missing |= np.isnan(values)
    if nodata is not None and not math.isnan(nodata):
        # A value that the type cannot hold is no pixel's: -9999 of an unsigned map, say.
        with np.errstate(over="ignore", invalid="ignore"):
            held = np.asarray(nodata).astype(values.dtype)
        if values.dtype.kind == "f" or float(held) == nodata:
            missing |= values == held
    valid = np.where(missing, np.zeros((), values.dtype), values)
    wrong = (valid < 0) | (valid >= IDS_END)
    if values.dtype.kind == "f":
        wrong |= valid != np.floor(valid)
    if wrong.any():
        raise DtypeMismatchError(
            f"expected class ids, whole numbers from 0 to {IDS_END - 1}; {name!r} holds "
            f"{valid[wrong][0]} ({values.dtype}). Give a class map, or declare that value as "
            "nodata if it stands for none (gdal_edit.py -a_nodata VALUE FILE)."
        )
    codes = valid.astype(np.int32)
    codes[missing] = NODATA
    return codes


def _check_bands(dataset: DatasetReader, name: str) -> None:
    colors = [color.name for color in dataset.colorinterp]
    bands = [color for color in colors if color != "alpha"]
    if len(bands) != 1 or colors[0] == "alpha":
        raise BandMismatchError(
            f"expected a class map of one band; {name!r} has {dataset.count} "
            f"({', '.join(colors[:4])}). Give the map of a prediction, or take one band out "
            "(gdal_translate -b N IN OUT); where colours stand for classes, make ids of them."
        )
    kind = np.dtype(dataset.dtypes[0]).kind
    if kind not in "iuf":
        raise DtypeMismatchError(
            f"expected class ids, whole numbers; {name!r} is {dataset.dtypes[0]}."
        )


def _check_place(dataset: DatasetReader, name: str) -> None:
    transform = dataset.transform
    numbers = list(transform)[:6]
    if not all(map(math.isfinite, numbers)) or transform.determinant == 0:
        raise GeoreferenceError(
            f"expected a transform that gives every pixel an area; {name!r} has {numbers}."
        )
    if transform.is_identity and (dataset.gcps[0] or dataset.rpcs is not None):
        raise GeoreferenceError(
            f"expected pixels that are placed by a transform; {name!r} has control points or RPCs "
            "only. Warp the map first: gdalwarp -r near IN OUT."
        )


def _check_same_grid(dataset: DatasetReader, class_map: ClassMap, name: str) -> None:
    same_size = (dataset.height, dataset.width) == (class_map.height, class_map.width)
    if not same_size:
        raise InputError(
            f"expected a confidence raster of {class_map.width} x {class_map.height} px like the "
            f"map; {name!r} has {dataset.width} x {dataset.height}. Give the one that was written "
            "with the map."
        )
    to_map = ~class_map.transform @ dataset.transform
    corners = [(c, r) for c in (0, dataset.width) for r in (0, dataset.height)]
    shift = max(math.dist(to_map @ corner, corner) for corner in corners)
    has_other_crs = dataset.crs is not None and class_map.crs not in {None, dataset.crs}
    if shift > SAME_GRID_PX or has_other_crs:
        how = "has another CRS" if has_other_crs else f"lies {shift:.3g} px off"
        raise InputError(
            f"expected a confidence raster on the map's grid; {name!r} {how}. Give the one that "
            "was written with the map, or warp it to the map's grid."
        )
