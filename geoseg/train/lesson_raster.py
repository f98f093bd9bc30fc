"""What a label raster teaches: ids on the raster's pixels, in cells to teach or to score on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.config.run import DataConfig, FilesConfig
from geoseg.data.labels import Mask, make_rule
from geoseg.data.patch_reader import (
    HandlePool,
    ImageFile,
    LabelFile,
    grid_of,
    read_label,
    read_valid,
)
from geoseg.data.sample import IGNORE
from geoseg.data.scenes import describe_labels
from geoseg.errors import GeoreferenceError, InputError
from geoseg.raster.gdal import quiet_georeference
from geoseg.spec import ClassSpec
from geoseg.train.label_place import check_overlap
from geoseg.types import Window

Counts = NDArray[np.int64]  # (rows, columns, classes): labelled pixels of each cell

# Below this side a cell shows little more than what surrounds it, which is taught.
SMALLEST_CELL_PX = 64
# With fewer cells than this, what is held out would be missed in the lesson.
FEWEST_CELLS = 8
# Pixels that are read at a time.
STRIP_PX = 2**24
# What the rules of label files say in words of a run file.
IN_OWN_WORDS = {
    "Add a class with this id to data.classes, or put it into data.ignore.": (
        "Reclassify these pixels to the model's ids, or to the file's nodata; other classes are "
        "taught by polygons with --class-field."
    ),
    " bands that differ. Set data.labels_as: colors if the mask shows its classes by colour, or "
    "save one band.": " bands. Give a raster whose only band holds the ids.",
}


@dataclass(frozen=True)
class RasterLesson:
    """Labels on the pixels of a raster.

    Attributes:
        classes: of the model; channel k is ``classes[k]``.
        image: the raster.
        labels: the file of class ids.
        cell_px: side of a cell.
        held_out: cells that are scored and not taught, bool (rows, columns).
        notes: what the log says about the choice.
    """

    classes: tuple[ClassSpec, ...]
    image: ImageFile
    labels: LabelFile
    cell_px: int
    held_out: NDArray[np.bool]
    notes: tuple[str, ...]


def read_raster_lesson(
    labels: Path,
    image: ImageFile,
    classes: Sequence[ClassSpec],
    data: DataConfig,
    *,
    largest_px: int,
    hold_out: float = 0.2,
    seed: int = 0,
) -> RasterLesson:
    """Return what a label raster teaches a model; writes nothing.

    Args:
        labels: raster of class ids, of the same ground or, without CRS, the same pixels.
        image: the raster that they are labels of.
        classes: of the model.
        data: what its ``ignore_index`` says is no label.
        largest_px: side of a cell where there is room.
        hold_out: share of the labelled pixels that is scored and not taught.
        seed: of that choice.

    Raises:
        InputError: other bands or ids than one of the model's, or labels of one class alone.
        GeoreferenceError: labels that lie elsewhere, or whose place is unknown.
    """
    file = describe_labels([str(labels)], make_rule(data, classes))[str(labels)]
    file = _place(file, image)
    with _own_words():
        counts = _count(file, image, len(classes))
    _check_counts(counts, str(labels), classes)
    counts, cell_px = choose_cells(counts, largest_px)
    held_out = choose_held_out(counts, hold_out, seed)
    note = _describe(counts, cell_px, held_out) if hold_out > 0 else ()
    return RasterLesson(tuple(classes), image, file, cell_px, held_out, note)


def write_cells(lesson: RasterLesson, folder: Path) -> list[FilesConfig]:
    """Return the files to train on, and those to score on if cells are held out."""
    info = lesson.image.info
    nodata = next(i for i in range(255, -1, -1) if i not in {c.id for c in lesson.classes})
    # Of the raster's name, by which labels without a place are found.
    paths = [folder / part / f"{Path(info.name).stem}.tif" for part in ("train", "held_out")]
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "dtype": "uint8" if all(c.id < 256 for c in lesson.classes) else "int32",
        "nodata": nodata,
        "height": info.height,
        "width": info.width,
        "crs": info.georef.crs,
        "transform": info.georef.transform,
        "compress": "deflate",
        "tiled": True,
        "BIGTIFF": "IF_SAFER",
    }
    ids = np.full(256, nodata, profile["dtype"])
    ids[: len(lesson.classes)] = [c.id for c in lesson.classes]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    with (
        quiet_georeference(),
        rasterio.open(paths[0], "w", **profile) as taught,
        rasterio.open(paths[1], "w", **profile) as held_out,
    ):
        for window, mask in _strips(lesson.labels, lesson.image, lesson.cell_px):
            held = _as_pixels(lesson, window)
            box = ((window.row, window.row_end), (0, info.width))
            taught.write(ids[np.where(held, IGNORE, mask)], 1, window=box)
            held_out.write(ids[np.where(held, mask, IGNORE)], 1, window=box)
    files = [FilesConfig(images=(info.name,), labels=(str(path),)) for path in paths]
    return files if lesson.held_out.any() else files[:1]


def choose_cells(counts: Counts, largest_px: int) -> tuple[Counts, int]:
    """Return the largest cells of which there are enough, and their side."""
    cell_px = SMALLEST_CELL_PX
    while cell_px * 2 <= largest_px:
        rows, cols, _ = counts.shape
        even = np.pad(counts, ((0, rows % 2), (0, cols % 2), (0, 0)))
        joined = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
        if joined.any(axis=2).sum() < FEWEST_CELLS:
            break
        counts, cell_px = joined, cell_px * 2
    return counts, cell_px


def choose_held_out(counts: Counts, share: float, seed: int) -> NDArray[np.bool]:
    """Return the cells that are held out, bool (rows, columns): a share of the labelled pixels.

    Of each class enough is left to teach; where there are too few cells none is held out.
    """
    held = np.zeros(counts.shape[:2], bool)
    labelled = np.argwhere(counts.any(axis=2))
    if share <= 0 or len(labelled) < FEWEST_CELLS:
        return held
    total = counts.sum(axis=(0, 1))
    taught, least = total.copy(), (1 - share) / 2 * total
    for row, col in np.random.default_rng(seed).permutation(labelled):
        if taught.sum() <= (1 - share) * total.sum():
            break
        left = taught - counts[row, col]
        if (left >= least).all():
            held[row, col], taught = True, left
    return held


def _place(file: LabelFile, image: ImageFile) -> LabelFile:
    """Return labels with a place that relates to the raster's: its own, or the raster's pixels."""
    own, grid = grid_of(file.info), image.grid
    name = file.info.name
    if own.crs and grid.crs:
        outline = geopandas.GeoSeries([own.outline()], crs=own.crs).to_crs(grid.crs).iloc[0]
        check_overlap(outline, name, grid.outline())
        return file
    lacking = repr(name) if grid.crs else f"the raster {image.info.name!r}"
    if (own.height, own.width) != (grid.height, grid.width):
        raise GeoreferenceError(
            f"expected labels of the raster's size, as {lacking} has no CRS; {name!r} is "
            f"{own.width} x {own.height} px and the raster is {grid.width} x {grid.height} px. "
            "Give labels of the same pixels, or assign a CRS to both (gdal_translate -a_srs)."
        )
    one, other = file.info.georef, image.info.georef
    both = one.has_transform and other.has_transform
    if both and not one.transform.almost_equals(other.transform):
        raise GeoreferenceError(
            f"expected labels on the raster's pixels, as {lacking} has no CRS; {name!r} has the "
            f"transform {one.transform.to_gdal()} and the raster {other.transform.to_gdal()}. Make "
            "them alike, or assign a CRS to both (gdal_translate -a_srs)."
        )
    return replace(file, info=replace(file.info, georef=other))


def _strips(file: LabelFile, image: ImageFile, cell_px: int) -> Iterator[tuple[Window, Mask]]:
    """Yield the labels on the raster's pixels, some rows of cells at a time."""
    grid, pool = image.grid, HandlePool()
    rows = max(1, STRIP_PX // (grid.width * cell_px)) * cell_px
    try:
        for row in range(0, grid.height, rows):
            window = Window(row, 0, min(rows, grid.height - row), grid.width)
            yield window, read_label(pool, file, grid.part(window))
    finally:
        pool.close()


def _count(file: LabelFile, image: ImageFile, num_classes: int) -> Counts:
    """Return the usable labelled pixels of each of the smallest cells."""
    side, pool = SMALLEST_CELL_PX, HandlePool()
    parts = []
    for window, mask in _strips(file, image, side):
        mask[~read_valid(pool, image, image.grid.part(window))] = IGNORE
        spare = ((0, -window.height % side), (0, -window.width % side))
        whole = np.pad(mask, spare, constant_values=IGNORE)
        cells = whole.reshape(whole.shape[0] // side, side, whole.shape[1] // side, side)
        parts.append(np.stack([(cells == k).sum((1, 3)) for k in range(num_classes)], axis=-1))
    pool.close()
    return np.concatenate(parts)


def _check_counts(counts: Counts, labels: str, classes: Sequence[ClassSpec]) -> None:
    found = [c.name for c, n in zip(classes, counts.sum(axis=(0, 1)), strict=True) if n]
    if not found:
        raise InputError(
            f"{labels!r}: expected labels on the raster's ground; got none, only nodata, where the "
            "raster has values. Check its nodata and its CRS."
        )
    if len(found) == 1 and len(classes) > 1:
        raise InputError(
            f"{labels!r}: expected labels of at least two classes; all are {found[0]!r}, and a "
            "model that has seen one class alone finds it everywhere. Label some of what it is not."
        )


def _describe(counts: Counts, cell_px: int, held_out: NDArray[np.bool]) -> tuple[str, ...]:
    labelled, held = int(counts.any(axis=2).sum()), int(held_out.sum())
    if held:
        return (f"{held} of {labelled} labelled cells of {cell_px} px are held out and scored",)
    return (
        f"nothing is held out: {labelled} labelled cells of {cell_px} px are too few to take any "
        "away, or a class has too little ground, so all labels are taught",
    )


def _as_pixels(lesson: RasterLesson, window: Window) -> NDArray[np.bool]:
    """Return which pixels of some rows are held out, bool (H, W)."""
    rows = np.arange(window.row, window.row_end) // lesson.cell_px
    cols = np.arange(window.width) // lesson.cell_px
    return lesson.held_out[rows[:, None], cols]


@contextmanager
def _own_words() -> Iterator[None]:
    """Say messages of the rules, which name fields of a run file, for somebody who has none."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for phrase, own in IN_OWN_WORDS.items():
            text = text.replace(phrase, own)
        raise type(error)(text) from error
