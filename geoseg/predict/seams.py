"""How much tiling shows in a map: measured, as a curve over the overlap.

A network that sees its whole tile answers differently in two tiles. Two figures tell how much of
that survives blending: class edges on the lines where tiles begin and end, against elsewhere; and
pixels that change class when the grid is moved by half a stride.
"""

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from torch import nn

from geoseg.config import PredictOptions
from geoseg.errors import InputError
from geoseg.predict.model import as_segmenter, choose_device
from geoseg.predict.plan import plan_prediction
from geoseg.predict.run import predict_raster
from geoseg.raster.gdal import quiet_georeference
from geoseg.raster.grid import Axis, TileGrid
from geoseg.types import ValidMask

GOAL_EDGE_RATIO = 1.05
GOAL_CHANGED = 0.005
SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625)


@dataclass(frozen=True)
class SeamMeasure:
    """Seams at one overlap.

    Attributes:
        overlap_px: of neighbouring tiles.
        tiles: run for the map: the cost.
        edge_ratio: class edges per pixel on tile lines over elsewhere; 1 is no seam.
        edge_ratio_error: standard error of it, from the number of edges on the lines.
        changed: share of valid pixels that change when the grid moves by half a stride.
    """

    overlap_px: int
    tiles: int
    edge_ratio: float
    edge_ratio_error: float
    changed: float

    @property
    def is_good(self) -> bool:
        """Whether both goals are met."""
        return self.edge_ratio <= GOAL_EDGE_RATIO and self.changed <= GOAL_CHANGED


def measure_seams(
    model: str | Path | nn.Module,
    raster: str | Path,
    *,
    options: PredictOptions | None = None,
    overlaps_px: Sequence[int] | None = None,
) -> Iterator[SeamMeasure]:
    """Yield the seams of a model on a raster for rising overlaps.

    Args:
        model: as for `predict_raster`.
        raster: an image with things to find, at least two tiles wide and high.
        options: tile size and so on; its overlap and outputs are not used.
        overlaps_px: None: from none, or as much as the halo needs, to five eighths of a tile.

    Raises:
        InputError: the raster is smaller than two tiles.
    """
    options = options or PredictOptions()
    segmenter = as_segmenter(model, choose_device(options.device), options.precision)
    tile_px = options.tile_size_px or segmenter.spec.tile.size_px
    least = 2 * (segmenter.spec.tile.halo_px or 0)
    if overlaps_px is None:
        step = 32 if tile_px >= 256 else 1
        rising = (round(tile_px * share / step) * step for share in SHARES)
        overlaps_px = sorted({max(least, overlap) for overlap in rising})
    for overlap_px in overlaps_px:
        chosen = dataclasses.replace(
            options,
            tile_size_px=tile_px,
            overlap_px=overlap_px,
            overwrite=True,
            confidence=None,
            probabilities=None,
            quicklook=None,
        )
        shift = (tile_px - overlap_px) // 2
        moved = dataclasses.replace(chosen, grid_shift_px=shift)
        with quiet_georeference(), tempfile.TemporaryDirectory(prefix="geoseg-seams-") as folder:
            plan = plan_prediction(segmenter, str(raster), chosen, choose_device(options.device))
            if len(plan.grid.rows) < 2 or len(plan.grid.cols) < 2:
                raise InputError(
                    f"expected an image of more than one tile of {tile_px} px in both directions; "
                    f"got {plan.width} x {plan.height} px. Give a larger raster or --tile-size."
                )
            first, second = Path(folder) / "a.tif", Path(folder) / "b.tif"
            result = predict_raster(segmenter, raster, first, options=chosen)
            predict_raster(segmenter, raster, second, options=moved)
            classes, valid = _read(first)
            others = _read(second)[0]
        ratio, error = edge_ratio(classes, valid, plan.grid)
        changed = float((classes != others)[valid].mean())
        yield SeamMeasure(overlap_px, result.tiles, ratio, error, changed)


def edge_ratio(
    classes: NDArray[np.generic], valid: ValidMask, grid: TileGrid
) -> tuple[float, float]:
    """Return class-edge density on tile lines over that elsewhere, and its standard error."""
    on_edges = on_pairs = off_edges = off_pairs = 0
    for ids, mask, axis in ((classes, valid, grid.rows), (classes.T, valid.T, grid.cols)):
        both = mask[1:] & mask[:-1]
        edges = (ids[1:] != ids[:-1]) & both
        on = np.zeros(len(edges), dtype=bool)
        on[[line - 1 for line in tile_lines(axis, len(ids))]] = True
        on_edges += int(edges[on].sum())
        on_pairs += int(both[on].sum())
        off_edges += int(edges[~on].sum())
        off_pairs += int(both[~on].sum())
    if not (on_pairs and off_edges):
        return 1.0, math.inf
    ratio = (on_edges / on_pairs) / (off_edges / off_pairs)
    return ratio, ratio / math.sqrt(max(1, on_edges))


def tile_lines(axis: Axis, length_px: int) -> list[int]:
    """Return where tiles' counting parts begin or end inside, in the output's pixels."""
    scale = length_px / axis.length_px
    ends = {end for i in range(len(axis)) for end in axis.core(i)}
    return sorted({round(e * scale) for e in ends if 0 < round(e * scale) < length_px})


def best(measures: Sequence[SeamMeasure]) -> SeamMeasure:
    """Return the smallest overlap that meets both goals, else the one with fewest changes."""
    good = [m for m in measures if m.is_good]
    return good[0] if good else min(measures, key=lambda m: m.changed)


def _read(path: Path) -> tuple[NDArray[np.generic], ValidMask]:
    with rasterio.open(path) as dataset:
        classes = dataset.read(1)
        return classes, classes != dataset.nodata
