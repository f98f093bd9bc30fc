"""Everything that a run decides before its first tile: area, grid, panels, layers, messages."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import geoseg
from geoseg import _native
from geoseg.config import PredictOptions
from geoseg.errors import UsageError
from geoseg.predict.area import Area, Stencil, load_area
from geoseg.predict.place import (
    check_georeference,
    choose_crop,
    gsd_notes,
    gsd_warnings,
    native_gsd,
    target_gsd,
)
from geoseg.predict.scores import SCORE_NODATA, SCORE_STEPS, ScoreKinds
from geoseg.predict.strips import StripCost
from geoseg.predict.tiles import VIEWS
from geoseg.raster.georef import (
    Georef,
    crop_transform,
    storable,
)
from geoseg.raster.grid import Panel, TileGrid, plan_panels, plan_windows
from geoseg.raster.info import RasterInfo, content_sample, inspect_raster
from geoseg.raster.layer import Layer
from geoseg.raster.reader import Selection, check_input, open_raster
from geoseg.raster.resample import AxisMap
from geoseg.raster.segments import Source
from geoseg.segmenter import Segmenter, legal_side
from geoseg.spec import ModelSpec
from geoseg.types import Window

BATCH_SIZES = {"cpu": 1, "cuda": 8, "mps": 4}
# Output pixels of a panel, about what an interruption costs.
PANEL_PX = {"cpu": 8 * 2**20, "cuda": 32 * 2**20, "mps": 8 * 2**20}


@dataclass(frozen=True)
class PredictPlan:
    """What one raster's run will do.

    Attributes:
        source: the raster, its bands, the crop, and the maps to the model's grid.
        georef: of the output.
        stencil: polygons outside of which the map is nodata, or None.
        grid: tiles on the model's grid.
        overlap_px: least overlap of neighbours.
        panels: units of work, in order.
        strip_tiles: tile columns of a strip, where memory asks for fewer than usual; else None.
        views: test-time views.
        batch: tiles per forward pass.
        cost: what a strip's memory depends on.
        kinds: scores wanted beside the class map.
        layers: rasters to write.
        gsd_m: native GSD along columns and rows; None: unknown.
        target_gsd_m: GSD that the image is resampled to; None: as it is.
        notes: what was decided, for the log.
        warnings: what may make the map worse.
        fingerprint: everything that decides on pixels.
    """

    source: Source
    georef: Georef
    stencil: Stencil | None
    grid: TileGrid
    overlap_px: int
    panels: tuple[Panel, ...]
    views: int
    batch: int
    cost: StripCost
    kinds: ScoreKinds
    layers: tuple[Layer, ...]
    gsd_m: tuple[float, float] | None
    target_gsd_m: float | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: dict[str, Any]
    strip_tiles: int | None = None

    @property
    def height(self) -> int:
        """Rows of the output."""
        return self.source.crop.height

    @property
    def width(self) -> int:
        """Columns of the output."""
        return self.source.crop.width

    @property
    def strip_bytes(self) -> int:
        """Memory that the widest strip holds beside the network."""
        spans = self.grid.cols.span
        tiles = [self.tile_cols(panel) for panel in self.panels]
        return self.cost.memory_bytes(max(spans(t[-1])[1] - spans(t[0])[0] for t in tiles))

    @property
    def rows_back(self) -> AxisMap:
        """Rows of the model's grid -> rows of the output."""
        return AxisMap(self.source.rows.target, self.source.rows.source)

    @property
    def cols_back(self) -> AxisMap:
        """Columns of the model's grid -> columns of the output."""
        return AxisMap(self.source.cols.target, self.source.cols.source)

    def window(self, panel: Panel) -> Window:
        """Return the output pixels that a panel finishes."""
        row, row_end = (
            self.rows_back.complete(b) for b in _ends(self.grid.rows.bounds, panel.rows)
        )
        col, col_end = (
            self.cols_back.complete(b) for b in _ends(self.grid.cols.bounds, panel.cols)
        )
        return Window(row, col, row_end - row, col_end - col)

    def strip_cols(self, panel: Panel) -> tuple[int, int]:
        """Return the columns of the model's grid that a panel's output is made of."""
        window = self.window(panel)
        return self.cols_back.support(window.col, window.col_end)

    def first_row(self, panel: Panel) -> int:
        """Return the first row of the model's grid that a panel's output is made of."""
        window = self.window(panel)
        return self.rows_back.support(window.row, window.row + 1)[0]

    def tile_cols(self, panel: Panel) -> range:
        """Return the tile columns that a panel needs."""
        return self.grid.cols.needed(*self.strip_cols(panel))

    def first_tile_row(self, panel: Panel) -> int:
        """Return the first tile row that a panel needs when it does not follow the one above."""
        first = self.first_row(panel)
        return self.grid.rows.needed(first, first + 1)[0]

    def batches(self, panel: Panel) -> list[range]:
        """Return groups of tile columns that are run together.

        They are cut at multiples of the batch over the whole raster, so that a tile always has the
        same company and, with it, the same bits.
        """
        cols = self.tile_cols(panel)
        first, last = cols[0] // self.batch, cols[-1] // self.batch
        count = len(self.grid.cols)
        return [
            range(g * self.batch, min((g + 1) * self.batch, count)) for g in range(first, last + 1)
        ]

    def tile_count(self, panel_indexes: list[int]) -> int:
        """Return how many tiles are run for some panels, those run twice included."""
        total = 0
        follows = None
        for index in panel_indexes:
            panel = self.panels[index]
            continues = follows == (panel.strip, panel.rows[0])
            first = panel.rows[0] if continues else self.first_tile_row(panel)
            total += (panel.rows[-1] + 1 - first) * len(self.tile_cols(panel))
            follows = (panel.strip, panel.rows[-1] + 1)
        return total


