"""Specks and holes of a class map become what is around them, before it is turned into polygons.

A region is a set of connected pixels of one class. One rule is applied until nothing is left to do:
of all specks and holes of the map as it now is, the smallest (of equals: the one whose first pixel
comes first in reading order) becomes the class with which it shares the longest border, and with it
one region with all regions of this class that it touches.

- A speck is smaller than ``min_area_px`` and borders on another class.
- A hole is smaller than ``fill_holes_px``, does not touch the map's edge or nodata, and all around
  it is one class. With connectivity 4 what it touches at a corner is around it too; with 8 not: in
  both cases what is around it is one region, or becomes one with it.
- A border's length is the number of pixel edges to a class. Of equal ones that class wins of which
  a larger region borders (from ``min_area_px`` on all count as equal), then the one whose border
  has the first edge in reading order.
- Nodata is never changed and never a target. A speck with only nodata around stays as it is.

The border counts by class, not by region: two neighbours of one class are one with the speck
between them anyway, and whether they are one already may be known only at the far end of the map.
So each decision depends on the specks that touch each other and on the classes of the large regions
around them, which is what is kept in memory: the runs and borders of regions that are small so far
and are still open, or touch such ones directly or through other small regions. A region that has
reached the area counts as large while it is open. The result does not depend on the strips.
"""

import ctypes
import functools
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg import _native
from geoseg.errors import DiskFullError, MachineError, OutOfMemoryError
from geoseg.vector.memory import UNBOUNDED, Bounds, check_memory
from geoseg.vector.rows import Rows, strip_rows
from geoseg.vector.sieve_reference import CHANGE, ReferenceSieve, SieveRules

AREA_UNIT_PX = 2.0**-20  # areas are sums of integers: exact, in whatever order they are added
GREATEST_AREA = 2**62
SPARE_RECORDS = 2**18
NEAR_ROWS = 64


class Sieve(Protocol):
    """What finds the changes: the kernel or its reference."""

    def add(self, rows: NDArray[np.int32], weights: NDArray[np.int64]) -> NDArray[np.void]:
        """Take the next rows; return the changes that are known by now."""

    def held_bytes(self) -> int:
        """Return about how much memory is held."""


def sieve(
    rows: Rows,
    *,
    min_area_px: float,
    fill_holes_px: float,
    connectivity: Literal[4, 8],
    folder: Path,
    weights: NDArray[np.float64] | None = None,
    on_rows: Callable[[int], None] | None = None,
    bounds: Bounds = UNBOUNDED,
) -> Rows:
    """Return the map without specks and holes, by the rules above.

    Args:
        rows: the map; read once, from the top.
        min_area_px: regions below it are specks; 0 keeps all.
        fill_holes_px: enclosed regions below it are holes; 0 keeps all.
        connectivity: 8 where pixels that touch at a corner are one region.
        folder: gets a file of the result, one, two or four bytes a pixel as the ids need; the
            caller removes it.
        weights: area of a pixel of each row relative to the pixels that the areas count, (height,),
            to 1e-6; None: all alike.
        on_rows: told how many rows are done.
        bounds: rows read at once, and memory for the regions that are undecided at a time.

    Raises:
        OutOfMemoryError: the regions that are undecided at a time do not fit in memory.
        DiskFullError: the folder has no room.
    """
    if min_area_px <= 0 and fill_holes_px <= 0:
        return rows
    rules = SieveRules(
        min_area=_area(min_area_px), fill_holes=_area(fill_holes_px), corners_join=connectivity == 8
    )
    worker = open_sieve(rows.height, rows.width, rules)
    areas = np.ones(rows.height) if weights is None else weights
    units = np.rint(areas / AREA_UNIT_PX).astype(np.int64)
    out = _RowFile.create(folder, rows.height, rows.width)
    step = bounds.rows or strip_rows(rows.width)
    for start in range(0, rows.height, step):
        stop = min(start + step, rows.height)
        strip = np.ascontiguousarray(rows.read_rows(start, stop), np.int32)
        out.append(strip, worker.add(strip, units[start:stop]))
        check_memory(worker.held_bytes(), bounds.max_bytes, f"specks undecided at row {stop:,}")
        if on_rows is not None:
            on_rows(stop)
    return out


def open_sieve(height: int, width: int, rules: SieveRules) -> Sieve:
    """Return the kernel, or the reference where there is no kernel."""
    lib = _kernel()
    if lib is None:
        return ReferenceSieve(height, width, rules)
    return KernelSieve(lib, height, width, rules=rules)


class KernelSieve:
    """The compiled sieve."""

    def __init__(
        self,
        lib: ctypes.CDLL,
        height: int,
        width: int,
        *,
        rules: SieveRules,
        spare_records: int = SPARE_RECORDS,
    ) -> None:
        connectivity = 8 if rules.corners_join else 4
        self._lib = lib
        self._handle = lib.geoseg_sieve_new(
            *(height, width, rules.min_area, rules.fill_holes, connectivity, spare_records)
        )
        if not self._handle:
            raise _memory_error()
        weakref.finalize(self, lib.geoseg_sieve_free, self._handle)

    def add(self, rows: NDArray[np.int32], weights: NDArray[np.int64]) -> NDArray[np.void]:
        """Take the next rows; return the changes that are known by now."""
        count = self._lib.geoseg_sieve_add(
            self._handle, rows.ctypes.data, np.ascontiguousarray(weights).ctypes.data, len(rows)
        )
        if count < 0:
            raise _memory_error()
        changes = np.empty(count, CHANGE)
        self._lib.geoseg_sieve_take(self._handle, changes.ctypes.data)
        return changes

    def held_bytes(self) -> int:
        """Return about how much memory the undecided regions take."""
        return int(self._lib.geoseg_sieve_bytes(self._handle))


