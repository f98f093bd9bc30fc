"""How option values are written: sizes, resolutions, boxes, shares, band lists."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from geoseg.errors import UsageError
from geoseg.types import BandIndexes, BBox

SIZE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

FILE = click.Path(path_type=Path, dir_okay=False)


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """A click type made of a function that raises UsageError."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def parse_size(text: str) -> int:
    """Return bytes from ``4GB``, ``512 MiB``, ``2e9`` or ``1.5g``."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    units = SIZE_UNITS | BINARY_UNITS
    if match is None or match[2] not in units:
        raise UsageError(f"expected a size such as 4GB or 512MB; got {text!r}.")
    try:
        return int(float(match[1]) * units[match[2]])
    except ValueError:
        raise UsageError(f"expected a size such as 4GB or 512MB; got {text!r}.") from None


def parse_gsd(text: str) -> Literal["auto", "native"] | float:
    """Return ``auto``, ``native``, or metres per pixel."""
    if text in {"auto", "native"}:
        return "auto" if text == "auto" else "native"
    try:
        gsd_m = float(text.removesuffix("m"))
    except ValueError:
        gsd_m = 0.0
    if not 0 < gsd_m < float("inf"):
        raise UsageError(f"expected auto, native or metres per pixel; got {text!r}.")
    return gsd_m


def parse_bounds(text: str) -> BBox:
    """Return a box from four numbers separated by commas or spaces."""
    try:
        numbers = [float(part) for part in re.split(r"[\s,]+", text.strip(" []()"))]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise UsageError(f"expected LEFT,BOTTOM,RIGHT,TOP; got {text!r}.")
    box = BBox(*numbers)
    if not all(map(math.isfinite, box)):
        raise UsageError(f"expected four finite numbers; got {text!r}.")
    if not (box.left < box.right and box.bottom < box.top):
        raise UsageError(f"expected left < right and bottom < top; got {text!r}.")
    return box


def parse_bands(text: str) -> BandIndexes:
    """Return 1-based band numbers from ``3,2,1``."""
    try:
        bands = tuple(int(part) for part in text.split(","))
    except ValueError:
        bands = ()
    if not bands or min(bands) < 1:
        raise UsageError(f"expected band numbers from 1, such as 3,2,1; got {text!r}.")
    return bands


def parse_shard(text: str) -> tuple[int, int]:
    """Return (I, N) from ``I/N``, I from 1 to N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"expected a share I/N with I from 1 to N, such as 1/4; got {text!r}.")
    return int(match[1]), int(match[2])


SIZE = Parsed("size", parse_size)
GSD = Parsed("auto|native|metres", parse_gsd)
BOUNDS = Parsed("left,bottom,right,top", parse_bounds)
BANDS = Parsed("bands", parse_bands)
SHARD = Parsed("i/n", parse_shard)


def progress_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--progress`` and ``--watch-stdin``."""
    kinds = click.Choice(["auto", "json", "none"])
    said = "json: one object a line on stdout, for programs."
    watched = click.option(
        "--watch-stdin", is_flag=True, help="Stop cleanly when stdin is closed."
    )(function)
    return click.option("--progress", type=kinds, default="auto", show_default=True, help=said)(
        watched
    )


class BoundsCommand(click.Command):
    """A command whose ``--bounds`` takes one text or four numbers, as rio and GDAL users write."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join four numbers after ``--bounds`` into one value, then parse as usual."""
        joined: list[str] = []
        rest = list(args)
        while rest:
            argument = rest.pop(0)
            joined.append(argument)
            if argument == "--bounds" and len(rest) >= 4 and all(map(_is_number, rest[:4])):
                joined.append(",".join(rest[:4]))
                del rest[:4]
        return super().parse_args(ctx, joined)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
