"""What label files hold -> channel indexes: the one rule for chips, rasters and vectors.

A table maps every value that may occur to the channel of its class, or to IGNORE. A value that is
not in the table is an error, never a guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geoseg.config.run import ClassConfig, DataConfig
from geoseg.data.sample import IGNORE
from geoseg.errors import InputError
from geoseg.spec import ClassSpec

Mask = NDArray[np.uint8]  # (H, W), channel index or IGNORE
Palette = Mapping[int, tuple[int, ...]]  # palette index -> red, green, blue (, alpha)

UNKNOWN = 254  # in a mask that is not checked yet
MAX_CLASSES = UNKNOWN
SHOWN = 5  # values named in a message

# Colours for classes without one: Okabe and Ito's palette (jfly.uni-koeln.de/color), which tells
# apart for the colour-blind, and tones of it.
COLORS = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
    *("#999999", "#7F4F00", "#2B5A74", "#004F39", "#78721F", "#003959", "#6A2F00", "#663C53"),
)


@dataclass(frozen=True)
class LabelRule:
    """Which value of the label files means which channel.

    Attributes:
        table: class id, or colour as 0xRRGGBB, and its channel or IGNORE.
        as_colors: whether the table holds colours.
    """

    table: tuple[tuple[int, int], ...]
    as_colors: bool = False

    def encode(
        self,
        values: NDArray[np.generic],
        name: str,
        *,
        palette: Palette | None = None,
        nodata: float | None = None,
    ) -> Mask:
        """Return the channel index of each pixel, or IGNORE, uint8 (H, W).

        Args:
            values: of the label file, (H, W) or (bands, H, W).
            name: of the file, for messages.
            palette: of the file; used where labels are colours.
            nodata: value that the file declares as missing; ignored unless it is a class.

        Raises:
            InputError: a value has no class, or the bands are not what the labels should have.
        """
        mask, unknown = self.try_encode(values, name, palette=palette, nodata=nodata)
        if unknown:
            raise InputError(f"{name!r}: {self.describe_unknown(unknown)}")
        return mask

    def try_encode(
        self,
        values: NDArray[np.generic],
        name: str,
        *,
        palette: Palette | None = None,
        nodata: float | None = None,
    ) -> tuple[Mask, dict[int, int]]:
        """Return the mask with IGNORE where a value has no class, and the pixels of each.

        Arguments and errors as for `encode`.
        """
        bands = values if values.ndim == 3 else values[None]
        rule = self.with_nodata(nodata)
        keys = _as_colors(bands, name, palette) if self.as_colors else _as_ids(bands, name)
        mask = _look_up(keys, rule.table)
        if self.as_colors and len(bands) in {2, 4}:
            mask[bands[-1] == 0] = IGNORE  # transparent
        elif bands.dtype.kind == "f":
            mask[np.isnan(bands[0])] = IGNORE
        is_unknown = mask == UNKNOWN
        if not is_unknown.any():
            return mask, {}
        found, counts = np.unique(keys[is_unknown], return_counts=True)
        mask[is_unknown] = IGNORE
        return mask, {int(v): int(n) for v, n in zip(found, counts, strict=True)}

    def describe_unknown(self, unknown: Mapping[int, int]) -> str:
        """Return the sentences about values without a class, given their numbers of pixels."""
        shown = sorted(unknown, key=lambda v: -unknown[v])[:SHOWN]
        listed = ", ".join(f"{self.name_of(v)} ({unknown[v]} px)" for v in shown)
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        known = ", ".join(self.name_of(value) for value, k in self.table if k != IGNORE)
        if self.as_colors:
            advice = (
                "Add these colours to data.classes or data.ignore; masks saved as JPEG hold no "
                "exact colours."
            )
        else:
            advice = "Add a class with this id to data.classes, or put it into data.ignore."
        kind = "the classes' colours" if self.as_colors else "class ids"
        return f"expected {kind} {known}; got {listed}{more}. {advice}"

    def name_of(self, value: int) -> str:
        """Return a file value as people write it: an id, or #RRGGBB."""
        return f"#{value:06X}" if self.as_colors else str(value)

    def with_nodata(self, nodata: float | None) -> "LabelRule":
        """Return the rule for a file that declares a nodata value."""
        if nodata is None or self.as_colors or not float(nodata).is_integer():
            return self
        # The run file outranks the header: some tools declare 0 as nodata where 0 is a class.
        if int(nodata) in dict(self.table):
            return self
        return replace(self, table=(*self.table, (int(nodata), IGNORE)))


def make_rule(data: DataConfig, classes: Sequence[ClassSpec]) -> LabelRule:
    """Return the rule of a run file for label rasters.

    Args:
        data: ``labels_as``, ``ignore``, ``ignore_index`` and ``reduce_zero_label`` count.
        classes: channel k is ``classes[k]``.

    Raises:
        InputError: a class is also ignored, or an entry of ``ignore`` is of the wrong kind.
    """
    as_colors = data.labels_as == "colors"
    if as_colors:
        known = {parse_color(c.color): k for k, c in enumerate(classes)}
        ignored = {_ignored_color(entry) for entry in data.ignore}
    else:
        shift = int(data.reduce_zero_label)
        known = {c.id + shift: k for k, c in enumerate(classes)}
        ignored = {_ignored_id(entry) for entry in data.ignore}
        ignored |= {data.ignore_index} | ({0} if data.reduce_zero_label else set())
    if len(known) != len(classes):
        kind = "colours" if as_colors else "ids"
        raise InputError(f"data.classes: expected {kind} that differ; got one of them twice.")
    _check_ignored(known, ignored, classes, as_colors=as_colors)
    table = {**known, **dict.fromkeys(ignored, IGNORE)}
    return LabelRule(tuple(sorted(table.items())), as_colors)


