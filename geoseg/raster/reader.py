"""Opens rasters, checks them against a model's record, and reads pixels with their validity."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import BandMismatchError, DtypeMismatchError, RasterReadError
from geoseg.raster.gdal import (
    GDAL_ERRORS,
    cause_of,
    network_environment,
    quiet_georeference,
)
from geoseg.raster.info import RasterInfo, Scaling
from geoseg.spec import ModelSpec
from geoseg.types import BandIndexes, Nodata, NodataRule, ValidMask, Values, Window

# Half-precision rasters are read as float32, which holds their values exactly.
READ_AS = {"float16": "float32"}
# A record that does not know the type of the rasters it was trained on.
ANY_DTYPE = "any"


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
        # A file keeps the network settings that it was opened with.
        with quiet_georeference(), network_environment():
            dataset = rasterio.open(name, sharing=False)
    except GDAL_ERRORS as error:
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
    dataset: DatasetReader, selection: Selection, window: Window, out: Values | None = None
) -> tuple[Values, ValidMask | None]:
    """Return raw values (C, H, W) of a window and where they are usable.

    Args:
        dataset: opened.
        selection: bands, type and what makes them usable.
        window: in pixels of the raster.
        out: memory for the values, of their shape and type, any strides; None: new memory.

    Returns:
        The values, and True where usable (H, W), or None where every pixel is. Where only some
        bands of a usable pixel are missing, they hold the band's fill value.

    Raises:
        RasterReadError: the file is damaged or cut short there.
    """
    box = RasterioWindow(window.col, window.row, window.width, window.height)
    try:
        as_type = {"out_dtype": selection.dtype} if out is None else {"out": out}
        values = dataset.read(list(selection.bands), window=box, **as_type)
        if not selection.may_be_invalid:
            return values, None
        valid = _valid_by_value(values, selection)
        for band in _mask_bands(selection):
            mask = dataset.read(band, window=box) if band else dataset.read_masks(1, window=box)
            valid = mask > 0 if valid is None else valid & (mask > 0)
    except GDAL_ERRORS as error:
        raise RasterReadError(
            f"{dataset.name!r}: rows {window.row} to {window.row_end} and columns {window.col} to "
            f"{window.col_end} cannot be read: {cause_of(error)}. The file is damaged or cut "
            "short; get it again, or choose an area without these pixels by --bounds."
        ) from error
    return values, None if valid is None or valid.all() else valid


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
