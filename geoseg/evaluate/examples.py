"""Places worth a look: the best and the worst, small enough for a report."""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import RasterReadError
from geoseg.evaluate.cells import CellGrid
from geoseg.evaluate.labels import MapLabels
from geoseg.evaluate.metrics import class_scores
from geoseg.evaluate.record import ImageArray, Picture
from geoseg.evaluate.scene import ClassMap, SceneCounts
from geoseg.raster.gdal import GDAL_ERRORS, cause_of
from geoseg.raster.reader import open_raster
from geoseg.types import BandIndexes, ValidMask, Window

PICTURES = 4  # of each kind
PICTURE_PX = 384
# A place with less of it labelled says little.
LEAST_LABELLED = 0.25
STRETCH = (2, 98)  # percentiles


class ExampleKeeper:
    """Keeps the best and the worst of many samples.

    Args:
        count: of each kind.
    """

    def __init__(self, count: int = PICTURES) -> None:
        self._count = count
        self._order = itertools.count()
        self._best: list[tuple[float, int, Picture]] = []
        self._worst: list[tuple[float, int, Picture]] = []

    def offer(self, score: float, make: Callable[[], Picture]) -> None:
        """Keep the picture of a sample if it is among the best or worst; NaN is neither."""
        if math.isnan(score):
            return
        wanted = [
            (heap, key)
            for heap, key in ((self._best, score), (self._worst, -score))
            if len(heap) < self._count or key > heap[0][0]
        ]
        if not wanted:
            return
        picture, order = make(), next(self._order)
        for heap, key in wanted:
            heapq.heappush(heap, (key, order, picture))
            if len(heap) > self._count:
                heapq.heappop(heap)

    def pictures(self) -> tuple[Picture, ...]:
        """Return the best, the very best first, then the worst likewise; no sample twice."""
        everything = {order: p for _, order, p in (*self._best, *self._worst)}
        ranked = sorted(everything.values(), key=lambda picture: -picture.score)
        half = -(-len(ranked) // 2)  # a sample of a small set may be in both heaps
        best = [replace(picture, kind="best") for picture in ranked[:half]]
        return (*best, *(replace(p, kind="worst") for p in reversed(ranked[half:])))


def picture_step(height: int, width: int) -> int:
    """Return n so that every n-th pixel of an image fits a picture."""
    return max(1, math.ceil(max(height, width) / PICTURE_PX))


def to_picture(values: NDArray[np.generic], valid: ValidMask, dtype: str) -> ImageArray:
    """Return raw values as an image (H, W, 3): the first three bands, or one of them in grey.

    Args:
        values: (C, H, W).
        valid: (H, W); elsewhere the picture is black.
        dtype: of the image files; 8-bit values are shown as they are, others stretched between
            the 2nd and the 98th percentile.
    """
    bands = values[:3] if len(values) >= 3 else values[[0, 0, 0]]
    shown = np.where(valid & np.isfinite(bands).all(axis=0), bands, 0).astype(np.float64)
    if dtype != "uint8":
        seen = shown[:, valid]
        low, high = np.percentile(seen, STRETCH) if seen.size else (0.0, 1.0)
        shown = np.where(valid, (shown - low) / max(high - low, 1e-12) * 255, 0)
    return np.moveaxis(shown.clip(0, 255).astype(np.uint8), 0, -1)


def choose_places(
    places: CellGrid, count: int = PICTURES
) -> list[tuple[Literal["best", "worst"], int]]:
    """Return the places of the greatest and of the least mIoU.

    The best are looked for among those where more than one class is labelled: a map of one class
    is easily right.
    """
    enough = places.pixels >= LEAST_LABELLED * places.cell_px[0] * places.cell_px[1]
    if not enough.any():
        enough = places.pixels > 0
    miou = places.miou()
    found = np.flatnonzero(enough)
    ranked = [int(cell) for cell in found[np.argsort(miou[found], kind="stable")]]
    mixed = [cell for cell in ranked if (places.targets[cell] > 0).sum() > 1] or ranked
    best = mixed[::-1][:count]
    worst = [cell for cell in ranked[:count] if cell not in best]
    return [*(("best", cell) for cell in best), *(("worst", cell) for cell in worst)]


def draw_scene(
    class_map: ClassMap,
    labels: MapLabels,
    counts: SceneCounts,
    *,
    raster: str,
    bands: BandIndexes,
    offset: Window,
) -> tuple[Picture, ...]:
    """Return an overview of a scene, and its best and worst places.

    Args:
        class_map: the prediction.
        labels: on its grid.
        counts: of the walk over it.
        raster: the imagery.
        bands: of it, in the model's order.
        offset: the map's window in the imagery.
    """
    miou = counts.places.miou()
    target, predicted, _ = counts.overview
    whole = Window(0, 0, class_map.grid.height, class_map.grid.width)
    with open_raster(raster) as image, open_raster(str(class_map.path)) as dataset:

        def look(window: Window, shape: tuple[int, ...]) -> ImageArray:
            there = window._replace(row=window.row + offset.row, col=window.col + offset.col)
            return _read_picture(image, bands, there, shape)

        score = float(np.nanmean(class_scores(counts.confusion.counts)["iou"]))
        pictures = [
            Picture("whole", "overview", score, look(whole, target.shape), target, predicted)
        ]
        for kind, cell in choose_places(counts.places):
            window = _middle(counts.places.window(cell))
            pictures.append(
                Picture(
                    name=f"row {window.row}, column {window.col}",
                    kind=kind,
                    score=float(miou[cell]),
                    image=look(window, (window.height, window.width)),
                    target=labels.read(window),
                    predicted=class_map.read(dataset, window),
                )
            )
    return tuple(pictures)


def _middle(window: Window) -> Window:
    """Return the middle of a window, no larger than a picture."""
    height, width = min(window.height, PICTURE_PX), min(window.width, PICTURE_PX)
    row = window.row + (window.height - height) // 2
    return Window(row, window.col + (window.width - width) // 2, height, width)


def _read_picture(
    image: DatasetReader, bands: BandIndexes, window: Window, shape: tuple[int, ...]
) -> ImageArray:
    box = RasterioWindow(window.col, window.row, window.width, window.height)
    shown = list(bands[:3] if len(bands) >= 3 else bands[:1])
    average = {"window": box, "resampling": Resampling.average}
    try:
        values = image.read(shown, out_shape=(len(shown), *shape), **average)
        valid = image.dataset_mask(out_shape=shape, window=box) > 0
    except GDAL_ERRORS as error:
        raise RasterReadError(
            f"{image.name!r} cannot be read for the report: {cause_of(error)}. Get the file again."
        ) from error
    return to_picture(values, valid, str(values.dtype))
