"""Labels on the grid of a map, window by window: the same rules as in training.

Rasters by the pixel that a centre lies in, polygons by the centres inside of them, whatever CRS
and resolution they have.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from geoseg.config.run import DataConfig
from geoseg.data.label_polygons import VECTOR_SUFFIXES, LabelPolygons, load_label_polygons
from geoseg.data.labels import Mask, make_rule, parse_color
from geoseg.data.patch_reader import HandlePool, grid_of, read_label
from geoseg.data.patches import PatchGrid
from geoseg.data.sample import IGNORE
from geoseg.data.scenes import describe_raster
from geoseg.errors import GeoreferenceError, InputError, UsageError
from geoseg.evaluate.label_values import ColorTable, read_values
from geoseg.listener import Listener
from geoseg.raster.gdal import GDAL_ERRORS, cause_of
from geoseg.spec import ClassSpec
from geoseg.types import BBox, Window

# The rules' messages name the fields of a run file; here they are options.
OPTION_OF = {
    "data.class_field": "--class-field",
    "data.background_id": "--background",
    "data.ignore_index": "the model's ignore_index",
    "data.ignore": "--ignore",
    "data.classes": "the model's classes",
    "the imagery": "the map",
    "imagery": "map",
    " (in quotes, in YAML)": "",
    "Set data.labels_as: colors if the mask shows its classes by colour, or save one band.": (
        "Save one band of class ids, or colours as three bands of uint8."
    ),
}


@dataclass(frozen=True)
class LabelOptions:
    """What labels mean.

    Attributes:
        class_field: attribute of polygons that holds a class id or name; None: all polygons are of
            the model's only class besides the background.
        background: class (id or name) of ground outside of all polygons; None: not scored.
        ignore: ids, names or colours ``#RRGGBB`` that are not scored.
        ignore_index: likewise, of rasters; as the model's record says.
    """

    class_field: str | None = None
    background: int | str | None = None
    ignore: tuple[int | str, ...] = ()
    ignore_index: int = 255


class MapLabels(Protocol):
    """Labels on a map's grid.

    Attributes:
        note: what to know when reading scores against them, or empty.
    """

    note: str

    def read(self, window: Window) -> Mask:
        """Return channel indexes of a window of the map, (H, W); IGNORE where nothing is known."""


def open_labels(
    path: Path,
    grid: PatchGrid,
    classes: Sequence[ClassSpec],
    options: LabelOptions,
    *,
    listener: Listener | None = None,
) -> MapLabels:
    """Return labels on the grid of a map; every value of a raster is checked.

    Args:
        path: a raster of class ids or of the classes' colours, or polygons.
        grid: of the map.
        classes: of the model; channel k is ``classes[k]``.
        options: what the labels mean.
        listener: may stop the check.

    Raises:
        InputError: unreadable, elsewhere than the map, or of other classes than the model's.
        UsageError: an option names a class that does not exist, or is not for such labels.
    """
    with _in_options():
        if path.suffix.lower() in VECTOR_SUFFIXES:
            return VectorLabels(path, grid, classes, options)
        return RasterLabels(path, grid, classes, options, listener or Listener())


class RasterLabels:
    """Labels from a raster of class ids, or of the classes' colours; see `open_labels`."""

    def __init__(
        self,
        path: Path,
        grid: PatchGrid,
        classes: Sequence[ClassSpec],
        options: LabelOptions,
        listener: Listener,
    ) -> None:
        for option in ("class_field", "background"):
            if getattr(options, option) is not None:
                name = "--" + option.replace("_", "-")
                raise UsageError(f"{name} is for polygons; the labels {str(path)!r} are a raster.")
        self._ignored, others = _split_ignored(options.ignore, classes)
        values, colors = _split_colors(others)
        rule = make_rule(_data_config(options, values, None), classes)
        own = grid_of(describe_raster(str(path)))
        _check_crs(own.crs, grid.crs, str(path))
        _check_size(own, grid, str(path))
        check_overlap(_bounds_in(own, grid.crs, str(path)), grid, str(path))
        self._file, self.note = read_values(
            str(path),
            grid,
            rule,
            ColorTable(tuple(classes), colors),
            check=listener.check,
        )
        self._grid = grid
        self._pool = HandlePool()

    def read(self, window: Window) -> Mask:
        """Return channel indexes of a window of the map, (H, W); IGNORE where nothing is known."""
        with _in_options():
            mask = read_label(self._pool, self._file, self._grid.part(window))
        return _without(mask, self._ignored)


class VectorLabels:
    """Labels from polygons, of which the last in the file counts; see `open_labels`."""

    def __init__(
        self, path: Path, grid: PatchGrid, classes: Sequence[ClassSpec], options: LabelOptions
    ) -> None:
        self._ignored, others = _split_ignored(options.ignore, classes)
        self._outside = IGNORE
        if options.background is not None:
            self._outside = require_class(options.background, classes, option="--background")
        background_id = None if self._outside == IGNORE else classes[self._outside].id
        data = _data_config(options, others, background_id)
        self._polygons = load_label_polygons(str(path), data, classes)
        _check_crs(self._polygons.crs, grid.crs, str(path))
        placed = self._polygons.placed(grid.crs)[0]
        bounds = BBox(*map(float, shapely.total_bounds(placed)))
        check_overlap(bounds, grid, str(path))
        self._grid = grid
        self.note = _coverage_note(self._polygons, self._outside, self._ignored, classes)

    def read(self, window: Window) -> Mask:
        """Return channel indexes of a window of the map, (H, W); IGNORE where nothing is known."""
        mask = np.full((window.height, window.width), self._outside, np.uint8)
        self._polygons.burn(mask, self._grid.part(window))
        return _without(mask, self._ignored)


