"""Predict a raster: from a model and a GeoTIFF to a georeferenced class map, step by step."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
import torch
from torch import Tensor, nn

from geoseg.config import PredictOptions
from geoseg.listener import Listener
from geoseg.predict.blend import Mosaic
from geoseg.predict.budget import (
    GDAL_CACHE_BYTES,
    Budget,
    check_budget,
    keep_to_budget,
    measure,
    plan_record,
    statistics_warnings,
)
from geoseg.predict.collect import Collector, LogitsTap, RowMemory, is_needed
from geoseg.predict.finish import (
    Outputs,
    check_inputs_kept,
    check_options,
    finish_map,
    make_folders,
    make_manifest,
    may_replace,
    outputs_of,
    stoppable_copy,
)
from geoseg.predict.memory import FreedMemory, keep_freed_memory
from geoseg.predict.model import as_segmenter, choose_device
from geoseg.predict.parts import Parts, open_parts, parts_folder, read_manifest
from geoseg.predict.plan import PredictPlan, plan_prediction
from geoseg.predict.quicklook import write_quicklook
from geoseg.predict.threads import OrderedThread
from geoseg.predict.tiles import Tile, TileRunner
from geoseg.raster.gdal import quiet_georeference
from geoseg.raster.grid import Panel, shard_of
from geoseg.raster.tiles import TileReader
from geoseg.raster.writer import PartsWriter
from geoseg.segmenter import Segmenter

# The VRT over unfinished parts is rewritten at most this often.
VRT_EVERY_S = 2.0
# From here on GDAL takes seconds to make the COG, longer than somebody waits who has stopped a run.
LARGE_PX = 10**8


@dataclass(frozen=True)
class PredictResult:
    """What a run has made.

    Attributes:
        outputs: files by kind; with ``shard``, what the assembled map will be.
        seconds: wall time.
        pixels: of the map.
        tiles: run in this call, or found to have no valid pixel.
        complete: False when only a share of the panels was made.
    """

    outputs: Outputs
    seconds: float
    pixels: int
    tiles: int
    complete: bool


def predict_raster(
    model: str | Path | nn.Module,
    raster: str | Path,
    out: str | Path,
    *,
    options: PredictOptions | None = None,
    listener: Listener | None = None,
    tap: LogitsTap | None = None,
) -> PredictResult:
    """Predict the class map of a raster.

    Args:
        model: path of a model file, name of a shipped model, a `Segmenter`, or any module
            (N, C, H, W) -> (N, K, H, W) with a ModelSpec as its attribute ``spec``.
        raster: anything that rasterio opens.
        out: the class map, ``.tif``.
        options: how; None: as the model advises.
        listener: hears of progress and may stop the run.
        tap: hears of the blended logits; of those that this call makes, when it resumes another.

    Returns:
        The files made. The map lies on the raster's grid, with its CRS and transform.

    Raises:
        InputError: raster and model do not fit each other, or a file is damaged.
        UsageError: the output or unfinished parts exist, or options contradict each other.
        MachineError: disk, memory or device; finished parts are kept.
    """
    options, listener = options or PredictOptions(), listener or Listener()
    began = time.perf_counter()
    outputs = outputs_of(Path(out), options)
    check_options(outputs, options)
    device, segmenter = _ready(model, options)
    with quiet_georeference(), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        plan, runner, budget = _planned(
            segmenter, str(raster), outputs.class_map, options, device=device, timed_batches=0
        )
        check_budget(budget, options)
        check_inputs_kept(outputs, _inputs(plan, model, options))
        make_folders(outputs)
        listener.start(plan_record(plan, budget, segmenter.spec))
        warnings = [*statistics_warnings(plan, segmenter.spec), *_slow(segmenter, device)]
        _announce(plan, warnings, listener)
        with open_parts(
            outputs.class_map,
            make_manifest(plan, segmenter, overwrite=options.overwrite),
            resume=options.resume,
            overwrite=options.overwrite,
            shard=options.shard,
        ) as parts:
            tiles = run_panels(plan, runner, parts, listener, options, tap=tap)
            if options.shard is None:
                classes = segmenter.spec.classes
                finish_map(
                    parts,
                    outputs,
                    listener,
                    overwrite=may_replace(parts.folder, options),
                    picture=lambda made, png: write_quicklook(plan.source, made, png, classes),
                    copy=stoppable_copy(listener) if plan.height * plan.width >= LARGE_PX else None,
                )
    seconds = time.perf_counter() - began
    complete = options.shard is None
    return PredictResult(outputs, seconds, plan.height * plan.width, tiles, complete)


def plan_raster(
    model: str | Path | nn.Module,
    raster: str | Path,
    out: str | Path,
    *,
    options: PredictOptions | None = None,
) -> dict[str, Any]:
    """Return what `predict_raster` would do, timed on a few tiles; writes nothing."""
    options = options or PredictOptions()
    device, segmenter = _ready(model, options)
    with quiet_georeference(), rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        plan, _, budget = _planned(
            segmenter, str(raster), Path(out), options, device=device, timed_batches=3
        )
        record = plan_record(plan, budget, segmenter.spec)
        record["warnings"] += statistics_warnings(plan, segmenter.spec)
    return record


def _planned(
    segmenter: Segmenter,
    raster: str,
    out: Path,
    options: PredictOptions,
    *,
    device: torch.device,
    timed_batches: int,
) -> tuple[PredictPlan, TileRunner, Budget]:
    """Return the plan of a run that keeps to its memory, and what runs its tiles."""
    begun = None
    if options.resume or options.shard is not None:
        begun = read_manifest(parts_folder(out))
    # A run that has begun goes on with its panels, whatever memory is allowed by now.
    strip_tiles = begun.get("strip_tiles") if begun else None
    plan = plan_prediction(segmenter, raster, options, device, strip_tiles=strip_tiles)
    runner = TileRunner(segmenter.for_scaling(plan.source.selection.scaling), options.tta, device)
    budget = measure(plan, runner, out, timed_batches=timed_batches)
    if begun is None:
        allowed = options.max_memory_bytes
        plan, budget = keep_to_budget(plan, budget, allowed, device)
    return plan, runner, budget


def run_panels(
    plan: PredictPlan,
    runner: TileRunner,
    parts: Parts,
    listener: Listener,
    options: PredictOptions,
    *,
    tap: LogitsTap | None = None,
) -> int:
    """Predict the panels that are not finished, each written before the next begins.

    Returns:
        Number of tiles run or found to have no valid pixel.
    """
    share = range(len(plan.panels))
    if options.shard is not None:
        share = shard_of(len(plan.panels), options.shard)
    todo = [i for i in share if i not in parts.done]
    work = _Work(plan, runner, parts, listener, plan.tile_count(todo), tap=tap)
    with work.open():
        for panels in _columns(plan, todo):
            work.run_column(panels)
    return work.done_tiles


class _Work:
    """The state of a run: readers, the blending and the writing thread, the counters."""

    def __init__(
        self,
        plan: PredictPlan,
        runner: TileRunner,
        parts: Parts,
        listener: Listener,
        total_tiles: int,
        *,
        tap: LogitsTap | None,
    ) -> None:
        self.plan = plan
        self.runner = runner
        self.parts = parts
        self.listener = listener
        self.total_tiles = total_tiles
        self.tap = tap
        self.done_tiles = 0
        self.done_pixels = sum(w.height * w.width for w in parts.done.values())
        self.writer = PartsWriter(parts.folder, plan.layers, plan.height, plan.width, plan.georef)
        self.row_memory = RowMemory(self.runner.segmenter.spec, plan.kinds)
        self._freed = FreedMemory()
        self._vrt_at = 0.0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the threads of the run; leave no half panel and a true VRT behind."""
        plan = self.plan
        with (
            TileReader(
                plan.source, plan.grid, threads=plan.cost.readers, batch=plan.batch
            ) as self.reader,
            # One row is written while the next is filled: `RowMemory` holds two.
            OrderedThread("geoseg-write", ahead=0) as self.writing,
            # The network may be this many tiles ahead of their blending.
            OrderedThread("geoseg-blend", ahead=2) as self.blending,
        ):
            try:
                yield
            except BaseException:
                self.blending.drop()
                self.writing.drop()
                self.writer.abandon()
                self._write_vrts(now=True)
                raise
            self._write_vrts(now=True)
        self._freed.give_back(now=True)

    def run_column(self, panels: Sequence[Panel]) -> None:
        """Run panels that follow each other downwards in one strip."""
        plan, first = self.plan, panels[0]
        batches = plan.batches(first)
        rows = range(plan.first_tile_row(first), panels[-1].rows[-1] + 1)
        self.reader.start(rows, range(batches[0][0], batches[-1][-1] + 1))
        cols = plan.tile_cols(first)
        mosaic = Mosaic(
            plan.grid, plan.cost.planes, cols, plan.strip_cols(first), self.runner.device
        )
        collector = Collector(plan, self.runner.segmenter, first, self.row_memory, self.tap)
        for panel in panels:
            window = plan.window(panel)
            self.writer.open_panel(panel.index, window)
            for row in range(rows[0] if panel is first else panel.rows[0], panel.rows[-1] + 1):
                self._run_row(row, batches, mosaic, collector, window.row)
            self._commit(panel)

    def _run_row(
        self,
        row: int,
        batches: Sequence[range],
        mosaic: Mosaic,
        collector: Collector,
        first_output_row: int,
    ) -> None:
        """Run one row of tiles; blending, classifying and writing follow on their threads."""
        tile_row = self.reader.advance(row, batches[0][0])
        self.blending.submit(mosaic.start_row, row)
        self.blending.submit(collector.begin_row, tile_row)
        for batch in batches:
            self.listener.check()
            wanted, tiles = self._read_batch(row, batch)
            logits = dict(zip(wanted, self.runner.run(tiles), strict=True))
            cols = [col for col in batch if col in mosaic.tile_cols]
            self.blending.submit(_blend, mosaic, collector, cols, logits)
            self.done_tiles += len(cols)
            self.listener.progress(self.done_tiles, self.total_tiles, self.done_pixels)
        self.blending.submit(self._end_row, collector, first_output_row)

    def _read_batch(self, row: int, batch: range) -> tuple[list[int], list[Tile]]:
        """Return the tiles of a batch that some valid pixel needs, and their columns."""
        wanted, tiles = [], []
        for col in batch:
            if is_needed(self.plan, self.reader.advance(row, col), col):
                wanted.append(col)
                tiles.append(self.reader.read_tile(row, col))
        return wanted, tiles

    def _end_row(self, collector: Collector, first_output_row: int) -> None:
        """Pass the output rows that a row of tiles has completed on to the writer."""
        rows = collector.end_row()
        if rows is not None:
            self.writing.submit(self.writer.write_rows, rows.row - first_output_row, rows.layers)

    def _commit(self, panel: Panel) -> None:
        """Make a panel durable; the next one begins after it, so that one at most is lost."""
        self.blending.wait()
        self.writing.wait()
        files = self.writer.commit_panel()
        self.parts.record(panel.index, files, self.runner.largest_batch)
        window = self.plan.window(panel)
        self.done_pixels += window.height * window.width
        self._write_vrts(now=False)
        self._freed.give_back()

    def _write_vrts(self, *, now: bool) -> None:
        if not now and time.monotonic() - self._vrt_at < VRT_EVERY_S:
            return
        self._vrt_at = time.monotonic()
        self.parts.refresh_others()
        for layer in self.plan.layers:
            self.writer.write_vrt(layer, self.parts.done, self.parts.manifest["tags"])


