"""Memory, disk and time of a run, measured or computed before its first tile."""

import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoseg.config import PredictOptions
from geoseg.errors import OutOfMemoryError
from geoseg.predict.memory import peak_rss_bytes
from geoseg.predict.plan import PredictPlan, with_strips
from geoseg.predict.tiles import TileRunner
from geoseg.raster.reader import open_raster, read_window
from geoseg.spec import ModelSpec
from geoseg.types import Window

GDAL_CACHE_BYTES = 16 * 2**20
# Buffers of the writer thread and of GDAL's COG driver.
WRITER_BYTES = 96 * 2**20
# Windows of this size, in a grid of 3 x 3, tell whether an image looks like the training data.
SAMPLE_PX = 256
LARGEST_MEAN_SHIFT_STDS = 3.0
LARGEST_SPREAD_RATIO = 4.0


@dataclass(frozen=True)
class Budget:
    """What a run needs.

    Attributes:
        memory_bytes: peak of the whole process.
        disk_bytes: parts and output before compression: an upper bound.
        free_disk_bytes: where the output goes.
        seconds: estimate for all tiles; 0 when no tile was timed.
    """

    memory_bytes: int
    disk_bytes: int
    free_disk_bytes: int
    seconds: float


def measure(plan: PredictPlan, runner: TileRunner, out: Path, *, timed_batches: int) -> Budget:
    """Run the network on empty tiles to learn its memory and, with more than one, its time."""
    source, tile = plan.source, plan.grid.rows.tile_px
    dtype = np.float32 if source.is_resampled else np.dtype(source.selection.dtype)
    blank = np.zeros((len(source.selection.bands), tile, tile), dtype)
    count = min(plan.batch, len(plan.grid.cols))
    seconds = math.inf
    for _ in range(1 + timed_batches):
        began = time.perf_counter()
        runner.run([(blank, None)] * count)
        seconds = min(seconds, time.perf_counter() - began)
    tiles = plan.tile_count(list(range(len(plan.panels))))
    pixels = plan.height * plan.width
    folder = out.parent if out.parent.exists() else Path.cwd()
    return Budget(
        memory_bytes=peak_rss_bytes() + plan.strip_bytes + GDAL_CACHE_BYTES + WRITER_BYTES,
        # The parts, the map, and its overviews while they are made.
        disk_bytes=int(pixels * plan.cost.pixel_bytes * (1 + 1 + 2 / 3)),
        free_disk_bytes=shutil.disk_usage(folder).free,
        seconds=seconds / count * tiles if timed_batches else 0.0,
    )


def keep_to_budget(
    plan: PredictPlan, budget: Budget, most_bytes: int, device: torch.device
) -> tuple[PredictPlan, Budget]:
    """Return plan and budget with strips that are narrow enough, where that helps.

    The map is the same: only more tiles are run twice, those at the borders of strips.
    """
    strip = plan.strip_bytes
    rest = budget.memory_bytes - strip
    if rest + strip <= most_bytes:
        return plan, budget
    narrower = with_strips(plan, plan.cost.fitting_tiles(most_bytes - rest), device)
    need = narrower.strip_bytes
    if need >= strip:
        return plan, budget
    tiles = [p.tile_count(list(range(len(p.panels)))) for p in (plan, narrower)]
    seconds = budget.seconds * tiles[1] / tiles[0]
    return narrower, replace(budget, memory_bytes=rest + need, seconds=seconds)


def check_budget(budget: Budget, options: PredictOptions) -> None:
    """Raise an OutOfMemoryError when the run cannot keep to ``max_memory_bytes``."""
    if budget.memory_bytes > options.max_memory_bytes:
        raise OutOfMemoryError(
            f"this run needs about {_gb(budget.memory_bytes)} of memory; --max-memory allows "
            f"{_gb(options.max_memory_bytes)}. Give more, or a smaller --tile-size or "
            "--batch-size."
        )


def statistics_warnings(plan: PredictPlan, spec: ModelSpec) -> list[str]:
    """Compare samples of the image with the model's training statistics; return what is far off."""
    samples = _samples(plan)
    warnings = []
    for i, band in enumerate(spec.bands):
        has_record = (band.mean, band.std) != (0.0, 1.0)
        values = samples[i]
        if not has_record or values.size < SAMPLE_PX:
            continue
        scale, offset = plan.source.selection.scaling[i] or (band.scale, band.offset)
        mean, std = float(values.mean()) * scale + offset, float(values.std()) * abs(scale)
        shift = abs(mean - band.mean) / band.std
        ratio = std / band.std
        far = shift > LARGEST_MEAN_SHIFT_STDS or ratio > LARGEST_SPREAD_RATIO
        if far or ratio < 1 / (2 * LARGEST_SPREAD_RATIO):
            warnings.append(
                f"band {plan.source.selection.bands[i]} ({band.name}) has mean {mean:.4g} and "
                f"standard deviation {std:.4g}; the model was trained on {band.mean:.4g} and "
                f"{band.std:.4g}. Check the scaling: the map may be wrong."
            )
    return warnings


def plan_record(plan: PredictPlan, budget: Budget | None, spec: ModelSpec) -> dict[str, Any]:
    """Return a plan as JSON values, for people and programs."""
    source, grid = plan.source, plan.grid
    record: dict[str, Any] = {
        "model": spec.name,
        "raster": source.info.name,
        "width_px": plan.width,
        "height_px": plan.height,
        "mpx": plan.width * plan.height / 1e6,
        "bands": list(source.selection.bands),
        "dtype": source.selection.dtype,
        "gsd_m": list(plan.gsd_m) if plan.gsd_m else None,
        "model_gsd_m": plan.target_gsd_m,
        "tiles": plan.tile_count(list(range(len(plan.panels)))),
        "tile_size_px": grid.rows.tile_px,
        "overlap_px": plan.overlap_px,
        "halo_px": grid.rows.halo_px,
        "batch_size": plan.batch,
        "panels": len(plan.panels),
        "views": plan.views,
        "device": plan.fingerprint["device"],
        "precision": plan.fingerprint["precision"],
        "kernels": plan.fingerprint["kernels"],
        "layers": [layer.name for layer in plan.layers],
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
    }
    if budget is not None:
        record |= {
            "memory_bytes": budget.memory_bytes,
            "disk_bytes": budget.disk_bytes,
            "free_disk_bytes": budget.free_disk_bytes,
            "seconds": round(budget.seconds, 1) if budget.seconds else None,
        }
    return record


def _samples(plan: PredictPlan) -> list[np.ndarray]:
    """Return valid raw values per band from nine windows of the crop."""
    source, crop = plan.source, plan.source.crop
    found: list[list[np.ndarray]] = [[] for _ in source.selection.bands]
    height, width = min(SAMPLE_PX, crop.height), min(SAMPLE_PX, crop.width)
    with open_raster(source.info.name) as dataset:
        for i in range(9):
            row = crop.row + (crop.height - height) * (i // 3) // 2
            col = crop.col + (crop.width - width) * (i % 3) // 2
            values, valid = read_window(dataset, source.selection, Window(row, col, height, width))
            for band, kept in zip(values, found, strict=True):
                kept.append((band if valid is None else band[valid]).astype(np.float64).ravel())
    return [np.concatenate(kept) for kept in found]


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"
