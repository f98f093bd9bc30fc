"""``geoseg vectorize``: polygons from a class map."""

from pathlib import Path
from typing import Any, Literal

import click

from geoseg.cli.events import ProgressKind, listening
from geoseg.cli.options import FILE, SIZE
from geoseg.errors import InterruptedRunError, UsageError
from geoseg.vector.options import DEFAULT_MAX_MEMORY_BYTES, VectorOptions

# The options whose values may be left away: what stands for them then.
BARE = {"--smooth": "auto"}


class BareOptions(click.Command):
    """A command whose ``--smooth`` may be given without a value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a value behind an option that has none, then parse as usual."""
        whole: list[str] = []
        for i, argument in enumerate(args):
            whole.append(argument)
            if argument == "--":
                whole += args[i + 1 :]
                break
            if argument in BARE and not (i + 1 < len(args) and _is_length(args[i + 1])):
                whole.append(BARE[argument])
        return super().parse_args(ctx, whole)


def parse_length(text: str) -> float | Literal["auto"]:
    """Return metres, or ``auto``."""
    if text == "auto":
        return "auto"
    try:
        length_m = float(text)
    except ValueError:
        length_m = -1.0
    if not 0 <= length_m < float("inf"):
        raise click.BadParameter(f"expected metres from 0 on, or auto; got {text!r}.")
    return length_m


def parse_classes(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return ids and names from options that are repeated or hold several, by commas."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


@click.command("vectorize", cls=BareOptions)
@click.argument("class_map")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--classes", multiple=True, help="Ids or names that become polygons, by commas [default: all]."
)
@click.option(
    "--min-area",
    "min_area_m2",
    type=click.FloatRange(0),
    default=0.0,
    help="Smaller specks become what surrounds them most, m2.",
)
@click.option(
    "--fill-holes",
    "fill_holes_m2",
    type=click.FloatRange(0),
    default=0.0,
    help="Smaller holes become what surrounds them, m2.",
)
@click.option(
    "--simplify",
    "simplify_m",
    type=click.FloatRange(0),
    default=0.0,
    help="Greatest distance between an outline and its simpler form, m.",
)
@click.option(
    "--smooth",
    "smooth_m",
    metavar="[METRES]",
    default="0",
    help="Round corners; greatest distance that one moves, m [without a value: one pixel].",
)
@click.option(
    "--square-corners",
    multiple=True,
    metavar="CLASS",
    help="Ids or names whose outlines get square corners, by commas: those that border on one "
    "other polygon; such that touch at a corner are parted there by a pixel.",
)
@click.option(
    "--connectivity",
    type=click.Choice(["4", "8"]),
    default="4",
    show_default=True,
    help="8: faces of a class that touch at a corner are one feature.",
)
@click.option("--confidence", type=FILE, help="Raster on the map's grid, averaged by polygon.")
@click.option("--dst-crs", help="CRS of the polygons, such as EPSG:4326 [default: the map's].")
@click.option(
    "--max-memory",
    "max_memory_bytes",
    type=SIZE,
    default=str(DEFAULT_MAX_MEMORY_BYTES),
    help="Bound on this process's memory [default: 4GB].",
)
@click.option("--overwrite", is_flag=True, help="Replace the output.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="json: one object a line on stdout, for programs.",
)
@click.option("--watch-stdin", is_flag=True, help="Stop cleanly when stdin is closed.")
def command(
    *,
    class_map: str,
    out: Path,
    classes: tuple[str, ...],
    square_corners: tuple[str, ...],
    smooth_m: str,
    connectivity: str,
    progress: ProgressKind,
    watch_stdin: bool,
    **values: Any,
) -> None:
    """Turn CLASS_MAP into polygons and write them to OUT.

    CLASS_MAP is a raster of class ids in one band, as `geoseg predict` writes it; names and colours
    are its own. The suffix of OUT says the format: .gpkg .shp .geojson .fgb .parquet. Lengths and
    areas are on the ground, in metres and square metres, whatever the CRS; without a CRS, in
    pixels. Neighbours share their borders, also after --simplify and --smooth.

    \b
    geoseg vectorize buildings.tif buildings.gpkg --classes building --square-corners building
    geoseg vectorize map.tif map.gpkg --min-area 20 --simplify 0.5 --smooth --confidence conf.tif
    """
    from geoseg.vector.run import result_record, vectorize_raster

    options = VectorOptions(
        classes=parse_classes(classes) or None,
        square_corners=parse_classes(square_corners),
        smooth_m=parse_length(smooth_m),
        connectivity=8 if connectivity == "8" else 4,
        **values,
    )
    if classes and not options.classes:
        raise UsageError("--classes: expected ids or names; got none.")
    with listening("vectorize", progress, watch_stdin=watch_stdin) as listener:
        try:
            result = vectorize_raster(class_map, out, options=options, listener=listener)
        except InterruptedRunError as error:
            raise InterruptedRunError("stopped. Nothing was written.") from error
        listener.result(result_record(result))


def _is_length(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "auto"
    return True
