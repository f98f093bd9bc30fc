"""``geoseg describe``: a model, a raster and whether they fit, or a data set and its problems."""

import json
import math
import time
from pathlib import Path
from typing import Any

import click

from geoseg.cli.dataset import dataset_lines, describe_dataset
from geoseg.cli.events import JsonListener, ProgressKind, Stop, listening
from geoseg.cli.options import BANDS, progress_options
from geoseg.errors import GeoreferenceError, GeosegError, InputError, RasterReadError, UsageError
from geoseg.model_files import find_model, read_spec, shipped_models
from geoseg.types import BandIndexes

MODEL_SUFFIXES = {".safetensors", ".onnx", ".pt2"}
RUN_SUFFIXES = {".yaml", ".yml"}


@click.command("describe")
@click.argument("file")
@click.option("--model", help="Say whether this model can take the raster FILE.")
@click.option("--bands", type=BANDS, help="Bands in the model's order, from 1.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Processes that read a data set.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@progress_options
def command(
    *,
    file: str,
    model: str | None,
    bands: BandIndexes | None,
    workers: int,
    as_json: bool,
    progress: ProgressKind,
    watch_stdin: bool,
) -> None:
    """Describe FILE: a model (file or shipped name), a raster, or a data set.

    A data set is a run file (.yaml), or a file with its data section alone, or a folder. Every
    sample is read; what is wrong with them is listed.

    With --model, exits with 3 and says why if the model cannot take the raster.
    """
    began = time.perf_counter()
    if as_json and progress == "json":
        raise UsageError("--json and --progress json both write to stdout; give one of them.")
    if _is_dataset(file):
        if model is not None or bands is not None:
            raise UsageError(f"--model and --bands need a raster; {file!r} is a data set.")
        with listening("describe", progress, watch_stdin=watch_stdin) as listener:
            record = describe_dataset(file, workers=workers, listener=listener)
    else:
        record = describe_model(file) if _is_model(file) else describe_raster(file)
    refusal = None
    if model is not None:
        refusal = _refusal(file, model, bands)
        record["fits"] = {"model": model, "ok": refusal is None, "reason": str(refusal or "")}
    if progress == "json":
        seconds = round(time.perf_counter() - began, 3)
        result = {"outputs": {}, "description": record, "seconds": seconds}
        JsonListener("describe", Stop()).result(result)
    else:
        click.echo(json.dumps(record, indent=2) if as_json else _text(record))
    if refusal is not None:
        raise refusal


def describe_model(model: str) -> dict[str, Any]:
    """Return a model's record as JSON values."""
    if Path(model).suffix.lower() == ".safetensors" or model in shipped_models():
        spec = read_spec(find_model(model))
    else:
        from geoseg.predict.model import load_record

        spec = load_record(model)
    return {"kind": "model", **json.loads(spec.to_json())}


def describe_raster(name: str) -> dict[str, Any]:
    """Return what a raster's header says, and its ground sample distance."""
    from geoseg.raster import inspect_raster, open_raster
    from geoseg.raster.georef import bounds_of, local_gsd

    with open_raster(name) as dataset:
        info = inspect_raster(dataset, name)
    georef = info.georef
    gsd_m: list[float] | None = None
    if georef.is_complete:
        try:
            gsd_m = list(local_gsd(georef, info.height / 2, info.width / 2))
        except GeoreferenceError:
            gsd_m = None
    bands = [
        {
            "band": i,
            "name": info.band_name(i),
            "color": info.colors[i - 1],
            "dtype": info.dtypes[i - 1],
            "nodata": _number(info.nodata[i - 1]),
            "scaling": info.scaling[i - 1],
        }
        for i in range(1, info.count + 1)
    ]
    return {
        "kind": "raster",
        "name": name,
        "driver": info.driver,
        "width_px": info.width,
        "height_px": info.height,
        "mpx": info.width * info.height / 1e6,
        "bands": bands,
        "mask": info.has_mask,
        "crs": georef.crs.to_string() if georef.crs else None,
        "transform": list(georef.transform)[:6],
        "bounds": list(bounds_of(georef.transform, info.height, info.width)),
        "gcps": len(georef.gcps),
        "rpcs": georef.rpcs is not None,
        "gsd_m": gsd_m,
        "compression": info.compression,
        "block_px": list(info.block_shape),
        "files": list(info.files),
    }


def _is_model(file: str) -> bool:
    return Path(file).suffix.lower() in MODEL_SUFFIXES or file in shipped_models()


def _is_dataset(file: str) -> bool:
    """Return whether FILE is a run file, or a folder that GDAL does not know as a raster."""
    if Path(file).suffix.lower() in RUN_SUFFIXES:
        return True
    if not Path(file).is_dir():
        return False
    from geoseg.raster import open_raster

    try:
        with open_raster(file):
            return False
    except RasterReadError:
        return True


def _refusal(raster: str, model: str, bands: BandIndexes | None) -> GeosegError | None:
    """Return why the model cannot take the raster, or None."""
    import torch

    from geoseg.config import PredictOptions
    from geoseg.predict.model import load_segmenter
    from geoseg.predict.plan import plan_prediction

    segmenter = load_segmenter(model)
    try:
        plan_prediction(segmenter, raster, PredictOptions(bands=bands), torch.device("cpu"))
    except InputError as error:
        return error
    return None


def _number(value: float | None) -> float | str | None:
    """Return a nodata value as JSON can hold it."""
    return value if value is None or math.isfinite(value) else str(value)


def _text(record: dict[str, Any]) -> str:
    to_lines = {"model": _model_lines, "raster": _raster_lines, "data": dataset_lines}
    lines = to_lines[record["kind"]](record)
    if "fits" in record:
        fits = record["fits"]
        verdict = "yes" if fits["ok"] else f"no: {fits['reason']}"
        lines.append(f"fits {fits['model']}: {verdict}")
    return "\n".join(lines)


def _model_lines(record: dict[str, Any]) -> list[str]:
    gsd = record["gsd_m"]
    range_m = f"{gsd[0]:g} to {gsd[1]:g} m per pixel" if gsd else "unknown: never resampled"
    bands = ", ".join(band["name"] for band in record["bands"])
    tile = record["tile"]
    lines = [
        record["name"],
        f"  {record['description']}",
        f"  eats      {len(record['bands'])} band(s) ({bands}), {record['dtype']}",
        f"  GSD       {range_m}",
        f"  tiles     {tile['size_px']} px, overlap {tile['overlap_px']} px",
        f"  network   {record['architecture']['name']}",
        "  classes",
    ]
    lines += [f"    {c['id']:3d}  {c['color']}  {c['name']}" for c in record["classes"]]
    for key in ("warning", "first_convolution", "data", "licence", "recipe"):
        if record[key]:
            lines.append(f"  {key}: {record[key]}")
    lines += [f"  credit: {credit}" for credit in record["credits"]]
    lines += [f"  {name}: {value:g}" for name, value in record["metrics"].items()]
    lines += [
        f"  {name}: {100 * found['agreement']:.2f} % of pixels as fp32, mIoU "
        f"{found['miou_delta']:+.3f} points (on {found['device']})"
        for name, found in record["precision"].items()
    ]
    return lines


def _raster_lines(record: dict[str, Any]) -> list[str]:
    gsd = record["gsd_m"]
    lines = [
        f"{record['name']} ({record['driver']})",
        f"  size      {record['width_px']} x {record['height_px']} px ({record['mpx']:.1f} Mpx)",
        f"  CRS       {record['crs'] or 'none'}",
        f"  GSD       {f'{gsd[0]:.4g} x {gsd[1]:.4g} m' if gsd else 'unknown'}",
        f"  blocks    {record['block_px'][1]} x {record['block_px'][0]} px, "
        f"{record['compression']}",
    ]
    if record["gcps"] or record["rpcs"]:
        lines.append(f"  placed by {record['gcps']} ground control points, RPC: {record['rpcs']}")
    for band in record["bands"]:
        nodata = "" if band["nodata"] is None else f", nodata {band['nodata']}"
        scaling = "" if band["scaling"] is None else ", scale {} offset {}".format(*band["scaling"])
        lines.append(f"  band {band['band']:<4d} {band['name']}, {band['dtype']}{nodata}{scaling}")
    if record["mask"]:
        lines.append("  has a mask")
    return lines
