"""``geoseg predict``: the main job."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from geoseg.cli.events import CommandListener, JsonListener, ProgressKind, listening, plan_sentence
from geoseg.cli.options import BANDS, BOUNDS, FILE, GSD, SHARD, SIZE, BoundsCommand
from geoseg.config import DEFAULT_MAX_MEMORY_BYTES, PredictOptions
from geoseg.errors import InputError, UsageError

GLOB_CHARACTERS = set("*?[")


@click.command("predict", cls=BoundsCommand)
@click.argument("model")
@click.argument("rasters", metavar="RASTER...", nargs=-1, required=True)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--bands", type=BANDS, help="Bands in the model's order, from 1 [default: all but alpha]."
)
@click.option(
    "--gsd",
    type=GSD,
    default="auto",
    show_default=True,
    help="auto: resample to the model's resolution when the raster's is outside of it; native: "
    "never; or metres per pixel.",
)
@click.option("--aoi", type=FILE, help="Vector file: crop to its box, nodata outside of it.")
@click.option("--bounds", type=BOUNDS, help="Crop to a box in the raster's CRS.")
@click.option("--tile-size", "tile_size_px", type=click.IntRange(1), help="Side of a tile, px.")
@click.option("--overlap", "overlap_px", type=click.IntRange(0), help="Blended overlap, px.")
@click.option("--batch-size", type=click.IntRange(1), help="Tiles at once [default: 1 on a CPU].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
)
@click.option(
    "--tta",
    type=click.Choice(["none", "flips", "d4"]),
    default="none",
    show_default=True,
    help="Average over mirrored or over all eight views: better, 4 or 8 times slower.",
)
@click.option("--probabilities", type=FILE, help="Write all classes' probabilities.")
@click.option("--confidence", type=FILE, help="Write the probability of the class in the map.")
@click.option("--quicklook", type=FILE, help="Write a PNG of image and map.")
@click.option(
    "--max-memory",
    "max_memory_bytes",
    type=SIZE,
    default=str(DEFAULT_MAX_MEMORY_BYTES),
    help="Bound on this process's memory [default: 4GB].",
)
@click.option("--resume", is_flag=True, help="Go on with the parts of an interrupted run.")
@click.option("--overwrite", is_flag=True, help="Replace the output; discard unfinished parts.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and how long it takes.")
@click.option("--shard", type=SHARD, help="Make only share I of N; `geoseg assemble` joins them.")
@click.option("--readers", type=click.IntRange(1), help="Threads that read.")
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
    model: str,
    rasters: tuple[str, ...],
    out: Path,
    progress: ProgressKind,
    watch_stdin: bool,
    dry_run: bool,
    **values: Any,
) -> None:
    """Predict the class map of RASTER with MODEL and write it to OUT.

    MODEL is a model file (.safetensors, .onnx, .pt2) or the name of a shipped model, see `geoseg
    models`. RASTER is anything GDAL reads: a file, a VRT, a URL, /vsi...; several, or a pattern in
    quotes, make one map each in the folder OUT.

    \b
    geoseg predict demo-buildings-banepa ortho.tif buildings.tif
    geoseg predict model.safetensors "tiles/*.tif" maps/
    """
    options = PredictOptions(**values)
    jobs = list(_jobs(rasters, out, options))
    with listening("predict", progress, watch_stdin=watch_stdin) as listener:
        for raster, target, job_options in jobs:
            if dry_run:
                _print_plan(model, raster, target, job_options, listener)
            else:
                _predict(model, raster, target, job_options, listener)


def expand(rasters: Sequence[str]) -> list[str]:
    """Return rasters with patterns replaced by the files that match them, in order."""
    found = []
    for raster in rasters:
        has_pattern = bool(GLOB_CHARACTERS & set(raster)) and "://" not in raster
        if not has_pattern or Path(raster).exists() or raster.startswith("/vsi"):
            found.append(raster)
            continue
        matches = sorted(glob.glob(raster, recursive=True))  # noqa: PTH207  Path.glob is relative
        if not matches:
            raise InputError(f"no file matches {raster!r}. Check the pattern.")
        found += matches
    return found


def _jobs(
    rasters: Sequence[str], out: Path, options: PredictOptions
) -> Iterator[tuple[str, Path, PredictOptions]]:
    """Yield each raster with its output and options."""
    names = expand(rasters)
    is_map = out.suffix.lower() in {".tif", ".tiff"} and not out.is_dir()
    if is_map and len(names) > 1:
        raise UsageError(
            f"{len(names)} rasters make one map each: give a folder as OUT; got {str(out)!r}."
        )
    if is_map:
        yield names[0], out, options
        return
    scores = ("confidence", "probabilities", "quicklook")
    for score in scores:
        if getattr(options, score) is not None and len(names) > 1:
            raise UsageError(f"--{score} names one file; got {len(names)} rasters.")
    targets = [out / f"{Path(name.rstrip('/')).stem}.tif" for name in names]
    if len(set(targets)) < len(targets):
        raise UsageError("two rasters have the same name; predict them into folders of their own.")
    for name, target in zip(names, targets, strict=True):
        yield name, target, options


def _predict(
    model: str, raster: str, out: Path, options: PredictOptions, listener: CommandListener
) -> None:
    from geoseg.predict import predict_raster

    result = predict_raster(model, raster, out, options=options, listener=listener)
    outputs = result.outputs
    if not result.complete:
        listener.log("info", f"share done; `geoseg assemble {out}.parts {out}` joins all shares")
    listener.result(
        {
            "outputs": {
                "class_map": str(outputs.class_map) if result.complete else None,
                "confidence": _text(outputs.confidence),
                "probabilities": _text(outputs.probabilities),
                "vector": None,
                "quicklook": _text(outputs.quicklook),
            },
            "raster": raster,
            "seconds": round(result.seconds, 3),
            "pixels": result.pixels,
            "tiles": result.tiles,
        }
    )


def _print_plan(
    model: str, raster: str, out: Path, options: PredictOptions, listener: CommandListener
) -> None:
    from geoseg.predict import plan_raster

    plan = plan_raster(model, raster, out, options=options)
    if isinstance(listener, JsonListener):
        listener.start(plan)
        return
    seconds = plan["seconds"] or 0.0
    lines = [
        plan_sentence(plan),
        f"time    about {seconds:.0f} s ({plan['mpx'] / max(seconds, 1e-9):.2f} Mpx/s)",
        f"memory  about {plan['memory_bytes'] / 1e9:.2f} GB at most",
        f"disk    at most {plan['disk_bytes'] / 1e6:.0f} MB before compression, "
        f"{plan['free_disk_bytes'] / 1e9:.1f} GB free",
        f"panels  {plan['panels']}, each kept once finished",
        *plan["notes"],
        *(f"warning: {warning}" for warning in plan["warnings"]),
    ]
    click.echo("\n".join(lines))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
