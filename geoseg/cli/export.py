"""``geoseg export``: a model as ONNX, for QGIS' Deepness and other runtimes."""

from pathlib import Path

import click


@click.command("export")
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tile-size", type=click.IntRange(min=1), help="Side of the tiles it takes, px.")
@click.option(
    "--opset", type=int, default=18, show_default=True, help="Version of ONNX's operators, 18-20."
)
@click.option("--no-check", is_flag=True, help="Do not compare the file with the model.")
@click.option(
    "--stac",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the STAC item goes.  [default: beside OUT, as .json]",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT and its STAC item.")
def command(
    model: str,
    out: Path,
    *,
    tile_size: int | None,
    opset: int,
    no_check: bool,
    stac: Path | None,
    overwrite: bool,
) -> None:
    """Write MODEL as OUT.onnx, with a STAC item beside it.

    The file has standard ONNX operators only, takes tiles of one size, and answers class
    probabilities. It runs here (`geoseg predict OUT.onnx`), in the QGIS plugin Deepness, in GeoDeep
    and in onnxruntime. Values go in as 8-bit values divided by 255, others as they are.
    """
    from geoseg.export import ExportOptions, export_model

    options = ExportOptions(
        tile_size_px=tile_size, opset=opset, check=not no_check, item=stac, overwrite=overwrite
    )
    report = export_model(model, out, options)
    click.echo(report.path)
    tile, megabytes = report.spec.tile.size_px, report.size_bytes / 1e6
    click.echo(
        f"{report.spec.architecture.name}, {report.spec.num_classes} classes, tiles of {tile} px, "
        f"opset {opset}, {report.operators} standard operators, {megabytes:.1f} MB; "
        f"STAC item: {report.item}",
        err=True,
    )
    for difference in report.differences:
        click.echo(f"checked against torch, {difference}", err=True)
    for remark in report.remarks:
        click.echo(f"note: {remark}.", err=True)
