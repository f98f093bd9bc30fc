"""Large rasters for benchmarks, made of real imagery: part of the shipped scene, mirrored."""

from importlib import resources
from pathlib import Path

import numpy as np
import rasterio
from rasterio.shutil import copy
from rasterio.windows import Window

# Within the scene's imagery; around it the scene is masked, and masked tiles are not run.
BLOCK = Window(128, 128, 1024, 1024)


def make_scene(path: Path, height: int, width: int) -> float:
    """Write a deflate COG of that size; return how many times smaller it is than its pixels."""
    with rasterio.open(str(resources.files("geoseg") / "assets" / "banepa_scene.tif")) as scene:
        block = scene.read(window=BLOCK)
        profile = {"crs": scene.crs, "transform": scene.window_transform(BLOCK)}
    raw = path.with_suffix(".raw.tif")
    profile |= {"driver": "GTiff", "count": 3, "dtype": "uint8", "photometric": "RGB"}
    profile |= {"interleave": "pixel", "tiled": True, "blockxsize": 512, "blockysize": 512}
    with rasterio.open(raw, "w", height=height, width=width, **profile) as dataset:
        for row in range(0, height, block.shape[1]):
            for col in range(0, width, block.shape[2]):
                flips = (-1 if row // 1024 % 2 else 1), (-1 if col // 1024 % 2 else 1)
                part = block[:, :: flips[0], :: flips[1]]
                part = np.ascontiguousarray(part[:, : height - row, : width - col])
                dataset.write(part, window=Window(col, row, part.shape[2], part.shape[1]))
    options = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "OVERVIEWS": "NONE"}
    copy(str(raw), str(path), driver="COG", NUM_THREADS="ALL_CPUS", **options)
    raw.unlink()
    return 3 * height * width / path.stat().st_size
