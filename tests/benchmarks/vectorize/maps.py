"""Class maps for benchmarks: noisy as predictions are, of any size, small on disk."""

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

CLASSES = 6
BLOCK_PX = 1024
# How far the borders of cells are torn apart, in cells: more of it makes more specks.
TORN = 0.05


def make_map(path: Path, side_px: int, *, cell_px: int, torn: float = TORN) -> None:
    """Write a square COG-like map of cells of random classes with frayed borders.

    Args:
        path: GeoTIFF to write, uint8, UTM, 0.3 m pixels.
        side_px: height and width.
        cell_px: mean side of a cell: sets how many polygons there are.
        torn: how far single pixels look aside for their cell, in cells; 0: smooth borders.
    """
    profile = {"driver": "GTiff", "height": side_px, "width": side_px, "count": 1}
    profile |= {"dtype": "uint8", "nodata": 255, "crs": "EPSG:32633", "compress": "deflate"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "if_safer"}
    transform = rasterio.Affine(0.3, 0, 500000, 0, -0.3, 5000000)
    cells = np.random.default_rng(0).integers(0, CLASSES, (side_px // cell_px + 3,) * 2)
    with rasterio.open(path, "w", transform=transform, **profile) as dataset:
        for row in range(0, side_px, BLOCK_PX):
            for col in range(0, side_px, BLOCK_PX):
                size = min(BLOCK_PX, side_px - row), min(BLOCK_PX, side_px - col)
                block = _block(cells, row, col, size, cell_px, torn)
                dataset.write(block, 1, window=Window(col, row, size[1], size[0]))


def _block(
    cells: NDArray[np.int64],
    row: int,
    col: int,
    size: tuple[int, int],
    cell_px: int,
    torn: float,
) -> NDArray[np.uint8]:
    rng = np.random.default_rng([row, col])
    rows = (np.arange(row, row + size[0])[:, None] / cell_px) + 1
    cols = (np.arange(col, col + size[1])[None, :] / cell_px) + 1
    # Long waves bend the cells, single pixels fray them.
    bent_rows = rows + 0.4 * np.sin(2.1 * cols) + rng.normal(0, torn, size)
    bent_cols = cols + 0.4 * np.sin(1.7 * rows) + rng.normal(0, torn, size)
    i = np.clip(bent_rows, 0, cells.shape[0] - 1).astype(np.int64)
    j = np.clip(bent_cols, 0, cells.shape[1] - 1).astype(np.int64)
    return cells[i, j].astype(np.uint8)