def find_class(wanted: int | str, classes: Sequence[ClassSpec]) -> int | None:
    """Return the channel of a class given by name or id; None: there is no such class."""
    text = str(wanted).strip().casefold()
    names = [c.name.strip().casefold() for c in classes]
    ids = [str(c.id) for c in classes]
    return next((found.index(text) for found in (names, ids) if text in found), None)


def require_class(wanted: int | str, classes: Sequence[ClassSpec], *, option: str) -> int:
    """Return the channel of a class that an option names.

    Raises:
        UsageError: there is no such class.
    """
    channel = find_class(wanted, classes)
    if channel is None:
        raise UsageError(f"{option}: expected one of {class_list(classes)}; got {wanted!r}.")
    return channel


def class_list(classes: Sequence[ClassSpec]) -> str:
    """Return classes in a message: at most a dozen of them, with their ids."""
    shown = ", ".join(f"{c.id} {c.name}" for c in classes[:12])
    return shown + (", ..." if len(classes) > 12 else "")


def check_overlap(bounds: BBox, grid: PatchGrid, name: str) -> None:
    """Raise an InputError unless bounds in the map's CRS touch the map."""
    extent = grid.bounds
    beside = bounds.right <= extent.left or bounds.left >= extent.right
    if beside or bounds.top <= extent.bottom or bounds.bottom >= extent.top:
        raise InputError(
            f"expected labels that overlap the map; {name!r} covers {_text(bounds)} and the map "
            f"covers {_text(extent)} (left, bottom, right, top in the map's CRS). Check the CRS "
            "of the labels."
        )


def _data_config(
    options: LabelOptions, ignore: tuple[int | str, ...], background_id: int | None
) -> DataConfig:
    return DataConfig(
        kind="raster",
        class_field=options.class_field,
        background_id=background_id,
        ignore=ignore,
        ignore_index=options.ignore_index,
    )


def _split_ignored(
    ignore: tuple[int | str, ...], classes: Sequence[ClassSpec]
) -> tuple[list[int], tuple[int | str, ...]]:
    """Return the channels among what is not scored, and the rest, which is no class."""
    colors = {c.color.casefold(): k for k, c in enumerate(classes)}
    found = {e: find_class(e, classes) for e in ignore}
    found |= {e: colors.get(str(e).casefold()) for e, k in found.items() if k is None}
    channels = [channel for channel in found.values() if channel is not None]
    return channels, tuple(entry for entry, channel in found.items() if channel is None)


def _split_colors(ignore: Sequence[int | str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the label values and the colours among what is not scored and no class."""
    values = tuple(entry for entry in ignore if isinstance(entry, int))
    texts = [entry for entry in ignore if isinstance(entry, str)]
    for text in texts:
        if not text.startswith("#"):
            raise UsageError(
                "--ignore: expected a class, or of a label raster a value or a colour '#RRGGBB'; "
                f"got {text!r}."
            )
    return values, tuple(map(parse_color, texts))


def _without(mask: Mask, ignored: Sequence[int]) -> Mask:
    if ignored:
        mask[np.isin(mask, ignored)] = IGNORE
    return mask


def _coverage_note(
    polygons: LabelPolygons, outside: int, ignored: Sequence[int], classes: Sequence[ClassSpec]
) -> str:
    labelled = ({int(c) for c in np.unique(polygons.channels)} | {outside}) - {IGNORE, *ignored}
    if len(labelled) != 1:
        return ""
    return (
        f"only {classes[labelled.pop()].name!r} is labelled: where the map has too much of it "
        "cannot be seen. Give --background CLASS if the polygons are complete, with --aoi if they "
        "are so within an area"
    )


def _check_crs(own: str, wanted: str, name: str) -> None:
    if bool(own) == bool(wanted):
        return
    lacking, has = ("the map", repr(name)) if own else (repr(name), "the map")
    raise GeoreferenceError(
        f"expected a CRS in both labels and map; {lacking} has none and {has} has one. Assign it, "
        "for example with gdal_translate -a_srs EPSG:CODE or ogr2ogr -a_srs EPSG:CODE."
    )


def _check_size(own: PatchGrid, grid: PatchGrid, name: str) -> None:
    """Raise an InputError for labels that only their pixels place, and that have others."""
    is_placed = not (own.transform.is_identity or grid.transform.is_identity)
    if grid.crs or is_placed or (own.height, own.width) == (grid.height, grid.width):
        return
    raise InputError(
        f"expected labels of {grid.width} x {grid.height} px like the map, as neither has a CRS; "
        f"{name!r} has {own.width} x {own.height}. Give the labels of this raster, or give both "
        "their CRS and transform."
    )


def _bounds_in(grid: PatchGrid, crs: str, name: str) -> BBox:
    if not crs:
        return grid.bounds
    try:
        source, target = CRS.from_wkt(grid.crs), CRS.from_wkt(crs)
        return BBox(*transform_bounds(source, target, *grid.bounds))
    except GDAL_ERRORS as error:
        raise GeoreferenceError(
            f"the labels {name!r} cannot be placed in the map's CRS: {cause_of(error)}. Check the "
            "labels' CRS."
        ) from error


@contextmanager
def _in_options() -> Iterator[None]:
    """Say messages of the rules, which name fields of a run file, in words of the command line."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for field, option in OPTION_OF.items():
            text = text.replace(field, option)
        raise type(error)(text) from error


def _text(bounds: BBox) -> str:
    return ", ".join(f"{value:.10g}" for value in bounds)
