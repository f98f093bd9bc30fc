"""``geoseg predict``: the main job."""

import contextlib
import glob
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import click

from geoseg.cli.events import CommandListener, JsonListener, ProgressKind, listening, plan_sentence
from geoseg.cli.options import BANDS, BOUNDS, FILE, GSD, SHARD, SIZE, BoundsCommand
from geoseg.cli.polygons import Polygons, with_polygons
from geoseg.config import DEFAULT_MAX_MEMORY_BYTES, PredictOptions
from geoseg.errors import InputError, UsageError

if TYPE_CHECKING:
    from geoseg.predict.finish import Outputs

GLOB_CHARACTERS = set("*?[")
# What nobody calls a folder: the files that such a name asks for are not what predict writes.
FILE_SUFFIXES = {".png", ".jpg", ".jpeg", ".jp2", ".img", ".vrt", ".bmp", ".gif", ".asc", ".nc"}
FILE_SUFFIXES |= {".webp", ".zarr", ".gpkg", ".shp", ".geojson", ".fgb", ".parquet", ".json"}


@click.command("predict", cls=BoundsCommand)
@click.argument("model")
@click.argument("rasters", metavar="RASTER...", nargs=-1, required=True)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--mosaic", is_flag=True, help="RASTERs are neighbours: one map of all.")
@click.option("--stack", is_flag=True, help="RASTERs hold the bands of one scene: one map.")
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
@click.option("--vector", type=FILE, help="Write polygons: .gpkg .shp .geojson .fgb .parquet.")
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
    mosaic: bool,
    stack: bool,
    vector: Path | None,
    progress: ProgressKind,
    watch_stdin: bool,
    dry_run: bool,
    **values: Any,
) -> None:
    """Predict the class map of RASTER with MODEL and write it to OUT.

    MODEL is a model file (.safetensors, .onnx, .pt2) or the name of a shipped model, see `geoseg
    models`. RASTER is anything GDAL reads: a file, a VRT, a URL, /vsi...; or a STAC item (.json),
    whose assets are chosen by the names of the model's bands. Several, or a pattern in quotes, make
    one map each in the folder OUT, unless --mosaic or --stack says that they belong together.

    \b
    geoseg predict demo-buildings-banepa ortho.tif buildings.tif
    geoseg predict model.safetensors "tiles/*.tif" maps/
    geoseg predict model.safetensors --stack B04.tif B03.tif B02.tif map.tif
    """
    options = PredictOptions(**values)
    if mosaic and stack:
        raise UsageError("rasters are neighbours (--mosaic) or bands (--stack); give one of both.")
    jobs = list(_jobs(rasters, out, options, together=mosaic or stack))
    polygons = None
    if vector is not None:
        names, target = _only_job(jobs, options)
        polygons, options = with_polygons(
            vector, options, target, names, model=model, stacked=stack
        )
        jobs = [(names, target, options)]
    with listening("predict", progress, watch_stdin=watch_stdin) as listener:
        for names, target, job_options in jobs:
            if len(jobs) > 1 and _is_finished(model, target, job_options):
                listener.log("info", f"{target} is finished: skipped")
                continue
            if (
                polygons is not None
                and not dry_run
                and _lacks_polygons(polygons, target, job_options)
            ):
                _finish_polygons(target, polygons, job_options, listener, names=names)
                continue
            with _as_one(model, names, stacked=stack) as raster:
                if dry_run:
                    _print_plan(model, raster, target, job_options, listener)
                else:
                    _predict(
                        model,
                        raster,
                        target,
                        job_options,
                        listener,
                        names=names,
                        polygons=polygons,
                    )


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


def _as_one(model: str, names: Sequence[str], *, stacked: bool) -> AbstractContextManager[str]:
    """Return what gives the name of the raster that a job predicts."""
    from geoseg.predict.stac import is_item, item_assets
    from geoseg.raster.combine import mosaic, stack

    if len(names) == 1 and is_item(names[0]):
        from geoseg.predict.model import load_record

        names, stacked = item_assets(names[0], load_record(model)), True
    if len(names) == 1:
        return contextlib.nullcontext(names[0])
    return stack(names) if stacked else mosaic(names)


def _is_map(out: Path) -> bool:
    """Return whether an output is a map, and not a folder of maps."""
    suffix = "" if out.is_dir() else out.suffix.lower()
    if suffix in FILE_SUFFIXES:
        raise UsageError(
            f"expected a .tif file or a folder as OUT; got {str(out)!r}. Give OUT.tif, and "
            "--vector OUT.gpkg for polygons."
        )
    return suffix in {".tif", ".tiff"}


