"""How the values of a label raster are read: as class ids, or by the colours of the classes.

All values that occur on the map are counted first, block by block: which of the two they are shows
in them alone, and what has no class is found before anything is made.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from geoseg.data.chips import palette_of
from geoseg.data.labels import LabelRule, parse_color
from geoseg.data.patch_reader import HandlePool, LabelFile, read_label
from geoseg.data.patches import PatchGrid
from geoseg.data.sample import IGNORE
from geoseg.data.scenes import describe_labels
from geoseg.errors import InputError
from geoseg.spec import ClassSpec
from geoseg.types import Window

MOST_VALUES = 4096  # labels have fewer; an image that is given for labels has any number
BLOCK_PX = 1024  # a multiple of the blocks of most files
SHOWN = 5  # values named in a message
BLACK, WHITE = 0x000000, 0xFFFFFF
# Ground without label, where no class has the colour. Masks of any two classes are black and white
# too, so these two alone do not show that labels are meant by colour.
PLAIN = {BLACK: IGNORE, WHITE: IGNORE}

Counts = Mapping[int, int]  # value or 0xRRGGBB -> pixels


@dataclass(frozen=True)
class ColorTable:
    """Channels by colour.

    Attributes:
        classes: channel k is ``classes[k]``.
        ignored: colours that the user leaves out.
    """

    classes: tuple[ClassSpec, ...]
    ignored: tuple[int, ...]

    def meant(self) -> dict[int, int]:
        """Return the channel of each colour of a class, IGNORE of those left out.

        Of classes that share their colours nothing can be told: there are none.
        """
        known = {parse_color(c.color): k for k, c in enumerate(self.classes)}
        if len(known) < len(self.classes):
            return {}
        return {**dict.fromkeys(self.ignored, IGNORE), **known}

    def all(self) -> dict[int, int]:
        """Return the same, and that black and white are not scored where no class has them."""
        return {**PLAIN, **self.meant()}

    def text(self) -> str:
        """Return the classes' colours in a message."""
        shown = ", ".join(f"{c.color.upper()} {c.name}" for c in self.classes[:12])
        return shown + (", ..." if len(self.classes) > 12 else "")


def read_values(
    path: str,
    grid: PatchGrid,
    ids: LabelRule,
    colors: ColorTable,
    *,
    check: Callable[[], None],
) -> tuple[LabelFile, str]:
    """Return how a label raster is read, and a note where that is not by class ids.

    Args:
        path: of the raster.
        grid: of the map.
        ids: the rule for class ids.
        colors: the rule for colours.
        check: called often; may stop the run.

    Raises:
        InputError: a value on the map has no class, or the raster cannot be read.
    """
    file = describe_labels([path], ids)[path]
    if len(file.bands) == 3 and set(file.info.dtypes) == {"uint8"}:
        by_color = describe_labels([path], LabelRule((), as_colors=True))[path]
        found = _count(by_color, grid, check)
        if _are_colors(found, ids, colors):
            return _by_color(by_color, found, colors)
        found = Counter({value & 0xFF: pixels for value, pixels in found.items()})
    else:
        found = _count(replace(file, rule=LabelRule(())), grid, check)
    return _by_palette_or_id(file, found, colors)


def _count(file: LabelFile, grid: PatchGrid, check: Callable[[], None]) -> Counter[int]:
    """Return pixels on the map by value, of a file whose rule knows none, so that all count."""
    # Nodata may be a class; see `LabelRule.with_nodata`.
    file = replace(file, info=replace(file.info, nodata=(None,) * file.info.count))
    found: Counter[int] = Counter()
    pool = HandlePool()
    try:
        for window in _blocks(grid):
            check()
            read_label(pool, file, grid.part(window), unknown=found)
            if len(found) > MOST_VALUES:
                break
    finally:
        pool.close()
    return found


def _blocks(grid: PatchGrid) -> Iterator[Window]:
    for row in range(0, grid.height, BLOCK_PX):
        for col in range(0, grid.width, BLOCK_PX):
            height, width = min(BLOCK_PX, grid.height - row), min(BLOCK_PX, grid.width - col)
            yield Window(row, col, height, width)


def _are_colors(found: Counts, ids: LabelRule, colors: ColorTable) -> bool:
    """Return whether three bands hold colours rather than class ids three times."""
    if any(value & 0xFF != value >> 8 & 0xFF or value & 0xFF != value >> 16 for value in found):
        return True
    classes = {value for value, channel in ids.table if channel != IGNORE}
    return set(found) <= set(colors.meant()) and any(v & 0xFF not in classes for v in found)