@dataclass
class _RowFile:
    """A class map in a plain file, written from the top; each value is a class id + 1."""

    path: Path
    height: int
    width: int
    dtype: np.dtype[np.generic]
    written_rows: int = 0

    @classmethod
    def create(cls, folder: Path, height: int, width: int) -> "_RowFile":
        """Return an empty file in the folder."""
        with (
            _disk_errors(folder),
            tempfile.NamedTemporaryFile(dir=folder, suffix=".rows", delete=False) as file,
        ):
            return cls(Path(file.name), height, width, np.dtype(np.uint8))

    def read_rows(self, start: int, stop: int) -> NDArray[np.int32]:
        """Return the class ids (stop - start, width); -1 where there is none."""
        return np.subtract(self._read(start, stop), 1, dtype=np.int32)

    def append(self, strip: NDArray[np.int32], changes: NDArray[np.void]) -> None:
        """Write the next rows; the changes lie in them or above."""
        needed = np.min_scalar_type(int(strip.max(initial=-1)) + 1)
        if needed.itemsize > self.dtype.itemsize:
            self._widen(np.dtype(np.uint16 if needed.itemsize == 2 else np.int32))
        start = self.written_rows
        values = (strip + 1).astype(self.dtype)
        late = changes["row"] < start
        _apply(values, changes[~late], start)
        self._write(start, values)
        self.written_rows += len(strip)
        self._change(changes[late])

    def _change(self, changes: NDArray[np.void]) -> None:
        """Change rows that are written, those near each other at once."""
        changes = changes[np.argsort(changes["row"], kind="stable")]
        step = strip_rows(self.width)
        i = 0
        while i < len(changes):
            start = int(changes["row"][i])
            row = changes["row"][i : i + 1 + int(np.searchsorted(changes["row"][i:], start + step))]
            gaps = np.flatnonzero((np.diff(row) > NEAR_ROWS) | (row[1:] >= start + step))
            count = int(gaps[0]) + 1 if len(gaps) else len(row)
            values = self._read(start, int(row[count - 1]) + 1)
            _apply(values, changes[i : i + count], start)
            self._write(start, values)
            i += count

    def _read(self, start: int, stop: int) -> NDArray[np.generic]:
        size = self.width * self.dtype.itemsize
        values = np.fromfile(
            self.path, self.dtype, count=(stop - start) * self.width, offset=start * size
        )
        return values.reshape(stop - start, self.width)

    def _write(self, start: int, values: NDArray[np.generic]) -> None:
        with _disk_errors(self.path.parent), self.path.open("rb+") as file:
            file.seek(start * self.width * self.dtype.itemsize)
            file.write(values.data)

    def _widen(self, dtype: np.dtype[np.generic]) -> None:
        """Copy what is written into a file of a wider type: a larger id has come."""
        wide = _RowFile.create(self.path.parent, self.height, self.width)
        wide.dtype = dtype
        step = strip_rows(self.width)
        for start in range(0, self.written_rows, step):
            stop = min(start + step, self.written_rows)
            wide._write(start, self._read(start, stop).astype(dtype))
        wide.path.replace(self.path)
        self.dtype = dtype


def _apply(values: NDArray[np.generic], changes: NDArray[np.void], first_row: int) -> None:
    """Write new classes into rows from ``first_row`` on."""
    lengths = (changes["stop"] - changes["first"]).astype(np.int64)
    starts = (changes["row"].astype(np.int64) - first_row) * values.shape[1] + changes["first"]
    before = np.cumsum(lengths) - lengths
    pixels = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
    values.reshape(-1)[pixels] = np.repeat(changes["class_id"] + 1, lengths)


def _area(area_px: float) -> int:
    """Return the least integer area that is not below."""
    return ceil(min(max(area_px, 0.0) / AREA_UNIT_PX, GREATEST_AREA))


@functools.cache
def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    lib.geoseg_sieve_new.restype = pointer
    lib.geoseg_sieve_new.argtypes = (size, size, size, size, ctypes.c_int32, size)
    lib.geoseg_sieve_add.restype = size
    lib.geoseg_sieve_add.argtypes = (pointer, pointer, pointer, size)
    lib.geoseg_sieve_take.restype = None
    lib.geoseg_sieve_take.argtypes = (pointer, pointer)
    lib.geoseg_sieve_bytes.restype = size
    lib.geoseg_sieve_bytes.argtypes = (pointer,)
    lib.geoseg_sieve_free.restype = None
    lib.geoseg_sieve_free.argtypes = (pointer,)
    return lib


def _kernel() -> ctypes.CDLL | None:
    lib = _native.library()
    return _declare(lib) if lib is not None and hasattr(lib, "geoseg_sieve_new") else None


def _memory_error() -> OutOfMemoryError:
    return OutOfMemoryError(
        "the specks that touch each other do not fit in memory. Give a smaller --min-area or "
        "--fill-holes, or a machine with more memory."
    )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = DiskFullError if error.errno == 28 else MachineError
        raise kind(
            f"{str(folder)!r} must hold the cleaned map and cannot be written: {error}. Free some "
            "space there, or name another folder for temporary files."
        ) from error