def _jobs(
    rasters: Sequence[str], out: Path, options: PredictOptions, *, together: bool
) -> Iterator[tuple[list[str], Path, PredictOptions]]:
    """Yield the rasters of each map with its output and options."""
    names = expand(rasters)
    is_map = _is_map(out)
    if together and not is_map:
        raise UsageError(
            f"--mosaic and --stack make one map: give a .tif file as OUT; got {str(out)!r}."
        )
    if is_map and len(names) > 1 and not together:
        raise UsageError(
            f"{len(names)} rasters make one map each: give a folder as OUT; got {str(out)!r}. "
            "Or give --mosaic (neighbours) or --stack (bands of one scene)."
        )
    if is_map:
        yield names, out, options
        return
    scores = ("confidence", "probabilities", "quicklook")
    for score in scores:
        if getattr(options, score) is not None and len(names) > 1:
            raise UsageError(f"--{score} names one file; got {len(names)} rasters.")
    targets = [out / f"{_stem(name)}.tif" for name in names]
    if len(set(targets)) < len(targets):
        raise UsageError("two rasters have the same name; predict them into folders of their own.")
    read = {Path(name).resolve() for name in names}
    for target in targets:
        if target.resolve() in read:
            raise UsageError(
                f"the map {str(target)!r} would replace an input. Give another folder as OUT."
            )
    for name, target in zip(names, targets, strict=True):
        yield [name], target, options


def _stem(name: str) -> str:
    """Return a raster's name without folders, suffix, and what follows ``?`` in an address."""
    path = urlparse(name).path if "://" in name else name
    return PurePath(path.rstrip("/")).stem or "map"


def _only_job(
    jobs: Sequence[tuple[list[str], Path, PredictOptions]], options: PredictOptions
) -> tuple[list[str], Path]:
    """Return the rasters and the map of the one job that may end with polygons."""
    if len(jobs) > 1:
        raise UsageError(f"--vector names one file; got {len(jobs)} rasters.")
    if options.shard is not None:
        raise UsageError(
            "--vector needs the whole map, --shard makes a part of it. Join the parts by `geoseg "
            "assemble`, then run `geoseg vectorize`."
        )
    return jobs[0][0], jobs[0][1]


def _is_finished(model: str, target: Path, options: PredictOptions) -> bool:
    """Return whether an earlier run of several rasters has finished this one with this model."""
    from geoseg.model_files import file_sha256, find_model
    from geoseg.predict.parts import MANIFEST, parts_folder
    from geoseg.raster.reader import open_raster

    if not options.resume or not target.exists() or (parts_folder(target) / MANIFEST).exists():
        return False
    with open_raster(str(target)) as dataset:
        made_with = dataset.tags().get("GEOSEG_MODEL_SHA256")
    return made_with == file_sha256(find_model(model))


def _lacks_polygons(polygons: Polygons, target: Path, options: PredictOptions) -> bool:
    """Return whether an earlier run ended between its map and the polygons of it."""
    from geoseg.predict.finish import outputs_of
    from geoseg.predict.parts import MANIFEST, parts_folder

    if not options.resume or (parts_folder(target) / MANIFEST).exists():
        return False
    made = outputs_of(target, options)
    return polygons.are_all_that_lacks(
        made.class_map, (made.confidence, made.probabilities, made.quicklook)
    )


def _finish_polygons(
    target: Path,
    polygons: Polygons,
    options: PredictOptions,
    listener: CommandListener,
    *,
    names: Sequence[str],
) -> None:
    """Make the polygons of a map that an earlier run has finished."""
    from geoseg.predict.finish import outputs_of

    began = time.perf_counter()
    listener.log("info", f"{target} is finished: only its polygons are made")
    outputs = outputs_of(target, options)
    made = polygons.write(target, options, listener, alone=True)
    outputs = replace(outputs, confidence=made)
    record = {"rasters": list(names), "seconds": round(time.perf_counter() - began, 3)}
    listener.result({"outputs": _named(outputs, polygons), **record})


def _predict(
    model: str,
    raster: str,
    out: Path,
    options: PredictOptions,
    listener: CommandListener,
    *,
    names: Sequence[str],
    polygons: Polygons | None,
) -> None:
    from geoseg.predict import predict_raster

    began = time.perf_counter()
    if polygons is not None and not out.exists():
        polygons.hidden_confidence.unlink(missing_ok=True)  # of a run that was killed
        polygons.record.unlink(missing_ok=True)
    result = predict_raster(model, raster, out, options=options, listener=listener)
    outputs = result.outputs
    if polygons is not None:
        made = polygons.write(outputs.class_map, options, listener)
        outputs = replace(outputs, confidence=made)
    if not result.complete:
        listener.log("info", f"share done; `geoseg assemble {out}.parts {out}` joins all shares")
    named = _named(outputs, polygons)
    listener.result(
        {
            "outputs": named if result.complete else dict.fromkeys(named),
            "rasters": list(names),
            "seconds": round(time.perf_counter() - began, 3),
            "pixels": result.pixels,
            "tiles": result.tiles,
        }
    )


def _named(outputs: "Outputs", polygons: Polygons | None) -> dict[str, str | None]:
    """Return the files of a result by their kind."""
    files = {
        "class_map": outputs.class_map,
        "confidence": outputs.confidence,
        "probabilities": outputs.probabilities,
        "vector": polygons.out if polygons is not None else None,
        "quicklook": outputs.quicklook,
    }
    return {kind: None if path is None else str(path) for kind, path in files.items()}


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
