"""Buildings that touch at a corner only are parted there, so that each has an outline of its own.

Where two pixels of a class meet across a corner, four borders meet, and no wall can be moved. The
lower of the two pixels becomes what lies beside it. One pass from the top is enough: each change
makes a pair of equal pixels, one above the other, and such a pair is part of no crossing.
"""

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.rows import NODATA, Rows


class PartedRows:
    """A class map without crossings of the classes given; read once, from the top.

    Args:
        rows: the map.
        classes: ids of which no two pixels are to touch at a corner only. Pixels without a class
            are never changed and never spread.
    """

    def __init__(self, rows: Rows, classes: frozenset[int]) -> None:
        self.rows = rows
        self.changed_px = 0
        self._classes = np.array(sorted(classes), np.int32)
        self._last: NDArray[np.int32] | None = None

    @property
    def height(self) -> int:
        """Rows of the map."""
        return self.rows.height

    @property
    def width(self) -> int:
        """Columns of the map."""
        return self.rows.width

    def read_rows(self, start: int, stop: int) -> NDArray[np.int32]:
        """Return the class ids (stop - start, width)."""
        codes = self.rows.read_rows(start, stop)
        above = codes[:1] if self._last is None else self._last
        codes = np.concatenate((above, codes))
        may_cross = _crossings(codes[:-1], codes[1:]).any(axis=1)
        changed = False
        for y in range(len(codes) - 1):
            changed = (may_cross[y] or changed) and self._part(codes[y], codes[y + 1])
        self._last = codes[-1:].copy()
        return codes[1:]

    def _part(self, upper: NDArray[np.int32], lower: NDArray[np.int32]) -> bool:
        """Take the crossings between two rows out of the lower one; return whether any was."""
        crosses = _crossings(upper, lower)
        crosses &= (upper[:-1] != NODATA) & (upper[1:] != NODATA)
        falls = crosses & np.isin(upper[:-1], self._classes)
        rises = crosses & ~falls & np.isin(upper[1:], self._classes)
        for columns in (np.flatnonzero(falls) + 1, np.flatnonzero(rises)):
            lower[columns] = upper[columns]
            self.changed_px += len(columns)
        return bool(falls.any() or rises.any())


def _crossings(upper: NDArray[np.int32], lower: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return where four pixels make a chequerboard, by the column on their left."""
    across = (upper[..., :-1] == lower[..., 1:]) & (upper[..., 1:] == lower[..., :-1])
    crosses: NDArray[np.bool_] = across & (upper[..., :-1] != upper[..., 1:])
    return crosses
