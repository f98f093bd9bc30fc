"""Pairs of image and mask files, read one pair a sample."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow
from torch.utils.data import Dataset

from geoseg.data.labels import LabelRule, Mask
from geoseg.data.sample import IGNORE, Sample
from geoseg.errors import BandMismatchError, DtypeMismatchError, InputError, RasterReadError
from geoseg.raster.gdal import GDAL_ERRORS, cause_of
from geoseg.raster.info import RasterInfo, inspect_raster
from geoseg.raster.reader import Selection, open_raster, read_window
from geoseg.spec import ClassSpec
from geoseg.types import ValidMask, Values, Window

# A folder of 100 000 chips is not to be listed for each of them.
GDAL_SETTINGS = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
# How a whole PNG file ends. GDAL's fast decoder gives the rows that a file cut short lacks some
# values and says nothing (seen in 3.12); its slow one raises.
PNG_END = b"IEND\xaeB`\x82"
SLOW_PNG = {"GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO"}


@dataclass(frozen=True)
class Chip:
    """One sample's files.

    Attributes:
        name: relative stem, for messages, lists and leak checks.
        image: file.
        label: file.
        window: part of both files that is the sample; None: all.
        scene: what it was cut from, so that neighbours can be kept in one split.
    """

    name: str
    image: str
    label: str
    window: Window | None = None
    scene: str = ""


@dataclass(frozen=True)
class ImageRule:
    """How image files are read.

    Attributes:
        bands: 1-based; None: all but alpha.
        dtype: data type that the files must have.
        count: bands that a sample has; None: as many as there are.
        repeat_grey: a file of one band stands for three equal ones, as among photographs.
    """

    bands: tuple[int, ...] | None = None
    dtype: str = "uint8"
    count: int | None = None
    repeat_grey: bool = False


@dataclass(frozen=True)
class ChipSet:
    """The pairs of one split, and what they mean.

    Attributes:
        chips: pairs of files, all of them.
        classes: channel k is ``classes[k]``.
        labels: what label values mean.
        repeat_grey: see `ImageRule`.
        notes: to say before training, for example that the official split leaks.
    """

    chips: tuple[Chip, ...]
    classes: tuple[ClassSpec, ...]
    labels: LabelRule
    repeat_grey: bool = False
    notes: tuple[str, ...] = ()


class ChipDataset(Dataset[Sample]):
    """Samples from pairs of files; index k is ``chips[k]``.

    Files are opened for each sample and closed again, so that any number of worker processes can
    share the data set. Everything is decoded by GDAL: for PNG it is faster than Pillow and
    torchvision, for JPEG a millisecond per chip of 512 px slower than the latter, and it knows
    nodata, masks, alpha and every data type.

    Args:
        chips: pairs of files.
        labels: what their values mean.
        images: how images are read.
        transform: called on each sample, for example an augmentation.
    """

    def __init__(
        self,
        chips: Sequence[Chip],
        labels: LabelRule,
        images: ImageRule,
        *,
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.chips = tuple(chips)
        self.labels = labels
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.chips)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, transformed.

        Raises:
            InputError: a file cannot be read, or does not hold what it should.
        """
        chip = self.chips[index]
        values, valid = read_image(chip, self.images)
        mask = read_mask(chip, self.labels)
        check_shapes(chip, values.shape[-2:], mask.shape)
        mask[~valid] = IGNORE
        sample: Sample = {
            "image": torch.from_numpy(values.astype(np.float32, copy=False)),  # (C, H, W)
            "mask": torch.from_numpy(mask.astype(np.int64)),  # (H, W)
            "valid": torch.from_numpy(valid),  # (H, W)
            "name": chip.name,
        }
        return self.transform(sample) if self.transform else sample


def read_image(chip: Chip, rule: ImageRule) -> tuple[Values, ValidMask]:
    """Return a chip's raw values (C, H, W) and where they are usable (H, W).

    Raises:
        RasterReadError: the file cannot be read.
        BandMismatchError: bands are missing, or of another number than the data set has.
        DtypeMismatchError: another data type than ``data.dtype`` says.
    """
    with chip_environment(chip.image), open_raster(chip.image) as dataset:
        info = inspect_raster(dataset, chip.image)
        bands = choose_bands(info, rule)
        selection = Selection(
            bands=bands,
            dtype=rule.dtype,
            nodata=tuple(info.nodata[b - 1] for b in bands),
            rule="all_bands",
            fill=(0.0,) * len(bands),
            scaling=(None,) * len(bands),
            alpha=None if info.alpha in bands else info.alpha,
            reads_mask=info.has_mask,
            notes=(),
        )
        window = chip.window or Window(0, 0, info.height, info.width)
        values, valid = read_window(dataset, selection, window)
    if rule.repeat_grey and len(values) == 1:
        values = np.repeat(values, 3, axis=0)
    return values, np.ones(values.shape[-2:], dtype=bool) if valid is None else valid


