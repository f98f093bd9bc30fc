"""``geoseg assemble``: finish a map from parts."""

from pathlib import Path

import click


@click.command("assemble")
@click.argument("parts", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace the output.")
@click.option(
    "--partial", is_flag=True, help="Take missing parts as nodata, and keep the parts folder."
)
def command(parts: Path, out: Path, overwrite: bool, partial: bool) -> None:
    """Finish the map OUT from the folder PARTS (OUT.parts) of shards or of a stopped run.

    Confidence and probabilities, if the run made them, go beside it as OUT.confidence.tif and
    OUT.probabilities.tif.
    """
    from geoseg.predict import assemble

    outputs = assemble(parts, out, overwrite=overwrite, partial=partial)
    for path in outputs.by_layer().values():
        click.echo(path)
