"""Opens rasters, checks them against a model's record, and reads pixels with their validity."""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import BandMismatchError, DtypeMismatchError, RasterReadError
from geoseg.raster.georef import Georef, quiet_georeference
from geoseg.spec import ModelSpec
from geoseg.types import BandIndexes, Nodata, NodataRule, ValidMask, Values, Window

Scaling = tuple[float, float] | None  # (scale, offset) that a file declares for a band

# Colour interpretations that name what a band shows.
COLOR_NAMES = {"red", "green", "blue", "nir", "rededge", "coastal", "pan", "swir"}
# Half-precision rasters are read as float32, which holds their values exactly.
READ_AS = {"float16": "float32"}
# A record that does not know the type of the rasters it was trained on.
ANY_DTYPE = "any"
# Samples of a file that tell whether it is still the same.
SAMPLES = 16
SAMPLE_BYTES = 64 * 1024


@dataclass(frozen=True)
class RasterInfo:
    """What a raster's header says."""

    name: str
    driver: str
    height: int
    width: int
    dtypes: tuple[str, ...]
    colors: tuple[str, ...]
    descriptions: tuple[str, ...]
    nodata: tuple[Nodata, ...]
    scaling: tuple[Scaling, ...]
    has_mask: bool
    block_shape: tuple[int, int]
    compression: str
    georef: Georef
    files: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of bands, alpha included."""
        return len(self.dtypes)

    @property
    def alpha(self) -> int | None:
        """The alpha band, 1-based, or None."""
        return self.colors.index("alpha") + 1 if "alpha" in self.colors else None

    @property
    def image_bands(self) -> BandIndexes:
        """All bands but alpha, 1-based."""
        return tuple(i for i in range(1, self.count + 1) if i != self.alpha)

    def band_name(self, band: int) -> str:
        """Return what the file calls a band: its description, else its colour, else a number."""
        description = self.descriptions[band - 1].strip().lower()
        return description or self.known_color(band) or f"band {band}"

    def known_color(self, band: int) -> str | None:
        """Return the colour that a band is tagged with, if any."""
        color = self.colors[band - 1]
        return color if color in COLOR_NAMES else None

    def summary(self) -> str:
        """Return one line for messages: size, bands, data type."""
        names = ", ".join(self.band_name(i) for i in self.image_bands)
        alpha = " and alpha" if self.alpha else ""
        kind = "/".join(dict.fromkeys(self.dtypes))
        return f"{len(self.image_bands)} {kind} band(s) ({names}){alpha}"


@dataclass(frozen=True)
class Selection:
    """Which bands are read for a model, and what makes a pixel of them valid.

    Attributes:
        bands: 1-based, in the model's order.
        dtype: NumPy name of the type they are read as.
        nodata: per band.
        rule: a pixel is nodata where all bands are, or where any is.
        fill: per band, the raw value that stands for its training mean.
        scaling: per band, scale and offset that the file declares.
        alpha: alpha band that masks pixels, or None.
        reads_mask: whether the file has an internal or external mask.
        notes: what the plan says about the choice.
    """

    bands: BandIndexes
    dtype: str
    nodata: tuple[Nodata, ...]
    rule: NodataRule
    fill: tuple[float, ...]
    scaling: tuple[Scaling, ...]
    alpha: int | None
    reads_mask: bool
    notes: tuple[str, ...]

    @property
    def may_be_invalid(self) -> bool:
        """Whether any pixel can turn out to be invalid."""
        has_nodata = any(value is not None for value in self.nodata)
        return has_nodata or self.reads_mask or self.alpha is not None or self.is_float

    @property
    def is_float(self) -> bool:
        """Whether NaN can occur."""
        return np.dtype(self.dtype).kind == "f"


@contextlib.contextmanager
def open_raster(name: str) -> Iterator[DatasetReader]:
    """Open anything rasterio opens, with a handle of its own.

    Raises:
        RasterReadError: it does not exist, is no raster, or lacks a driver or codec.
    """
    dataset = open_handle(name)
    try:
        yield dataset
    finally:
        dataset.close()


def open_handle(name: str) -> DatasetReader:
    """Return an open dataset that the caller closes; see `open_raster`."""
    try:
        with quiet_georeference():
            dataset = rasterio.open(name, sharing=False)
    except (RasterioError, OSError) as error:
        raise RasterReadError(
            f"{name!r} cannot be opened: {cause_of(error)}. "
            "Check the path, and that it is a raster that GDAL reads."
        ) from error
    if dataset.count == 0:
        inside = ", ".join(dataset.subdatasets[:4])
        dataset.close()
        raise RasterReadError(
            f"{name!r}: expected a raster with bands; got a container. Give one of: {inside}."
        )
    return dataset


def inspect_raster(dataset: DatasetReader, name: str) -> RasterInfo:
    """Return what the header of an open dataset says."""
    gcps, gcps_crs = dataset.gcps
    with quiet_georeference():
        georef = Georef(
            crs=dataset.crs,
            transform=dataset.transform,
            area_or_point=dataset.tags().get("AREA_OR_POINT"),
            gcps=tuple(gcps),
            gcps_crs=gcps_crs,
            rpcs=dataset.rpcs,
        )
    declared = zip(dataset.scales, dataset.offsets, strict=True)
    return RasterInfo(
        name=name,
        driver=dataset.driver,
        height=dataset.height,
        width=dataset.width,
        dtypes=tuple(dataset.dtypes),
        colors=tuple(color.name for color in dataset.colorinterp),
        descriptions=tuple(text or "" for text in dataset.descriptions),
        nodata=tuple(dataset.nodatavals),
        scaling=tuple(None if pair == (1.0, 0.0) else pair for pair in declared),
        has_mask=_has_mask(dataset),
        block_shape=dataset.block_shapes[0],
        compression=str(dataset.compression.value if dataset.compression else "none").lower(),
        georef=georef,
        files=tuple(dataset.files),
    )


def check_input(info: RasterInfo, spec: ModelSpec, bands: BandIndexes | None = None) -> Selection:
    """Return how the raster is read for the model.

    Args:
        info: the raster's header.
        spec: the model's record.
        bands: 1-based band numbers in the model's order; None: all but alpha, in file order.

    Raises:
        BandMismatchError: another number or order of bands, or a palette.
        DtypeMismatchError: another data type than the model was trained on.
    """
    chosen = bands if bands is not None else info.image_bands
    _check_bands(info, spec, chosen, given=bands is not None)
    if bands is None:
        _check_order(info, spec, chosen)
    scaling = tuple(info.scaling[b - 1] for b in chosen)
    dtype = _check_dtype(info, spec, chosen, scaling)
    fill = []
    for band, declared in zip(spec.bands, scaling, strict=True):
        scale, offset = declared or (band.scale, band.offset)
        fill.append((band.mean - offset) / scale if scale else 0.0)
    return Selection(
        bands=chosen,
        dtype=dtype,
        nodata=tuple(info.nodata[b - 1] for b in chosen),
        rule=spec.nodata_rule,
        fill=tuple(fill),
        scaling=scaling,
        alpha=None if info.alpha in chosen else info.alpha,
        reads_mask=info.has_mask,
        notes=_notes(info, spec, chosen, scaling),
    )


def read_window(
    dataset: DatasetReader, selection: Selection, window: Window
) -> tuple[Values, ValidMask | None]:
    """Return raw values (C, H, W) of a window and where they are usable.

    Returns:
        The values, and True where usable (H, W), or None where every pixel is. Where only some
        bands of a usable pixel are missing, they hold the band's fill value.

    Raises:
        RasterReadError: the file is damaged or cut short there.
    """
    box = RasterioWindow(window.col, window.row, window.width, window.height)
    try:
        values = dataset.read(list(selection.bands), window=box, out_dtype=selection.dtype)
        if not selection.may_be_invalid:
            return values, None
        valid = _valid_by_value(values, selection)
        for band in _mask_bands(selection):
            mask = dataset.read(band, window=box) if band else dataset.read_masks(1, window=box)
            valid = mask > 0 if valid is None else valid & (mask > 0)
    except (RasterioError, OSError) as error:
        raise RasterReadError(
            f"{dataset.name!r}: rows {window.row} to {window.row_end} and columns {window.col} to "
            f"{window.col_end} cannot be read: {cause_of(error)}. The file is damaged or cut "
            "short; get it again, or choose an area without these pixels by --bounds."
        ) from error
    return values, None if valid is None or valid.all() else valid


def cause_of(error: BaseException) -> str:
    """Return GDAL's own words for a rasterio error, without the final stop."""
    cause: BaseException = error
    while isinstance(cause, RasterioIOError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return str(cause).strip().rstrip(".") or type(cause).__name__


def _has_mask(dataset: DatasetReader) -> bool:
    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def _mask_bands(selection: Selection) -> list[int]:
    """Return the bands to read as masks; 0 stands for the file's own mask."""
    alpha = [selection.alpha] if selection.alpha is not None else []
    return alpha + ([0] if selection.reads_mask else [])


def _valid_by_value(values: Values, selection: Selection) -> ValidMask | None:
    """Return where nodata and NaN leave a pixel usable, and fill the gaps of single bands."""
    bad = [_bad_values(v, nodata) for v, nodata in zip(values, selection.nodata, strict=True)]
    known = [b for b in bad if b is not None]
    if not known:
        return None
    if selection.rule == "any_band":
        return ~np.logical_or.reduce(known)
    # A band without nodata is never bad, so neither is any pixel; its gaps are still filled.
    whole = np.logical_and.reduce(known) if len(known) == len(bad) else np.zeros_like(known[0])
    if np.dtype(selection.dtype).kind != "u":
        # Unsigned: a nodata value beside usable bands is a dark or saturated sample and is kept.
        for band, mask in enumerate(bad):
            if mask is not None:
                values[band][mask] = _as_dtype(selection.fill[band], values.dtype)
    valid: ValidMask = ~whole
    return valid


def _bad_values(band: NDArray[np.generic], nodata: Nodata) -> ValidMask | None:
    bad: ValidMask | None = None
    if band.dtype.kind == "f":
        bad = ~np.isfinite(band)
    if nodata is not None and not math.isnan(nodata):
        # Compared in the band's own type: a float32 file's -3.4e38 is not that float64.
        with np.errstate(over="ignore", invalid="ignore"):
            equal = band == np.asarray(nodata).astype(band.dtype)
        representable = (
            band.dtype.kind == "f" or float(np.asarray(nodata).astype(band.dtype)) == nodata
        )
        if representable:
            bad = equal if bad is None else bad | equal
        elif bad is None:
            bad = np.zeros(band.shape, dtype=bool)
    return bad


def _as_dtype(value: float, dtype: np.dtype[np.generic]) -> np.generic:
    if dtype.kind == "f":
        return dtype.type(value)
    limits = np.iinfo(dtype.name)
    return dtype.type(min(max(round(value), limits.min), limits.max))


def _check_bands(info: RasterInfo, spec: ModelSpec, chosen: Sequence[int], *, given: bool) -> None:
    wrong = [b for b in chosen if not 1 <= b <= info.count]
    if wrong:
        raise BandMismatchError(
            f"expected bands from 1 to {info.count} of {info.name!r}; got {wrong[0]}. "
            "Check --bands."
        )
    palette = [b for b in chosen if info.colors[b - 1] == "palette"]
    if palette and not given:
        raise BandMismatchError(
            f"model {spec.name!r} expects measured values; {info.name!r} is a palette image. "
            "Expand it first (gdal_translate -expand rgb IN OUT), or give --bands 1 to take the "
            "palette indexes as values."
        )
    if len(chosen) == spec.in_channels:
        return
    names = ", ".join(band.name for band in spec.bands)
    got = f"--bands names {len(chosen)}" if given else f"{info.name!r} has {info.summary()}"
    raise BandMismatchError(
        f"model {spec.name!r} expects {spec.in_channels} band(s) ({names}); {got}. "
        f"{_band_advice(info, spec)}"
    )


def _band_advice(info: RasterInfo, spec: ModelSpec) -> str:
    wanted = [band.name for band in spec.bands]
    found = {info.band_name(b): b for b in reversed(info.image_bands)}
    if all(name in found for name in wanted):
        return f"Give --bands {','.join(str(found[name]) for name in wanted)}."
    if info.count == 1 and spec.in_channels > 1:
        return "A single-band image does not hold these colours; use a model trained on one band."
    if info.count >= spec.in_channels:
        example = ",".join(map(str, range(1, spec.in_channels + 1)))
        return f"Say which bands they are, for example --bands {example}."
    return f"Use a model for {info.count} band(s), or a raster that has them all."


def _check_order(info: RasterInfo, spec: ModelSpec, chosen: Sequence[int]) -> None:
    wanted = [band.name.lower() for band in spec.bands]
    known = [info.band_name(b) for b in chosen]
    swapped = [
        (got, name)
        for got, name in zip(known, wanted, strict=True)
        if got != name and got in wanted
    ]
    if swapped:
        raise BandMismatchError(
            f"model {spec.name!r} expects bands in the order {', '.join(wanted)}; {info.name!r} "
            f"has {', '.join(known)}. {_band_advice(info, spec)}"
        )


def _check_dtype(
    info: RasterInfo, spec: ModelSpec, chosen: Sequence[int], scaling: Sequence[Scaling]
) -> str:
    kinds = {READ_AS.get(info.dtypes[b - 1], info.dtypes[b - 1]) for b in chosen}
    if any(kind.startswith("complex") for kind in kinds):
        raise DtypeMismatchError(
            f"model {spec.name!r} expects real values; {info.name!r} is {'/'.join(sorted(kinds))}. "
            "Convert to amplitude or intensity first."
        )
    dtype = str(np.result_type(*kinds)) if len(kinds) > 1 else next(iter(kinds))
    expected = READ_AS.get(spec.dtype, spec.dtype)
    is_physical = all(pair is not None for pair in scaling)
    same = (
        expected == ANY_DTYPE or kinds == {expected} or {dtype, expected} == {"float32", "float64"}
    )
    if not same and not is_physical:
        raise DtypeMismatchError(
            f"model {spec.name!r} expects {spec.dtype} values; {info.name!r} is "
            f"{'/'.join(sorted(kinds))} without a declared scale. {_dtype_advice(spec.dtype)}"
        )
    return dtype


def _dtype_advice(dtype: str) -> str:
    if dtype == "uint8":
        return (
            "Use a model for this data type, or rescale with known limits: "
            "gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT."
        )
    return "Use a model for this data type, or the raster as it was before conversion."


def _notes(
    info: RasterInfo, spec: ModelSpec, chosen: Sequence[int], scaling: Sequence[Scaling]
) -> tuple[str, ...]:
    notes = []
    for number, band, declared in zip(chosen, spec.bands, scaling, strict=True):
        if declared:
            scale, offset = declared
            notes.append(
                f"band {number} ({band.name}): the file's scale {scale:g} and offset {offset:g} "
                "are applied"
            )
    if info.alpha and info.alpha not in chosen:
        notes.append(f"band {info.alpha} is alpha: pixels with alpha 0 become nodata")
    return tuple(notes)


def content_sample(info: RasterInfo) -> str:
    """Return a hash over samples of a raster's files, to notice that an input was exchanged.

    Remote files are known by their header alone.
    """
    digest = hashlib.sha256()
    for name in info.files:
        path = Path(name)
        if not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            for i in range(SAMPLES):
                file.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