def _by_color(file: LabelFile, found: Counts, colors: ColorTable) -> tuple[LabelFile, str]:
    name = repr(file.info.name)
    if not colors.meant():
        raise InputError(
            f"expected one band of class ids, as classes of the model share a colour; {name} has "
            "colours. Save the class ids."
        )
    table = colors.all()
    unknown = {value: pixels for value, pixels in found.items() if value not in table}
    if unknown:
        raise InputError(
            f"expected labels in the colours of the model's classes, {colors.text()}; {name} has "
            f"{_colors_text(unknown)}. {_advice(unknown)}"
        )
    _check_scored(found, table, file.info.name)
    rule = LabelRule(tuple(sorted(table.items())), as_colors=True)
    note = f"the labels are read by the colours of the classes{_left_out(found, table)}"
    return replace(file, rule=rule), note


def _by_palette_or_id(file: LabelFile, found: Counts, colors: ColorTable) -> tuple[LabelFile, str]:
    nodata = file.info.nodata[0]
    ids = dict(file.rule.with_nodata(nodata).table)
    palette = palette_of(file.info.name) if file.info.colors[0] == "palette" else {}
    shown = {v: r << 16 | g << 8 | b for v, (r, g, b, *alpha) in palette.items() if alpha != [0]}
    odd = _contradictions({v: shown[v] for v in found if v in shown}, ids, colors)
    if odd:
        return _by_palette(file, found, shown, odd, colors)
    unknown = {value: pixels for value, pixels in found.items() if value not in ids}
    if unknown:
        raise InputError(f"{file.info.name!r}: {file.rule.describe_unknown(unknown)}")
    _check_scored(found, ids, file.info.name)
    return file, ""


def _contradictions(shown: Counts, ids: Mapping[int, int], colors: ColorTable) -> list[int]:
    """Return the values whose colour is that of another class than their id."""
    meant = colors.meant()
    if not any(color in meant for color in shown.values() if color not in PLAIN):
        return []
    return [
        v for v, color in sorted(shown.items()) if color in meant and meant[color] != ids.get(v)
    ]


def _by_palette(
    file: LabelFile, found: Counts, shown: Counts, odd: Sequence[int], colors: ColorTable
) -> tuple[LabelFile, str]:
    """Return how a raster is read whose palette has the colours of other classes than its ids."""
    nodata = file.info.nodata[0]
    table, known = {v: IGNORE for v in found if v not in shown or v == nodata}, colors.all()
    table |= {v: known[color] for v, color in shown.items() if color in known}
    unknown = Counter({shown[v]: pixels for v, pixels in found.items() if v not in table})
    value = odd[0]
    meant = known[shown[value]]
    whose = (
        "ground that --ignore leaves out" if meant == IGNORE else repr(colors.classes[meant].name)
    )
    why = f"value {value} has the colour of {whose} ({_hex(shown[value])})"
    if unknown:
        raise InputError(
            f"expected a palette in the colours of the model's classes, {colors.text()}, or one "
            f"that does not contradict the ids; in {file.info.name!r} {why}, and "
            f"{_colors_text(unknown)} is no class's. {_advice(unknown)} Save them without palette "
            "if the ids are right."
        )
    _check_scored(found, table, file.info.name)
    by_color: Counter[int] = Counter()
    for v, pixels in found.items():
        if v in shown:
            by_color[shown[v]] += pixels
    note = (
        f"the labels are read by the colours of their palette, which contradict their ids: {why}"
        f"{_left_out(by_color, known)}"
    )
    return replace(file, rule=LabelRule(tuple(sorted(table.items())))), note


def _check_scored(found: Counts, table: Mapping[int, int], name: str) -> None:
    if not any(table[value] != IGNORE for value in found):
        raise InputError(
            f"expected labels on the map; no pixel of {name!r} there has one that is scored. Check "
            "that they cover the imagery and are not all left out."
        )


def _left_out(found: Counts, table: Mapping[int, int]) -> str:
    """Return which colours are not scored, as the end of a sentence."""
    left = {color: pixels for color, pixels in found.items() if table.get(color, IGNORE) == IGNORE}
    return f"; not scored: {_colors_text(left)}" if left else ""


def _advice(unknown: Collection[int]) -> str:
    if len(unknown) > SHOWN:
        return "Save the class ids as one band without losses: JPEG keeps no exact colours."
    given = " ".join(f"--ignore '{_hex(color)}'" for color in unknown)
    return f"Give {given} for ground that is not to be scored, or save the labels as class ids."


def _colors_text(colors: Counts) -> str:
    listed = sorted(colors, key=lambda color: -colors[color])
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(f"{_hex(color)} ({colors[color]} px)" for color in listed[:SHOWN]) + more


def _hex(color: int) -> str:
    return f"#{color:06X}"