def plan_prediction(
    segmenter: Segmenter,
    raster: str,
    options: PredictOptions,
    device: torch.device,
    *,
    strip_tiles: int | None = None,
) -> PredictPlan:
    """Check a raster against a model and decide how it is predicted; reads headers only.

    Args:
        segmenter: with its record.
        raster: anything that rasterio opens.
        options: how.
        device: where the network runs.
        strip_tiles: tile columns of a strip; None: as many as are worth their memory.

    Raises:
        InputError: raster and model do not fit each other; the message says what to do.
    """
    spec = segmenter.spec
    with open_raster(raster) as dataset:
        info = inspect_raster(dataset, raster)
    selection = check_input(info, spec, options.bands)
    check_georeference(info, options)
    area = None
    if options.aoi is not None:
        area = load_area(Path(options.aoi), info.georef, raster)
    crop = choose_crop(info, options, area)
    gsd_m, notes = native_gsd(info, crop, options)
    target = target_gsd(gsd_m, spec, options)
    source = _source(info, selection, crop, gsd_m, target)
    tile_px, overlap_px = _tiling(spec, options)
    grid = plan_windows(
        source.rows.target,
        source.cols.target,
        tile_px,
        overlap_px=overlap_px,
        halo_px=spec.tile.halo_px or 0,
        shift_px=options.grid_shift_px,
    )
    views = len(VIEWS[options.tta])
    batch = options.batch_size or BATCH_SIZES.get(device.type, 1)
    kinds = ScoreKinds(options.confidence is not None, options.probabilities is not None)
    layers = _layers(spec, kinds)
    cost = StripCost(
        source,
        grid,
        planes=views * spec.num_classes,
        pixel_bytes=sum(layer.pixel_bytes for layer in layers),
        readers=options.readers or _usual_readers(info),
        batch=batch,
    )
    panels = _panels(grid, strip_tiles or cost.usual_tiles(), batch=batch, device=device)
    notes += list(selection.notes) + gsd_notes(gsd_m, target, spec)
    georef = info.georef
    if georef.has_transform:
        georef = replace(georef, transform=crop_transform(georef.transform, crop))
    return PredictPlan(
        source=source,
        georef=storable(georef, raster),
        stencil=area.stencil(georef.transform) if area else None,
        grid=grid,
        overlap_px=overlap_px,
        panels=tuple(panels),
        views=views,
        batch=batch,
        cost=cost,
        kinds=kinds,
        layers=layers,
        gsd_m=gsd_m,
        target_gsd_m=target,
        notes=tuple(notes),
        warnings=(*([spec.warning] if spec.warning else []), *gsd_warnings(gsd_m, target, spec)),
        fingerprint=_fingerprint(segmenter, source, grid, area=area, options=options, device=device)
        | {"batch": batch, "overlap_px": overlap_px},
        strip_tiles=strip_tiles,
    )


def _source(
    info: RasterInfo,
    selection: Selection,
    crop: Window,
    gsd_m: tuple[float, float] | None,
    target: float | None,
) -> Source:
    height, width = crop.height, crop.width
    if target is not None and gsd_m is not None:
        width = max(1, round(width * gsd_m[0] / target))
        height = max(1, round(height * gsd_m[1] / target))
    return Source(info, selection, crop, AxisMap(crop.height, height), AxisMap(crop.width, width))


