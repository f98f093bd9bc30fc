"""Reads a resized, turned or shifted crop from an image without resizing the image.

Coordinates are in pixels of the source and count from its outer edge: pixel p covers [p, p + 1).
"""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geoseg.data.sample import IGNORE, Sample

Labels = NDArray[np.uint8]
TRIES = 10  # of the published chain, beyond the first


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a crop lie in the source.

    Attributes:
        y: of the pixels' centres, float64; (h, w), or with a side of 1 that it does not depend on.
        x: likewise.
        step_px: source pixels that a pixel of the crop stands for; they are averaged from 1.5.
    """

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    step_px: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width of the crop."""
        return np.broadcast_shapes(self.y.shape, self.x.shape)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Least and greatest y, least and greatest x."""
        return (*_ends(self.y), *_ends(self.x))

    @property
    def is_copy(self) -> bool:
        """Whether the pixels of the crop are pixels of the source, one by one."""
        return _are_centres(self.y) and _are_centres(self.x)

    def turned(self, quarters: int) -> "Grid":
        """Return the grid of the crop turned to the left by quarters of a turn."""
        return replace(self, y=np.rot90(self.y, quarters), x=np.rot90(self.x, quarters))

    def mirrored(self) -> "Grid":
        """Return the grid of the crop with left and right swapped."""
        return replace(self, y=self.y[:, ::-1], x=self.x[:, ::-1])

    def thinned(self, every: int) -> "Grid":
        """Return the grid of each ``every``-th pixel."""
        return replace(self, y=self.y[::every, ::every], x=self.x[::every, ::every])


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return least and greatest of values that are linear in their indexes."""
    corners = values[[0, 0, -1, -1], [0, -1, 0, -1]]
    return float(corners.min()), float(corners.max())


def _are_centres(values: NDArray[np.float64]) -> bool:
    """Return whether values on one axis are centres of neighbouring pixels."""
    return (
        1 in values.shape
        and values.flat[0] % 1 == 0.5
        and bool((np.abs(np.diff(values.ravel())) == 1).all())
    )


def read_labels(mask: Labels, grid: Grid) -> Labels:
    """Return the labels (h, w) of the source pixels that hold the grid's points, or are nearest."""
    height, width = mask.shape
    rows = np.floor(grid.y).astype(np.intp).clip(0, height - 1)
    cols = np.floor(grid.x).astype(np.intp).clip(0, width - 1)
    if grid.x.shape[0] == grid.y.shape[1] == 1:
        return mask.take(rows[:, 0], 0).take(cols[0], 1)  # four times as fast
    return mask[rows, cols]


def read_image(image: Tensor, valid: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return bilinear values and where they are usable.

    What lies under invalid pixels reaches no valid pixel of the crop.

    Args:
        image: (C, H, W), float32 or as in the file.
        valid: (H, W) bool.
        grid: points to read.

    Returns:
        (C, h, w) float32, and (h, w) bool: inside of the image and next to valid pixels alone.
    """
    low_y, high_y, low_x, high_x = grid.box
    inside = _inside(grid, valid.shape)
    factor = max(1, round(grid.step_px))
    rows = _window(low_y, high_y, valid.shape[0], 2 * factor)
    cols = _window(low_x, high_x, valid.shape[1], 2 * factor)
    image, valid = image[:, rows, cols].float(), valid[rows, cols]
    is_whole = bool(valid.numpy().all())
    if not is_whole:
        image = torch.cat([fill_invalid(image, valid), valid[None].float()])
    factor = min(factor, *valid.shape)
    source = _averaged(image, factor)[None]
    size = source.shape[2] * factor, source.shape[3] * factor
    points = _normalised(grid, (rows.start, cols.start), size)
    mode = "nearest" if grid.is_copy else "bilinear"
    values = F.grid_sample(source, points, mode, "border", align_corners=False)[0]
    if is_whole:
        return values, inside
    # 1 but for the rounding of the weights where all neighbours are valid.
    return values[:-1], inside & (values[-1] > 0.9999)


def _averaged(image: Tensor, factor: int) -> Tensor:
    """Return means over squares of pixels; several times as fast as torch's pooling on one core."""
    if factor == 1:
        return image
    height, width = (factor * (n // factor) for n in image.shape[1:])
    values = image.numpy()[:, :height, :width]
    rows = functools.reduce(np.add, (values[:, i::factor] for i in range(factor)))
    total = functools.reduce(np.add, (rows[:, :, i::factor] for i in range(factor)))
    return torch.from_numpy(total * np.float32(1 / factor**2))


def _window(low: float, high: float, size: int, margin: int) -> slice:
    """Return the pixels that an axis' points need, at least one."""
    start = min(max(0, math.floor(low) - margin), size - 1)
    return slice(start, max(start + 1, min(size, math.ceil(high) + margin)))


def _inside(grid: Grid, size: tuple[int, ...]) -> Tensor:
    """Return which points lie on the image, (h, w) bool."""
    height, width = size
    low_y, high_y, low_x, high_x = grid.box
    if low_y >= 0 and low_x >= 0 and high_y <= height and high_x <= width:
        return torch.ones(grid.shape, dtype=torch.bool)
    on_image = (grid.y >= 0) & (grid.y <= height) & (grid.x >= 0) & (grid.x <= width)
    return torch.from_numpy(on_image)


def _normalised(grid: Grid, start: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return the points (1, h, w, 2) as (x, y) in -1..1 over a window of the source."""
    points = np.empty((1, *grid.shape, 2), np.float32)
    points[0, ..., 0] = (grid.x - start[1]) * (2 / size[1]) - 1
    points[0, ..., 1] = (grid.y - start[0]) * (2 / size[0]) - 1
    return torch.from_numpy(points)


def fill_invalid(image: Tensor, valid: Tensor) -> Tensor:
    """Return the image (C, H, W) with the mean of its valid pixels in the others, band by band."""
    known = image[:, valid]
    mean = known.mean(dim=1) if known.numel() else torch.zeros(len(image))
    return torch.where(valid, image, mean[:, None, None])


def make_sample(image: Tensor, labels: Labels, valid: Tensor, sample: Sample) -> Sample:
    """Return a crop of ``sample``; labels of invalid pixels are ignored."""
    mask = torch.from_numpy(labels).long()
    if not valid.numpy().all():
        mask[~valid] = IGNORE
    crop: Sample = {"image": image, "mask": mask, "valid": valid}
    if "name" in sample:
        crop["name"] = sample["name"]
    return crop


def is_mixed(labels: Labels, cat_max_ratio: float) -> bool:
    """Return whether there are two classes or more, none of them with that share or a larger one.

    Ignored pixels do not count.
    """
    counts = torch.bincount(torch.from_numpy(labels).flatten(), minlength=IGNORE + 1)[:IGNORE]
    is_several = int((counts > 0).sum()) > 1
    return is_several and int(counts.max()) / int(counts.sum()) < cat_max_ratio