def class_specs(classes: Sequence[ClassConfig]) -> tuple[ClassSpec, ...]:
    """Return classes as the model's record holds them; those without colour get one.

    Raises:
        InputError: none, or more than can be told apart in a mask.
    """
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise InputError(
            f"data.classes: expected 1 to {MAX_CLASSES} classes; got {len(classes)}. "
            "List them as {id: 0, name: background, color: '#000000'}."
        )
    return tuple(
        ClassSpec(c.id, c.name, c.color or COLORS[k % len(COLORS)]) for k, c in enumerate(classes)
    )


def parse_color(text: str) -> int:
    """Return #RRGGBB as 0xRRGGBB.

    Raises:
        InputError: it is something else.
    """
    digits = text.removeprefix("#")
    if len(digits) != 6 or not text.startswith("#") or set(digits) - set("0123456789abcdefABCDEF"):
        raise InputError(f"expected a colour '#RRGGBB' (in quotes, in YAML); got {text!r}.")
    return int(digits, 16)


def _ignored_color(entry: int | str) -> int:
    if isinstance(entry, int):
        raise InputError(
            f"data.ignore: expected colours '#RRGGBB' as data.labels_as is colors; got {entry}."
        )
    return parse_color(entry)


def _ignored_id(entry: int | str) -> int:
    if isinstance(entry, str):
        raise InputError(
            f"data.ignore: expected class ids as data.labels_as is ids; got {entry!r}. "
            "Set data.labels_as: colors if the masks hold colours."
        )
    return entry


def _check_ignored(
    known: Mapping[int, int], ignored: set[int], classes: Sequence[ClassSpec], *, as_colors: bool
) -> None:
    both = sorted(set(known) & ignored)
    if not both:
        return
    value, name = both[0], classes[known[both[0]]].name
    shown = f"#{value:06X}" if as_colors else str(value)
    raise InputError(
        f"data.classes: class {name!r} has {shown}, which data.ignore, data.ignore_index or "
        "data.reduce_zero_label leaves out. Take it out there, for example by another "
        "data.ignore_index; for masks of 0 and 255, data.labels_as: colors with '#000000' and "
        "'#FFFFFF' gives classes 0 and 1."
    )


def _as_ids(bands: NDArray[np.generic], name: str) -> NDArray[np.integer]:
    """Return class ids (H, W) of a label file's bands."""
    # Some tools repeat the ids in three bands, as LandCover.ai's chips have them.
    is_repeated = len(bands) == 3 and bool((bands[1:] == bands[0]).all())
    if len(bands) != 1 and not is_repeated:
        raise InputError(
            f"{name!r}: expected one band of class ids; got {len(bands)} bands that differ. Set "
            "data.labels_as: colors if the mask shows its classes by colour, or save one band."
        )
    values = bands[0]
    if values.dtype.kind in "bu":
        return values.astype(np.uint8) if values.dtype.kind == "b" else values
    if values.dtype.kind == "i":
        return values.astype(np.int64)
    whole = np.nan_to_num(values).astype(np.int64)
    is_off = (whole != values) & ~np.isnan(values)
    if is_off.any():
        raise InputError(
            f"{name!r}: expected whole numbers as class ids; got {values[is_off][0]:g}. "
            "Labels must not be interpolated: make them again with nearest resampling."
        )
    return whole


def _as_colors(
    bands: NDArray[np.generic], name: str, palette: Palette | None
) -> NDArray[np.integer]:
    """Return 0xRRGGBB (H, W) of a label file's bands; grey where it has one."""
    if bands.dtype != np.uint8 or not 1 <= len(bands) <= 4:
        raise InputError(
            f"{name!r}: expected colours as 1 to 4 bands of uint8; got {len(bands)} band(s) of "
            f"{bands.dtype}. Set data.labels_as: ids if the mask holds class ids."
        )
    if palette is not None and len(bands) == 1:
        return _palette_colors(palette)[bands[0]]
    red, green, blue = bands[:3] if len(bands) >= 3 else (bands[0],) * 3
    packed: NDArray[np.int32] = red.astype(np.int32) << 16
    packed |= green.astype(np.int32) << 8
    packed |= blue
    return packed


def _palette_colors(palette: Palette) -> NDArray[np.int32]:
    colors = np.zeros(256, np.int32)
    for index, (red, green, blue, *_) in palette.items():
        colors[index] = red << 16 | green << 8 | blue
    return colors


def _look_up(keys: NDArray[np.integer], table: tuple[tuple[int, int], ...]) -> Mask:
    """Return the table's entry for each key, or UNKNOWN."""
    if not table:
        return np.full(keys.shape, UNKNOWN, np.uint8)
    if keys.dtype == np.int64:  # any integer: a list to search instead of a table to index
        known, channels = np.array(sorted(table), np.int64).T
        place = np.searchsorted(known, keys).clip(max=len(known) - 1)
        return np.where(known[place] == keys, channels[place], UNKNOWN).astype(np.uint8)
    size = {1: 1 << 8, 2: 1 << 16}.get(keys.dtype.itemsize, 1 << 24)
    if keys.dtype.kind == "u" and keys.dtype.itemsize > 2:
        return _look_up(keys.astype(np.int64), table)
    return _dense_table(table, size)[keys]


@lru_cache(maxsize=8)
def _dense_table(table: tuple[tuple[int, int], ...], size: int) -> Mask:
    """Return the table as an array to index; 16 MiB for colours."""
    dense = np.full(size, UNKNOWN, np.uint8)
    for value, channel in table:
        if 0 <= value < size:
            dense[value] = channel
    return dense