def _tiling(spec: ModelSpec, options: PredictOptions) -> tuple[int, int]:
    """Return tile size and overlap, px."""
    tile_px = options.tile_size_px or spec.tile.size_px
    legal = legal_side(tile_px, spec.tile)
    if tile_px != legal:
        raise UsageError(
            f"model {spec.name!r} cannot take tiles of {tile_px} px; the nearest size that it can "
            f"take is {legal}. Give --tile-size {legal}."
        )
    if options.overlap_px is not None:
        return tile_px, options.overlap_px
    if options.tile_size_px is None:
        return tile_px, spec.tile.overlap_px
    # The advice is for the advised tile: keep its share, and at least the halo on both sides.
    share = round(tile_px * spec.tile.overlap_px / spec.tile.size_px / 32) * 32
    return tile_px, max(share, 2 * (spec.tile.halo_px or 0))


def with_strips(plan: PredictPlan, tiles: int, device: torch.device) -> PredictPlan:
    """Return a plan with strips of so many tile columns."""
    panels = _panels(plan.grid, tiles, batch=plan.batch, device=device)
    columns = "column" if tiles == 1 else "columns"
    note = (
        f"strips of {tiles} tile {columns} keep to --max-memory; those at their borders run twice"
    )
    return replace(plan, panels=tuple(panels), strip_tiles=tiles, notes=(*plan.notes, note))


def _panels(grid: TileGrid, cols: int, *, batch: int, device: torch.device) -> list[Panel]:
    """Cut the grid so that memory and the cost of an interruption stay bounded."""
    cols = -(-cols // batch) * batch
    stride = max(1, grid.cols.length_px // len(grid.cols))
    width_px = min(cols, len(grid.cols)) * stride
    stride_rows = max(1, grid.rows.length_px // len(grid.rows))
    target = PANEL_PX.get(device.type, PANEL_PX["cpu"])
    rows = max(1, round(target / (width_px * stride_rows)))
    return plan_panels(grid, tile_rows=rows, tile_cols=cols)


def _usual_readers(info: RasterInfo) -> int:
    is_local = any(Path(name).exists() for name in info.files)
    return min(4, os.cpu_count() or 1) if is_local else 8


def _layers(spec: ModelSpec, kinds: ScoreKinds) -> tuple[Layer, ...]:
    layers = [Layer("class_map", spec.map_dtype, spec.map_nodata, classes=spec.classes)]
    scale = 1.0 / SCORE_STEPS
    if kinds.confidence:
        layers.append(Layer("confidence", "uint8", SCORE_NODATA, scale=scale, overviews="AVERAGE"))
    if kinds.probabilities:
        names = tuple(c.name for c in spec.classes)
        layers.append(
            Layer(
                "probabilities",
                "uint8",
                SCORE_NODATA,
                bands=len(names),
                band_names=names,
                scale=scale,
                overviews="AVERAGE",
            )
        )
    return tuple(layers)


def _fingerprint(
    segmenter: Segmenter,
    source: Source,
    grid: TileGrid,
    *,
    area: Area | None,
    options: PredictOptions,
    device: torch.device,
) -> dict[str, Any]:
    """Return everything that decides on pixels, and nothing that does not."""
    info, selection = source.info, source.selection
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "geoseg": geoseg.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "kernels": _native.instruction_set(),
        "device": name,
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "model": segmenter.spec.name,
        "model_sha256": segmenter.sha256,
        # An exported network's record may lie in a file of its own.
        "spec_sha256": hashlib.sha256(segmenter.spec.to_json().encode()).hexdigest(),
        "raster": [info.height, info.width, *info.dtypes],
        "raster_sample": content_sample(info),
        "transform": list(info.georef.transform)[:6],
        "crs": info.georef.crs.to_wkt() if info.georef.crs else None,
        "bands": list(selection.bands),
        "nodata": [str(v) for v in selection.nodata],
        "scaling": [list(s) if s else None for s in selection.scaling],
        "crop": list(source.crop),
        "model_grid": [source.rows.target, source.cols.target],
        "area_sha256": area.sha256 if area else None,
        "tile_px": grid.rows.tile_px,
        "tile_rows": _digest_starts(grid.rows.starts),
        "tile_cols": _digest_starts(grid.cols.starts),
        "halo_px": grid.rows.halo_px,
        "precision": str(segmenter.compute_dtype).removeprefix("torch."),
        "tta": options.tta,
        "layers": [kind for kind in ("confidence", "probabilities") if getattr(options, kind)],
    }


def _digest_starts(starts: tuple[int, ...]) -> list[int]:
    return [len(starts), starts[-1], sum(starts)]


def _ends(bounds: tuple[int, ...], tiles: range) -> tuple[int, int]:
    return bounds[tiles[0]], bounds[tiles[-1] + 1]
