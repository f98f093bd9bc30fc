"""A PNG to look at: the image beside the image with its classes drawn over it."""

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterioWindow

from geoseg.raster.reader import open_raster
from geoseg.raster.tiles import Source
from geoseg.raster.writer import machine_errors

LONGEST_SIDE_PX = 1600
CLASS_OPACITY = 0.55
GAP_PX = 8


def write_quicklook(source: Source, class_map: Path, out: Path) -> Path:
    """Write image and map side by side, at most 1600 px a side each.

    The image is stretched between its 2nd and 98th percentile; the first class, by custom the
    background, is left transparent where there are others.
    """
    crop = source.crop
    factor = max(1.0, max(crop.height, crop.width) / LONGEST_SIDE_PX)
    shape = max(1, round(crop.height / factor)), max(1, round(crop.width / factor))
    with open_raster(source.info.name) as dataset:
        bands = (
            list(source.selection.bands[:3])
            if len(source.selection.bands) >= 3
            else [source.selection.bands[0]] * 3
        )
        window = RasterioWindow(crop.col, crop.row, crop.width, crop.height)
        image = dataset.read(
            bands, window=window, out_shape=(3, *shape), resampling=Resampling.average
        )
    with rasterio.open(class_map) as dataset:
        ids = dataset.read(1, out_shape=shape, resampling=Resampling.mode)
        palette, nodata = dataset.colormap(1), dataset.nodata
    picture = side_by_side(_stretch(image), ids, palette, int(nodata))
    with machine_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        profile = {"driver": "PNG", "count": 3, "dtype": "uint8"}
        height, width = picture.shape[1:]
        with rasterio.open(out, "w", height=height, width=width, **profile) as png:
            png.write(picture)
    return out


def side_by_side(
    image: NDArray[np.uint8],
    ids: NDArray[np.generic],
    palette: dict[int, tuple[int, ...]],
    nodata: int,
) -> NDArray[np.uint8]:
    """Return (3, H, 2W + gap): the image, and the image under its coloured classes."""
    lut = np.zeros((max([*palette, nodata]) + 1, 3), np.float32)
    for value, color in palette.items():
        lut[value] = color[:3]
    colors = np.moveaxis(lut[np.minimum(ids, len(lut) - 1)], -1, 0)  # (3, H, W)
    drawn = ids != nodata
    if len(np.unique(ids[drawn])) > 1:
        drawn &= ids != ids[drawn].min()
    blended = image * (1 - CLASS_OPACITY) + colors * CLASS_OPACITY
    overlay = np.where(drawn, blended, image).astype(np.uint8)
    gap = np.full((3, image.shape[1], GAP_PX), 255, np.uint8)
    return np.concatenate([image, gap, overlay], axis=2)


def _stretch(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = np.nan_to_num(image.astype(np.float32))
    if image.dtype == np.uint8:
        return image.astype(np.uint8)
    low, high = np.percentile(values, [2, 98])
    scaled = (values - low) / max(float(high - low), 1e-12) * 255
    return scaled.clip(0, 255).astype(np.uint8)
