"""A PNG to look at: the image beside the image with its classes drawn over it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterioWindow

from geoseg.raster.reader import open_raster
from geoseg.raster.segments import Source
from geoseg.raster.writer import machine_errors
from geoseg.spec import ClassSpec
from geoseg.types import ValidMask

LONGEST_SIDE_PX = 1600
CLASS_OPACITY = 0.55
GAP_PX = 8
# Classes of these names are what is left over; the image shows through them.
BACKGROUND_NAMES = {"background", "other", "others", "none", "unlabelled", "unlabeled", "unknown"}


def write_quicklook(
    source: Source, class_map: Path, out: Path, classes: Sequence[ClassSpec]
) -> Path:
    """Write image and map side by side, at most 1600 px a side each.

    The image is stretched between its 2nd and 98th percentile, unless it is 8-bit; a background
    class is left transparent.
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
        valid = ids != dataset.nodata
    picture = side_by_side(_stretch(image, valid), ids, classes)
    with machine_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        profile = {"driver": "PNG", "count": 3, "dtype": "uint8"}
        height, width = picture.shape[1:]
        with rasterio.open(out, "w", height=height, width=width, **profile) as png:
            png.write(picture)
    return out


def side_by_side(
    image: NDArray[np.uint8], ids: NDArray[np.generic], classes: Sequence[ClassSpec]
) -> NDArray[np.uint8]:
    """Return (3, H, 2W + gap): the image, and the image under its coloured classes.

    Args:
        image: (3, H, W).
        ids: class ids (H, W), uint8 or uint16; what is no class of the list is transparent.
        classes: ids, names and colours.
    """
    shown = [c for c in classes if c.name.lower() not in BACKGROUND_NAMES]
    lut = np.zeros((256**ids.dtype.itemsize, 3), np.float32)
    is_shown = np.zeros(len(lut), dtype=bool)
    for c in shown:
        lut[c.id] = [int(c.color[i : i + 2], 16) for i in (1, 3, 5)]
        is_shown[c.id] = True
    colors = np.moveaxis(lut[ids], -1, 0)  # (3, H, W)
    drawn = is_shown[ids]  # (H, W)
    blended = image * (1 - CLASS_OPACITY) + colors * CLASS_OPACITY
    overlay = np.where(drawn, blended.round(), image).astype(np.uint8)
    gap = np.full((3, image.shape[1], GAP_PX), 255, np.uint8)
    return np.concatenate([image, gap, overlay], axis=2)


def _stretch(image: NDArray[np.generic], valid: ValidMask) -> NDArray[np.uint8]:
    """Return an image in 0..255, stretched over its valid pixels; 8-bit ones as they are."""
    if image.dtype == np.uint8:
        return image.astype(np.uint8)
    valid = valid & np.isfinite(image).all(axis=0)
    if not valid.any():
        return np.zeros(image.shape, np.uint8)
    values = np.where(valid, image, 0).astype(np.float64)
    low, high = np.percentile(values[:, valid], [2, 98])
    scaled = (values - low) / max(float(high - low), 1e-12) * 255
    return np.where(valid, scaled.clip(0, 255), 0).astype(np.uint8)
