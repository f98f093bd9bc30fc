"""The error map: where a map is right, and what it took for what where it is not."""

import contextlib
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetWriter
from rasterio.windows import Window as RasterioWindow

from geoseg.data.sample import IGNORE
from geoseg.errors import DiskFullError, GeosegError, MachineError
from geoseg.evaluate.metrics import Counts
from geoseg.raster.gdal import GDAL_ERRORS, cause_of, quiet_georeference
from geoseg.raster.georef import Georef
from geoseg.raster.layer import Layer, pam_text, qml_text, sidecars
from geoseg.raster.writer import BLOCK_PX, finish_cog
from geoseg.spec import ClassSpec
from geoseg.types import Window

RIGHT = 0
NODATA = 255
RIGHT_COLOR = "#e8e8e8"
# Colour of an error: mostly of the class that was missed.
LABEL_SHARE = 0.75

Channels = NDArray[np.uint8]


class ErrorCodes:
    """What the values of an error map mean.

    0 is right and 255 not scored. Up to 15 classes, every pair of label and prediction has a value
    of its own, 1 + label x K + prediction; up to 253, every label has one, 1 + label; above, 1 is
    wrong.

    Args:
        classes: channel k is ``classes[k]``.
    """

    def __init__(self, classes: Sequence[ClassSpec]) -> None:
        self.classes = tuple(classes)
        size = len(classes)
        label, predicted = np.mgrid[:size, :size]
        if size * size < NODATA:
            codes = 1 + label * size + predicted
        elif size < NODATA - 1:
            codes = 1 + label
        else:
            codes = np.ones((size, size), np.int64)
        self.table = np.where(label == predicted, RIGHT, codes).astype(np.uint8)

    def encode(self, target: Channels, predicted: Channels) -> Channels:
        """Return the values of a block; 255 where the target is IGNORE."""
        known = target != IGNORE
        codes = np.full(target.shape, NODATA, np.uint8)
        codes[known] = self.table[target[known], predicted[known]]
        return codes

    def legend(self, confusion: Counts | None = None) -> tuple[ClassSpec, ...]:
        """Return name and colour of each value; given a confusion matrix, of those that occur."""
        found = {RIGHT: ClassSpec(RIGHT, "right", RIGHT_COLOR)}
        for t, p in np.argwhere(self.table != RIGHT):
            code = int(self.table[t, p])
            if code not in found and (confusion is None or confusion[self.table == code].any()):
                found[code] = self._entry(code, int(t), int(p))
        return tuple(found[code] for code in sorted(found))

    def _entry(self, code: int, label: int, predicted: int) -> ClassSpec:
        one, other = self.classes[label], self.classes[predicted]
        pairs = int((self.table == code).sum())
        if pairs == 1:
            color = _mix(one.color, other.color)
            return ClassSpec(code, f"{one.name}, mapped as {other.name}", color)
        if pairs == len(self.classes) - 1:
            return ClassSpec(code, f"{one.name}, mapped as another class", one.color)
        return ClassSpec(code, "wrong", "#d55e00")


class ErrorMapWriter:
    """Writes blocks of an error map; see `open_error_map`."""

    def __init__(self, dataset: DatasetWriter, codes: ErrorCodes) -> None:
        self._dataset = dataset
        self._codes = codes

    def add(self, window: Window, target: Channels, predicted: Channels) -> None:
        """Write a block; blocks that begin at multiples of 512 px are written fastest."""
        box = RasterioWindow(window.col, window.row, window.width, window.height)
        with _machine_errors(Path(self._dataset.name)):
            self._dataset.write(self._codes.encode(target, predicted), 1, window=box)


@contextlib.contextmanager
def open_error_map(
    path: Path, codes: ErrorCodes, georef: Georef, size: tuple[int, int]
) -> Iterator[ErrorMapWriter]:
    """Yield the writer of an error map, which lies beside ``path`` until it is published.

    It is placed as the map is: by its transform, or by control points or RPCs.

    Args:
        path: of the final map.
        codes: what its values mean.
        georef: of the map that is scored.
        size: rows and columns.
    """
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": NODATA, "tiled": True}
    profile |= {"blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate"}
    profile |= {"BIGTIFF": "IF_SAFER", "crs": georef.crs, "height": size[0], "width": size[1]}
    if georef.has_transform:
        profile["transform"] = georef.transform
    blocks = _blocks_path(path)
    try:
        with _machine_errors(path), quiet_georeference():
            _sweep(path)
            dataset = rasterio.open(blocks, "w", **profile)
            dataset.write_colormap(1, {c.id: _rgb(c.color) for c in codes.legend()})
            if georef.gcps:
                dataset.gcps = list(georef.gcps), georef.gcps_crs
            if georef.rpcs is not None:
                dataset.rpcs = georef.rpcs
        try:
            yield ErrorMapWriter(dataset, codes)
        finally:
            with _machine_errors(path):
                dataset.close()
    except BaseException:
        blocks.unlink(missing_ok=True)
        raise


def publish_error_map(path: Path, codes: ErrorCodes, confusion: Counts) -> Path:
    """Make a Cloud-Optimized GeoTIFF with sidecars of what was written; see `open_error_map`.

    Args:
        path: of the final map; replaced if it exists.
        codes: what its values mean.
        confusion: says which of them occur and are listed in the sidecars.
    """
    layer = Layer("error_map", "uint8", NODATA, classes=codes.legend(confusion))
    blocks = _blocks_path(path)
    made = blocks.with_suffix(".cog")
    try:
        with _machine_errors(path):
            finish_cog(blocks, made, layer, threads=1)
            made.replace(path)
            for side, text in zip(sidecars(path), (pam_text(layer), qml_text(layer)), strict=True):
                side.write_text(text, encoding="utf-8")
    finally:
        _sweep(path)
    return path


def _blocks_path(path: Path) -> Path:
    return path.with_name(f".{path.stem}.part.tif")


def _sweep(path: Path) -> None:
    """Remove what lies beside a map until it is published, by this run or one that was killed."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}.part.*"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def _machine_errors(path: Path) -> Iterator[None]:
    advice = "Mend the cause, and give --overwrite to evaluate again."
    try:
        yield
    except DiskFullError as error:
        raise DiskFullError(
            f"the disk of {str(path.parent)!r} is full: no room for the error map. {advice}"
        ) from error
    except GeosegError as error:
        if isinstance(error, MachineError):
            raise MachineError(
                f"the error map {str(path)!r} cannot be written. {advice}"
            ) from error
        raise  # of what is read
    except GDAL_ERRORS as error:
        raise MachineError(
            f"the error map {str(path)!r} cannot be written: {cause_of(error)}. {advice}"
        ) from error


def _mix(label: str, predicted: str) -> str:
    pairs = zip(_rgb(label), _rgb(predicted), strict=True)
    return "#" + "".join(f"{round(a * LABEL_SHARE + b * (1 - LABEL_SHARE)):02x}" for a, b in pairs)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
