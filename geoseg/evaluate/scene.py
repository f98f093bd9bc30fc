"""One walk over a class map and its labels, block by block: all that needs every pixel."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geoseg.data.patch_reader import grid_of
from geoseg.data.patches import PatchGrid
from geoseg.data.sample import IGNORE
from geoseg.evaluate.boundary import BoundaryCounts
from geoseg.evaluate.cells import MOST_COUNTS, CellGrid
from geoseg.evaluate.error_map import ErrorMapWriter
from geoseg.evaluate.ground import pixel_areas_m2
from geoseg.evaluate.labels import MapLabels
from geoseg.evaluate.metrics import ConfusionMatrix
from geoseg.listener import Listener
from geoseg.raster.info import inspect_raster
from geoseg.raster.reader import open_raster
from geoseg.spec import ClassSpec
from geoseg.types import Window

# A multiple of the files' blocks; a few arrays of its pixels are all that is held.
BLOCK_PX = 1024
OVERVIEW_PX = 768

Channels = NDArray[np.uint8]


@dataclass
class SceneCounts:
    """What the walk adds up.

    Attributes:
        confusion: scored pixels by label and prediction.
        boundary: pixels near borders.
        cells: counts by place, on the ground.
        places: counts by place, of the size of a picture.
        mapped_m2: area of each class in the whole map, (K,); NaN where it has no place.
        ignored: pixels without label or answer.
        overview: decimated labels and prediction of the whole, and the step between pixels.
    """

    confusion: ConfusionMatrix
    boundary: BoundaryCounts
    cells: CellGrid | None
    places: CellGrid
    mapped_m2: NDArray[np.float64]
    ignored: int
    overview: tuple[Channels, Channels, int]


class ClassMap:
    """A class map that is read as channel indexes.

    Args:
        path: of the map.
        classes: channel k is ``classes[k]``.
    """

    def __init__(self, path: Path, classes: Sequence[ClassSpec]) -> None:
        self.path = path
        self.classes = tuple(classes)
        with open_raster(str(path)) as dataset:
            self.info = inspect_raster(dataset, str(path))
        self.grid: PatchGrid = grid_of(self.info)
        self._table = np.full(2**16, IGNORE, np.uint8)
        for k, c in enumerate(classes):
            self._table[c.id] = k

    @property
    def has_place(self) -> bool:
        """Whether the map lies anywhere on the ground."""
        return bool(self.grid.crs)

    def read(self, dataset: DatasetReader, window: Window) -> Channels:
        """Return channel indexes of a window of the open map, IGNORE where it has no answer."""
        box = RasterioWindow(window.col, window.row, window.width, window.height)
        channels: Channels = self._table[dataset.read(1, window=box)]
        return channels


def score_scene(
    class_map: ClassMap,
    labels: MapLabels,
    counts: SceneCounts,
    *,
    distance_px: tuple[int, int],
    error_map: ErrorMapWriter,
    listener: Listener,
) -> SceneCounts:
    """Walk over a map and add what each block has to all counts.

    Args:
        class_map: the prediction.
        labels: on its grid.
        counts: empty ones, see `empty_counts`; filled in place.
        distance_px: of the bands of the boundary IoU, along rows' and columns' numbers.
        error_map: written along.
        listener: may stop the walk.

    Returns:
        ``counts``.
    """
    grid = class_map.grid
    with open_raster(str(class_map.path)) as dataset:
        for window in plan_blocks(grid.height, grid.width):
            listener.check()
            halo = widen(window, distance_px, grid.height, grid.width)
            predicted = class_map.read(dataset, halo)
            target = labels.read(halo)
            target[predicted == IGNORE] = IGNORE
            inner = _inside(window, halo)
            counts.boundary.update(
                target, predicted, distance_px, outside_is_border=False, halo=inner
            )
            _add_block(counts, class_map, window, target[inner], predicted[inner])
            error_map.add(window, target[inner], predicted[inner])
    return counts


def empty_counts(class_map: ClassMap, cells: CellGrid | None, place_px: int) -> SceneCounts:
    """Return counts of nothing yet for a map.

    Args:
        class_map: that will be walked over.
        cells: on the ground; None: the map has no place.
        place_px: side of the places that pictures are chosen from; doubled where there would be
            too many.
    """
    height, width, size = class_map.grid.height, class_map.grid.width, len(class_map.classes)
    while -(-height // place_px) * -(-width // place_px) * size > MOST_COUNTS:
        place_px *= 2
    step = max(1, math.ceil(max(height, width) / OVERVIEW_PX))
    shape = -(-height // step), -(-width // step)
    overview = np.full(shape, IGNORE, np.uint8), np.full(shape, IGNORE, np.uint8), step
    return SceneCounts(
        confusion=ConfusionMatrix(size),
        boundary=BoundaryCounts(size),
        cells=cells,
        places=CellGrid(height, width, (place_px, place_px), size),
        mapped_m2=np.full(size, 0.0 if class_map.has_place else np.nan),
        ignored=0,
        overview=overview,
    )


def plan_blocks(height: int, width: int) -> Iterator[Window]:
    """Yield windows that cover a map, row by row."""
    for row in range(0, height, BLOCK_PX):
        for col in range(0, width, BLOCK_PX):
            yield Window(row, col, min(BLOCK_PX, height - row), min(BLOCK_PX, width - col))


def widen(window: Window, by_px: tuple[int, int], height: int, width: int) -> Window:
    """Return a window with a margin of rows and columns, within a map."""
    row, col = max(0, window.row - by_px[0]), max(0, window.col - by_px[1])
    row_end = min(height, window.row_end + by_px[0])
    col_end = min(width, window.col_end + by_px[1])
    return Window(row, col, row_end - row, col_end - col)


def _inside(window: Window, halo: Window) -> tuple[slice, slice]:
    row, col = window.row - halo.row, window.col - halo.col
    return slice(row, row + window.height), slice(col, col + window.width)


def _add_block(
    counts: SceneCounts, class_map: ClassMap, window: Window, target: Channels, predicted: Channels
) -> None:
    counts.confusion.update(torch.from_numpy(target), torch.from_numpy(predicted))
    counts.ignored += int((target == IGNORE).sum())
    counts.places.add(window, target, predicted)
    if counts.cells is not None:
        counts.cells.add(window, target, predicted)
    if class_map.has_place:
        answered = predicted[predicted != IGNORE]
        if answered.size:
            mapped = np.bincount(answered, minlength=len(counts.mapped_m2))
            counts.mapped_m2 += mapped * pixel_areas_m2(class_map.grid, [window])[0]
    _add_overview(counts.overview, window, target, predicted)


def _add_overview(
    overview: tuple[Channels, Channels, int],
    window: Window,
    target: Channels,
    predicted: Channels,
) -> None:
    """Put every step-th pixel of a block into the picture of the whole."""
    step = overview[2]
    row, col = -window.row % step, -window.col % step
    for kept, block in zip(overview[:2], (target, predicted), strict=True):
        part = block[row::step, col::step]
        top, left = (window.row + row) // step, (window.col + col) // step
        kept[top : top + part.shape[0], left : left + part.shape[1]] = part