@torch.inference_mode()
def _blend(
    mosaic: Mosaic, collector: Collector, cols: Sequence[int], logits: Mapping[int, Tensor]
) -> None:
    for col in cols:
        finished = mosaic.add(col, logits.get(col))
        if finished is not None:
            collector.put(finished)


def _ready(
    model: str | Path | nn.Module, options: PredictOptions
) -> tuple[torch.device, Segmenter]:
    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    return device, as_segmenter(model, device, options.precision)


def _inputs(
    plan: PredictPlan, model: str | Path | nn.Module, options: PredictOptions
) -> list[str | Path]:
    """Return the files that a run reads."""
    named = [] if isinstance(model, nn.Module) else [model]
    return [*plan.source.info.files, *named, *([options.aoi] if options.aoi else [])]


def _columns(plan: PredictPlan, todo: Sequence[int]) -> Iterator[list[Panel]]:
    """Yield runs of panels that follow each other downwards in one strip."""
    column: list[Panel] = []
    for index in todo:
        panel = plan.panels[index]
        if column and (column[-1].index + 1 != index or column[-1].strip != panel.strip):
            yield column
            column = []
        column.append(panel)
    if column:
        yield column


def _slow(segmenter: Segmenter, device: torch.device) -> Iterator[str]:
    if device.type == "cpu" and segmenter.compute_dtype == torch.float16:
        yield "fp16 on a CPU takes many times as long as fp32: leave --precision away, or give bf16"


def _announce(plan: PredictPlan, warnings: Sequence[str], listener: Listener) -> None:
    for note in plan.notes:
        listener.log("info", note)
    for warning in [*plan.warnings, *warnings]:
        listener.log("warning", warning)
