"""Aliases and closed choices that several modules share."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Nodata = float | None
BandIndexes = tuple[int, ...]  # 1-based, as in files
Values = NDArray[np.generic]  # (C, H, W) in the file's own dtype, or float32 once resampled
ValidMask = NDArray[np.bool_]  # True = usable

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tta = Literal["none", "flips", "d4"]
NodataRule = Literal["all_bands", "any_band"]


class BBox(NamedTuple):
    """A box in the units of a CRS."""

    left: float
    bottom: float
    right: float
    top: float


class Window(NamedTuple):
    """A pixel box: first row and column, and the size. All in px."""

    row: int
    col: int
    height: int
    width: int

    @property
    def row_end(self) -> int:
        """Row after the last one."""
        return self.row + self.height

    @property
    def col_end(self) -> int:
        """Column after the last one."""
        return self.col + self.width
