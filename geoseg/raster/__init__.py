"""Rasters in and out: grid arithmetic, reading with validity, writing parts and finished maps.

NumPy and rasterio only, so that it imports without torch.
"""

from geoseg.raster.combine import mosaic, stack
from geoseg.raster.grid import TileGrid, plan_panels, plan_windows
from geoseg.raster.info import RasterInfo, inspect_raster
from geoseg.raster.reader import check_input, open_raster
from geoseg.raster.writer import PartsWriter, finish_cog

__all__ = [
    "PartsWriter",
    "RasterInfo",
    "TileGrid",
    "check_input",
    "finish_cog",
    "inspect_raster",
    "mosaic",
    "open_raster",
    "plan_panels",
    "plan_windows",
    "stack",
]
