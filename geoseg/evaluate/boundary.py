"""Boundary IoU: IoU of the bands along the borders of a class, which large interiors cannot hide.

After Cheng, Girshick, Dollar, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation", CVPR 2021: a class's band holds its pixels within a distance d of its
border; distances are counted in chessboard steps, and d is 2 % of the image's diagonal. As with
the IoU, pixels are added up over the whole set.
"""

import math

import numpy as np
from numpy.typing import NDArray

from geoseg.data.sample import IGNORE

DIAGONAL_SHARE = 0.02

Channels = NDArray[np.integer]
Bools = NDArray[np.bool_]

# Neither is a channel: ignored ground matches any class, the outside of an image none.
_LOW, _HIGH, _OUTSIDE = -1, 1000, 999


class BoundaryCounts:
    """Pixels in the bands of each class, added up over any number of images.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self.both = np.zeros(num_classes, np.int64)
        self.either = np.zeros(num_classes, np.int64)

    def update(
        self,
        target: Channels,
        predicted: Channels,
        distance_px: int | tuple[int, int],
        *,
        outside_is_border: bool = True,
        halo: tuple[slice, slice] | None = None,
    ) -> None:
        """Add an image.

        Args:
            target: channel indexes (H, W), IGNORE where unknown.
            predicted: the same.
            distance_px: width of the bands; a pair: along rows' and columns' numbers.
            outside_is_border: whether a class that is cut off by the image has a border there, as
                the paper has it; if not, the outside is like ignored ground, which has no border.
            halo: the part to count; the rest was read for the distance alone.
        """
        unknown = (target == IGNORE) | (predicted == IGNORE)
        bands = []
        for labels in (target, predicted):
            known = np.where(unknown, IGNORE, labels)
            bands.append(border_band(known, distance_px, outside_is_border=outside_is_border))
        part = halo or (slice(None), slice(None))
        self._count(target[part], predicted[part], bands[0][part], bands[1][part])

    def iou(self) -> NDArray[np.float64]:
        """Return the boundary IoU of each class, (K,); NaN where it has no border."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.true_divide(self.both, self.either)

    def _count(
        self, target: Channels, predicted: Channels, in_target: Bools, in_predicted: Bools
    ) -> None:
        size = len(self.both)
        both = in_target & in_predicted & (target == predicted)
        common = np.bincount(target[both], minlength=size)
        either = np.bincount(target[in_target], minlength=size)
        either += np.bincount(predicted[in_predicted], minlength=size)
        self.both += common
        self.either += either - common


def border_band(
    labels: Channels, distance_px: int | tuple[int, int], *, outside_is_border: bool = True
) -> Bools:
    """Return True where a pixel lies within a distance of the border of its own class, (H, W).

    Args:
        labels: channel indexes, IGNORE where unknown: such a pixel is in no band and makes none.
        distance_px: in chessboard steps; a pair: along rows' and columns' numbers.
        outside_is_border: see `BoundaryCounts.update`.
    """
    rows, cols = (distance_px,) * 2 if isinstance(distance_px, int) else distance_px
    known = labels != IGNORE
    pad = ((rows, rows), (cols, cols))
    fill = (_OUTSIDE, _OUTSIDE) if outside_is_border else (_LOW, _HIGH)
    wide = labels.astype(np.int16)
    high = np.pad(np.where(known, wide, np.int16(_LOW)), pad, constant_values=fill[0])
    low = np.pad(np.where(known, wide, np.int16(_HIGH)), pad, constant_values=fill[1])
    for axis, reach in enumerate((rows, cols)):
        high = _sliding(np.maximum, high, 2 * reach + 1, axis)
        low = _sliding(np.minimum, low, 2 * reach + 1, axis)
    return known & (high != low)


def default_distance_px(height: int, width: int) -> int:
    """Return 2 % of the diagonal of an image, at least one pixel."""
    return max(1, round(DIAGONAL_SHARE * math.hypot(height, width)))


def _sliding(
    extreme: np.ufunc, values: NDArray[np.int16], width: int, axis: int
) -> NDArray[np.int16]:
    """Return the extreme of every ``width`` neighbours along an axis, which shrinks by width - 1.

    Windows are doubled until two of them cover the wanted width: log2(width) passes.
    """
    values = np.moveaxis(values, axis, 0)
    reached = 1
    while reached < width:
        step = min(reached, width - reached)
        values = extreme(values[:-step], values[step:])
        reached += step
    return np.moveaxis(values, 0, axis)
