"""Errors by place: scores of the cells of a grid over a map."""

import math
from collections.abc import Sequence
from pathlib import Path

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from geoseg.data.patches import PatchGrid
from geoseg.data.sample import IGNORE
from geoseg.errors import MachineError, UsageError
from geoseg.evaluate.ground import longest_side_m, metres_in_pixels, pixel_areas_m2
from geoseg.evaluate.metrics import class_keys
from geoseg.evaluate.record import CellSummary
from geoseg.raster.gdal import cause_of
from geoseg.spec import ClassSpec
from geoseg.types import Window

# Cells along the longer side, unless their size is given.
USUAL_CELLS = 25
# Three counts per cell and class: 200 MB.
MOST_COUNTS = 8 * 10**6
LAYER = "cells"

Channels = NDArray[np.uint8]


class CellGrid:
    """Pixel counts of each cell: enough for accuracy and IoU per class.

    Args:
        height: of the map, px.
        width: of the map, px.
        cell_px: rows and columns of a cell; those at the end are cut off.
        num_classes: K.

    Attributes:
        hits: right pixels by cell and class, (cells, K).
        targets: labelled pixels.
        predicted: pixels that were given to the class.
    """

    def __init__(self, height: int, width: int, cell_px: tuple[int, int], num_classes: int) -> None:
        self.height, self.width, self.cell_px = height, width, cell_px
        self.rows, self.cols = -(-height // cell_px[0]), -(-width // cell_px[1])
        if self.rows * self.cols * num_classes > MOST_COUNTS:
            most = MOST_COUNTS // num_classes
            raise UsageError(
                f"expected at most {most} cells; {self.cols} x {self.rows} of "
                f"{cell_px[1]} x {cell_px[0]} px are more. Give a larger --cell-size."
            )
        shape = self.rows * self.cols, num_classes
        self.hits, self.targets, self.predicted = (np.zeros(shape, np.int64) for _ in range(3))

    def add(self, window: Window, target: Channels, predicted: Channels) -> None:
        """Count a window; where the target is IGNORE it is not scored."""
        known = target != IGNORE
        if not known.any():
            return
        at_row = np.arange(window.row, window.row_end) // self.cell_px[0]
        at_col = np.arange(window.col, window.col_end) // self.cell_px[1]
        # Numbered from the window's first cell: the counts stay as small as the window.
        cols = int(at_col[-1] - at_col[0]) + 1
        local = (at_row - at_row[0])[:, None] * cols + (at_col - at_col[0])[None]
        num_classes = self.hits.shape[1]
        base = local[known].astype(np.int64) * num_classes
        t, p = target[known], predicted[known]
        size = (int(at_row[-1] - at_row[0]) + 1) * cols * num_classes
        first = np.arange(int(at_row[0]), int(at_row[-1]) + 1)[:, None] * self.cols
        cells = (first + np.arange(int(at_col[0]), int(at_col[-1]) + 1)).ravel()
        right = t == p
        for counts, keys in (
            (self.hits, base[right] + t[right]),
            (self.targets, base + t),
            (self.predicted, base + p),
        ):
            counts[cells] += np.bincount(keys, minlength=size).reshape(-1, num_classes)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Scored pixels of each cell, (cells,)."""
        return self.targets.sum(axis=1)

    def accuracy(self) -> NDArray[np.float64]:
        """Return the share of right pixels of each cell, (cells,); NaN where none are scored."""
        return _ratio(self.hits.sum(axis=1), self.pixels)

    def iou(self) -> NDArray[np.float64]:
        """Return the IoU of each class in each cell, (cells, K); NaN for absent classes."""
        return _ratio(self.hits, self.targets + self.predicted - self.hits)

    def miou(self) -> NDArray[np.float64]:
        """Return the mean IoU of the classes in each cell, (cells,); NaN where none are scored."""
        iou = self.iou()
        there = ~np.isnan(iou)
        return _ratio(np.where(there, iou, 0.0).sum(axis=1), there.sum(axis=1))

    def window(self, cell: int) -> Window:
        """Return the pixels of a cell."""
        row, col = cell // self.cols * self.cell_px[0], cell % self.cols * self.cell_px[1]
        height = min(self.cell_px[0], self.height - row)
        return Window(row, col, height, min(self.cell_px[1], self.width - col))


def choose_cell_m(grid: PatchGrid, wanted_m: float | None) -> float:
    """Return the side of a cell in metres: what is wanted, or 1, 2 or 5 times a power of ten.

    Raises:
        UsageError: it is not a length.
    """
    if wanted_m is not None:
        if not 0 < wanted_m < math.inf:
            raise UsageError(f"--cell-size: expected a length in metres; got {wanted_m:g}.")
        return wanted_m
    least = longest_side_m(grid) / USUAL_CELLS
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def place_cells(grid: PatchGrid, cell_m: float, num_classes: int) -> CellGrid:
    """Return cells of a size in metres over a map; their borders follow its pixels.

    Raises:
        UsageError: they are smaller than a pixel, or too many.
    """
    pixel_m = longest_side_m(grid) / max(grid.height, grid.width)
    if cell_m < pixel_m:
        raise UsageError(
            f"--cell-size: expected at least a pixel, {pixel_m:.3g} m; got {cell_m:g} m."
        )
    return CellGrid(grid.height, grid.width, metres_in_pixels(grid, cell_m), num_classes)


def summarise_cells(cells: CellGrid, cell_m: float) -> CellSummary | None:
    """Return what the cells say together; None where none is labelled."""
    accuracy, miou = cells.accuracy(), cells.miou()
    known = accuracy[~np.isnan(accuracy)]
    if not known.size:
        return None
    low, median, high = (float(q) for q in np.percentile(known, [25, 50, 75]))
    return CellSummary(
        cell_m=cell_m,
        rows=cells.rows,
        cols=cells.cols,
        cells=int(known.size),
        accuracy_mean=float(known.mean()),
        accuracy_least=float(known.min()),
        accuracy_quartiles=(low, median, high),
        miou_mean=float(np.nanmean(miou)),
        accuracy=tuple(map(tuple, accuracy.reshape(cells.rows, cells.cols).tolist())),
    )


def write_cells(cells: CellGrid, grid: PatchGrid, classes: Sequence[ClassSpec], path: Path) -> Path:
    """Write the labelled cells as polygons of a GeoPackage; an existing one is replaced.

    Fields: ``row``, ``col`` from 0; ``pixels`` scored and ``wrong`` of them; ``labelled_m2``;
    ``accuracy``, ``miou``; and ``iou_NAME`` of each class, empty where it is absent.
    """
    labelled = np.flatnonzero(cells.pixels)
    accuracy, iou, miou = cells.accuracy(), cells.iou(), cells.miou()
    windows = [cells.window(int(cell)) for cell in labelled]
    pixels = cells.pixels[labelled]
    areas = pixel_areas_m2(grid, windows)
    values = {
        "row": labelled // cells.cols,
        "col": labelled % cells.cols,
        "pixels": pixels,
        "wrong": pixels - cells.hits.sum(axis=1)[labelled],
        "labelled_m2": np.round(pixels * areas, 3),
        "accuracy": accuracy[labelled],
        "miou": miou[labelled],
    }
    for key, k in zip(class_keys([c.name for c in classes]), range(len(classes)), strict=True):
        values[f"iou_{key}"] = iou[labelled, k]
    shapes = [_outline(grid, window) for window in windows]
    frame = geopandas.GeoDataFrame(values, geometry=shapes, crs=grid.crs)
    temporary = path.with_name(f".{path.stem}.part.gpkg")
    try:
        temporary.unlink(missing_ok=True)
        frame.to_file(temporary, driver="GPKG", layer=LAYER)
        temporary.replace(path)
    except (DataSourceError, OSError) as error:
        raise MachineError(f"{str(path)!r} cannot be written: {cause_of(error)}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _outline(grid: PatchGrid, window: Window) -> shapely.Polygon:
    rows, cols = (window.row, window.row_end), (window.col, window.col_end)
    corners = [(cols[0], rows[0]), (cols[1], rows[0]), (cols[1], rows[1]), (cols[0], rows[1])]
    return shapely.Polygon([grid.transform @ corner for corner in corners])


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)
