"""``geoseg doctor``: versions, devices, kernels, and how much tiling shows."""

import importlib.metadata
import json
import platform
from typing import Any

import click

import geoseg
from geoseg.errors import UsageError

# Beside the two operations of SegMAN, which have backends of their own.
KERNELS = ("normalize", "blend", "classify", "overviews", "sieve", "polygons")
PACKAGES = ("torch", "numpy", "rasterio", "shapely", "geopandas", "pyogrio", "safetensors")
OPTIONAL = ("torchgeo", "lightning", "onnx", "onnxruntime", "natten")


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--seams",
    nargs=2,
    metavar="MODEL RASTER",
    help="Measure how much tiling shows in maps of this model, for rising overlaps.",
)
@click.option("--tile-size", "tile_size_px", type=click.IntRange(1), help="For --seams, px.")
def command(as_json: bool, seams: tuple[str, str] | None, tile_size_px: int | None) -> None:
    """Say what geoseg runs on here: versions, devices, which kernels run and why not the others."""
    if seams is not None:
        _seams(*seams, tile_size_px, as_json=as_json)
        return
    if tile_size_px is not None:
        raise UsageError("--tile-size goes with --seams.")
    record = doctor_record()
    click.echo(json.dumps(record, indent=2) if as_json else _text(record))


def doctor_record() -> dict[str, Any]:
    """Return versions, devices and kernels as JSON values."""
    import rasterio
    import torch

    from geoseg import _native
    from geoseg.cli.events import PROTOCOL
    from geoseg.ops.backends import BACKENDS, available_backends
    from geoseg.predict.model import device_refusal

    cuda = device_refusal(torch.device("cuda"))
    mps = device_refusal(torch.device("mps"))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    reason = _native.unavailable_reason()
    return {
        "geoseg": geoseg.__version__,
        "protocol": PROTOCOL,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES + OPTIONAL},
        "gdal": rasterio.__gdal_version__,
        "proj": rasterio.__proj_version__,
        "devices": {
            "cpu": {"usable": True, **_cpu(torch)},
            "cuda": {"usable": cuda is None, "reason": cuda, "names": gpus},
            "mps": {"usable": mps is None, "reason": mps},
        },
        "kernels": {
            "cpu": {
                "usable": reason is None,
                "reason": reason,
                "instruction_set": _native.instruction_set(),
                "for": list(KERNELS),
            },
            "reference": {"usable": True, "for": list(KERNELS)},
        },
        "operations": {name: available_backends(name) for name in BACKENDS},
        "layout": "channels_last",
    }


def _cpu(torch: Any) -> dict[str, Any]:
    """Return what matters of the CPU: threads, and how bf16 runs on it."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if able.get("amx_bf16"):
        bf16 = "AMX tiles"
    elif able.get("avx512_bf16"):
        bf16 = "AVX-512 BF16 instructions"
    else:
        bf16 = "emulated: slower than fp32"
    return {
        "name": able.get("cpu_name") or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "simd": str(torch.backends.cpu.get_cpu_capability()),
        "bf16": bf16,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _text(record: dict[str, Any]) -> str:
    cpu, cuda = record["devices"]["cpu"], record["devices"]["cuda"]
    mps, kernels = record["devices"]["mps"], record["kernels"]["cpu"]
    found = {k: v for k, v in record["packages"].items() if v}
    lacking = [k for k in OPTIONAL if k not in found]
    lines = [
        f"geoseg {record['geoseg']}, Python {record['python']}, {record['platform']}",
        "packages  " + ", ".join(f"{k} {v}" for k, v in found.items()),
        f"          GDAL {record['gdal']}, PROJ {record['proj']}",
        f"not installed (optional): {', '.join(lacking)}" if lacking else "",
        f"cpu       {cpu['name']}, {cpu['threads']} threads, {cpu['simd']}; bf16: {cpu['bf16']}",
        f"cuda      {', '.join(cuda['names']) if cuda['usable'] else 'no: ' + cuda['reason']}",
        f"mps       {'yes' if mps['usable'] else 'no: ' + mps['reason']}",
        f"kernels   compiled for {kernels['instruction_set']}: {', '.join(kernels['for'])}"
        if kernels["usable"]
        else f"kernels   {kernels['reason']}: the slower reference path runs instead",
        *_operations(record["operations"]),
        f"layout    networks run {record['layout']}",
    ]
    return "\n".join(line for line in lines if line)


def _operations(operations: dict[str, dict[str, str | None]]) -> list[str]:
    """Return a line per operation of SegMAN, and one per backend that cannot run."""
    lines = []
    reasons: dict[str, str] = {}
    for name, backends in operations.items():
        runs = [backend for backend, reason in backends.items() if reason is None]
        reasons |= {backend: reason for backend, reason in backends.items() if reason is not None}
        lines.append(f"          {name}: {', '.join(runs)}")
    return lines + [f"          not {backend}: {reason}" for backend, reason in reasons.items()]


def _seams(model: str, raster: str, tile_size_px: int | None, *, as_json: bool) -> None:
    from geoseg.config import PredictOptions
    from geoseg.predict.seams import GOAL_CHANGED, GOAL_EDGE_RATIO, best, measure_seams

    options = PredictOptions(tile_size_px=tile_size_px)
    if not as_json:
        click.echo("overlap px    tiles    edges on tile lines / elsewhere    pixels changed")
    measures = []
    for m in measure_seams(model, raster, options=options):
        measures.append(m)
        if not as_json:
            click.echo(
                f"{m.overlap_px:10d} {m.tiles:8d} {m.edge_ratio:18.3f} +- {m.edge_ratio_error:.3f}"
                f" {100 * m.changed:20.3f} %"
            )
    chosen = best(measures)
    if as_json:
        curve = [vars(m) | {"is_good": m.is_good} for m in measures]
        click.echo(json.dumps({"curve": curve, "best_overlap_px": chosen.overlap_px}, indent=2))
        return
    goals = f"at most {GOAL_EDGE_RATIO} and {100 * GOAL_CHANGED:g} %"
    verdict = "meets both goals" if chosen.is_good else "is the best, but misses the goals"
    click.echo(f"overlap {chosen.overlap_px} px {verdict} ({goals})")
