"""``rio segment``: the main job as a subcommand of rasterio's command line."""

import sys
from pathlib import Path

import click
from rasterio.rio import options as rio_options

from geoseg.cli.options import BOUNDS, BoundsCommand
from geoseg.types import BBox


@click.command("segment", cls=BoundsCommand, short_help="Segment a raster into a class map.")
@rio_options.files_inout_arg  # type: ignore[untyped-decorator]
@rio_options.output_opt  # type: ignore[untyped-decorator]
@click.option("--model", "-m", required=True, help="Model file or name of a shipped model.")
@click.option("--bidx", "-b", multiple=True, type=int, help="Bands in the model's order.")
@click.option("--bounds", type=BOUNDS, help="Crop to a box in the raster's CRS.")
@click.option("--threads", type=click.IntRange(1), help="Threads that read.")
@rio_options.overwrite_opt  # type: ignore[untyped-decorator]
def segment(
    *,
    files: tuple[str, ...],
    output: str | None,
    model: str,
    bidx: tuple[int, ...],
    bounds: BBox | None,
    threads: int | None,
    overwrite: bool,
) -> None:
    """Segment INPUT into the class map OUTPUT with geoseg.

    \b
    rio segment -m demo-buildings-banepa ortho.tif buildings.tif

    `geoseg predict` has all options.
    """
    from geoseg.cli.main import exit_code
    from geoseg.config import PredictOptions
    from geoseg.errors import GeosegError
    from geoseg.predict import predict_raster

    paths = [*files, output] if output else list(files)
    if len(paths) != 2:
        raise click.UsageError("expected INPUT and OUTPUT.")
    options = PredictOptions(
        bands=bidx or None, bounds=bounds, readers=threads, overwrite=overwrite
    )
    try:
        result = predict_raster(model, paths[0], Path(paths[1]), options=options)
    except GeosegError as error:
        click.echo(f"geoseg: {error}", err=True)
        sys.exit(exit_code(error))
    click.echo(result.outputs.class_map)