def read_mask(chip: Chip, rule: LabelRule) -> Mask:
    """Return a chip's channel indexes or IGNORE, uint8 (H, W).

    Raises:
        InputError: the file cannot be read, or a value has no class.
    """
    mask, unknown = try_read_mask(chip, rule)
    if unknown:
        raise InputError(f"{chip.label!r}: {rule.describe_unknown(unknown)}")
    return mask


def try_read_mask(chip: Chip, rule: LabelRule) -> tuple[Mask, dict[int, int]]:
    """Return a chip's mask, IGNORE where a value has no class, and the pixels of each such value.

    Raises:
        InputError: the file cannot be read, or its bands are not what labels should have.
    """
    values, palette, nodata = read_label(chip)
    return rule.try_encode(values, chip.label, palette=palette, nodata=nodata)


def read_label(
    chip: Chip,
) -> tuple[NDArray[np.generic], dict[int, tuple[int, ...]] | None, float | None]:
    """Return what a label file holds: values (bands, H, W), palette and nodata value.

    Raises:
        RasterReadError: the file cannot be read.
    """
    with chip_environment(chip.label), open_raster(chip.label) as dataset:
        try:
            values = dataset.read(window=_box(chip.window))
            return values, _palette(dataset), dataset.nodatavals[0]
        except GDAL_ERRORS as error:
            raise RasterReadError(
                f"{chip.label!r} cannot be read: {cause_of(error)}. Get the file again."
            ) from error


def choose_bands(info: RasterInfo, rule: ImageRule) -> tuple[int, ...]:
    """Return the bands to read of an image file.

    Raises:
        BandMismatchError: bands are missing, or of another number than the data set has.
        DtypeMismatchError: another data type than ``data.dtype`` says.
    """
    bands = rule.bands or info.image_bands
    if max(bands) > info.count or min(bands) < 1:
        raise BandMismatchError(
            f"{info.name!r}: expected bands {', '.join(map(str, bands))} as data.bands says; got "
            f"{info.count} band(s). Change data.bands, or take the file out."
        )
    if info.colors[bands[0] - 1] == "palette":
        raise BandMismatchError(
            f"{info.name!r}: expected measured values; got a palette image. Expand it first: "
            "gdal_translate -expand rgb IN OUT."
        )
    is_grey = rule.repeat_grey and len(bands) == 1
    if rule.count not in {None, len(bands)} and not is_grey:
        raise BandMismatchError(
            f"{info.name!r}: expected {rule.count} bands as in the first image; got {len(bands)}. "
            "Say which bands to read by data.bands, or take the file out."
        )
    kinds = {info.dtypes[b - 1] for b in bands}
    if kinds != {rule.dtype}:
        got = "/".join(sorted(kinds))
        raise DtypeMismatchError(
            f"{info.name!r}: expected {rule.dtype} values as data.dtype says; got {got}. Set "
            f"data.dtype: {got} if all images have it; do not mix images of different types."
        )
    return bands


def check_shapes(chip: Chip, image: Sequence[int], mask: Sequence[int]) -> None:
    """Raise an InputError if image and mask (height, width) differ."""
    if tuple(image) != tuple(mask):
        raise InputError(
            f"{chip.label!r}: expected {image[1]} x {image[0]} px as its image {chip.image!r} has; "
            f"got {mask[1]} x {mask[0]} px. Make image and mask cover the same pixels."
        )


def describe_image(chip: Chip) -> RasterInfo:
    """Return the header of a chip's image.

    Raises:
        RasterReadError: the file cannot be opened.
    """
    with chip_environment(chip.image), open_raster(chip.image) as dataset:
        return inspect_raster(dataset, chip.image)


def chip_environment(name: str) -> rasterio.Env:
    """Return GDAL's settings for opening and reading a file in full."""
    path = Path(name)
    if path.suffix.lower() != ".png" or not path.is_file():
        return rasterio.Env(**GDAL_SETTINGS)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(PNG_END)))
        is_whole = file.read() == PNG_END
    return rasterio.Env(**GDAL_SETTINGS, **({} if is_whole else SLOW_PNG))


def scenes_of(chips: Sequence[Chip]) -> list[tuple[str, list[Chip]]]:
    """Return the chips of each scene, scenes by name."""
    ordered = sorted(chips, key=lambda chip: chip.scene or chip.name)
    groups = itertools.groupby(ordered, key=lambda chip: chip.scene or chip.name)
    return [(scene, list(group)) for scene, group in groups]


def palette_of(name: str) -> dict[int, tuple[int, ...]]:
    """Return the palette of a raster's first band: red, green, blue, alpha of each value."""
    with chip_environment(name), open_raster(name) as dataset:
        return _palette(dataset) or {}


def _box(window: Window | None) -> RasterioWindow | None:
    if window is None:
        return None
    return RasterioWindow(window.col, window.row, window.width, window.height)


def _palette(dataset: DatasetReader) -> dict[int, tuple[int, ...]] | None:
    if dataset.colorinterp[0] != ColorInterp.palette:
        return None
    return dict(dataset.colormap(1))
