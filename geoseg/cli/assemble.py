"""``geoseg assemble``: finish a map from parts."""

import time
from pathlib import Path

import click

from geoseg.cli.events import ProgressKind, listening
from geoseg.cli.options import progress_options
from geoseg.errors import InterruptedRunError


@click.command("assemble")
@click.argument("parts", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the output.")
@click.option(
    "--partial", is_flag=True, help="Take missing parts as nodata, and keep the parts folder."
)
@progress_options
def command(
    *,
    parts: Path,
    out: Path,
    overwrite: bool,
    partial: bool,
    progress: ProgressKind,
    watch_stdin: bool,
) -> None:
    """Finish the map OUT from the folder PARTS (OUT.parts) of shards or of a stopped run.

    Confidence and probabilities, if the run made them, go beside it as OUT.confidence.tif and
    OUT.probabilities.tif.
    """
    from geoseg.predict import assemble

    began = time.perf_counter()
    with listening("assemble", progress, watch_stdin=watch_stdin) as listener:
        try:
            outputs = assemble(parts, out, overwrite=overwrite, partial=partial, listener=listener)
        except InterruptedRunError as error:
            raise InterruptedRunError(
                "stopped. The parts are kept: run `geoseg assemble` again to finish the map."
            ) from error
        made = outputs.by_layer()
        names = ("class_map", "confidence", "probabilities")
        listener.result(
            {
                "outputs": {name: str(made[name]) if name in made else None for name in names},
                "seconds": round(time.perf_counter() - began, 3),
            }
        )
