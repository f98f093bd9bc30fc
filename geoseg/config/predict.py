"""Options of a prediction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geoseg.types import BandIndexes, BBox, Precision, Tta

DEFAULT_MAX_MEMORY_BYTES = 4 * 10**9


@dataclass(frozen=True)
class PredictOptions:
    """How a raster is predicted; the defaults ask the model's record.

    Attributes:
        bands: 1-based bands in the model's order; None: all but alpha.
        gsd: ``auto`` resamples outside of the model's range, ``native`` never, a number is metres
            per pixel.
        aoi: vector file; the map is cropped to its box and nodata outside of its polygons.
        bounds: crop to this box, in the raster's CRS.
        tile_size_px: side of a tile; None: as the model advises.
        overlap_px: least overlap of neighbours; None: as the model advises.
        batch_size: tiles per forward pass; None: 1 on a CPU, 8 on CUDA, 4 on MPS.
        device: ``auto``, or a torch device such as ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``auto`` is fp32, and bf16 on CUDA where the model's record supports it.
        tta: average over mirrored (``flips``) or all eight (``d4``) views.
        confidence: file for the greatest probability.
        probabilities: file for all classes' probabilities.
        quicklook: PNG of image and map side by side.
        max_memory_bytes: bound on this process's memory.
        resume: go on with the parts of an earlier run.
        overwrite: replace the output and discard such parts.
        shard: (I, N): only make the parts of the I-th of N shares, 1-based.
        readers: threads that read; None: one per core up to 4, more for remote files.
        grid_shift_px: moves the tile grid; for comparing grids.
    """

    bands: BandIndexes | None = None
    gsd: Literal["auto", "native"] | float = "auto"
    aoi: Path | None = None
    bounds: BBox | None = None
    tile_size_px: int | None = None
    overlap_px: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    tta: Tta = "none"
    confidence: Path | None = None
    probabilities: Path | None = None
    quicklook: Path | None = None
    max_memory_bytes: int = DEFAULT_MAX_MEMORY_BYTES
    resume: bool = False
    overwrite: bool = False
    shard: tuple[int, int] | None = None
    readers: int | None = None
    grid_shift_px: int = 0
