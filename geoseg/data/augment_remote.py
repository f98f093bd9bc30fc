"""Augmentation for imagery of any sensor: scale, turns, mirror images, other light and cameras.

Nothing is known of a band but its values, so that its own mean and deviation are the measure.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geoseg.config.run import AugmentConfig
from geoseg.data.crops import TRIES, Grid, is_mixed, make_sample, read_image, read_labels
from geoseg.data.sample import Sample

Matrix = NDArray[np.float64]
FloatArray = NDArray[np.float32]

ASPECT = 0.15  # greatest logarithm of width over height
CHECK_EVERY_PX = 4  # pixels looked at to see whether one class fills a crop
SAMPLE_EVERY_PX = 4  # pixels that statistics of a crop are taken of
# Radiometry at strength 1, from the recipe of the demonstration model; logarithms for factors.
GAIN, BAND_GAIN = 0.3, 0.12
BIAS, BAND_BIAS = 0.5, 0.1  # standard deviations
GAMMA, GAMMA_SHARE = 0.25, 0.3
NOISE, NOISE_SHARE = 0.2, 0.2  # standard deviations
BLUR_SHARE = 0.2
GREY_SHARE = 0.1


@dataclass(frozen=True)
class Radiometry:
    """How values are changed.

    Attributes:
        strength: 1 = usual, 0 = not.
        dtype: of the image files; an integer type's range is not left. None: no range is known.
        std: per band, the unit of bias and noise; None: the crop's own.
    """

    strength: float
    dtype: str | None = None
    std: tuple[float, ...] | None = None

    @cached_property
    def limits(self) -> tuple[float, float] | None:
        """Least and greatest value of an integer type."""
        if self.dtype is None or np.dtype(self.dtype).kind not in "iu":
            return None
        info = np.iinfo(self.dtype)
        return float(info.min), float(info.max)


def augment_remote(
    augment: AugmentConfig, radiometry: Radiometry, sample: Sample, rng: np.random.Generator
) -> Sample:
    """Return a crop at another scale and aspect, turned, mirrored and in other light.

    Args:
        augment: ranges.
        radiometry: of the change of values.
        sample: image (C, H, W) of any number of bands and range of values.
        rng: of the draws.
    """
    mask = sample["mask"].numpy().astype(np.uint8)
    matrix, is_free = _draw_matrix(augment, mask.shape, rng)
    for _ in range(TRIES + 1):
        grid = _draw_grid(matrix, augment.crop_px, mask.shape, rng)
        if augment.cat_max_ratio >= 1:
            break
        if is_mixed(read_labels(mask, grid.thinned(CHECK_EVERY_PX)), augment.cat_max_ratio):
            break
    if not is_free:
        grid = grid.turned(int(rng.integers(0, 4)))
    if rng.random() < augment.flip:
        grid = grid.mirrored()
    image, valid = read_image(sample["image"], sample["valid"], grid)
    labels = read_labels(mask, grid)
    if radiometry.strength > 0:
        change_values(image.numpy(), valid, radiometry, rng)
    return make_sample(image, labels, valid, sample)


def _draw_matrix(
    augment: AugmentConfig, size: tuple[int, ...], rng: np.random.Generator
) -> tuple[Matrix, bool]:
    """Return (x, y) steps in the image per (column, row) of the crop, and whether they are slanted.

    Where the crop fits into the image upright, only angles are taken at which it fits too.
    """
    low, high = augment.scale
    ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
    if augment.base_size_px is not None:
        ratio *= min(max(augment.base_size_px) / max(size), min(augment.base_size_px) / min(size))
    aspect = math.exp(rng.uniform(-ASPECT, ASPECT)) if low < high else 1.0
    upright = np.diag([math.sqrt(aspect) / ratio, 1 / (math.sqrt(aspect) * ratio)])
    if rng.random() >= augment.free_rotation:
        return upright, False
    must_fit = _fits(upright, augment.crop_px, size)
    for _ in range(TRIES):
        angle = rng.uniform(0, 2 * math.pi)
        cos, sin = math.cos(angle), math.sin(angle)
        matrix = np.array([[cos, -sin], [sin, cos]]) @ upright
        if not must_fit or _fits(matrix, augment.crop_px, size):
            return matrix, True
    return upright, False


def _half_extent(matrix: Matrix, crop_px: int) -> NDArray[np.float64]:
    """Return half of the (x, y) side of the box around a crop, in pixels of the image."""
    return np.abs(matrix).sum(axis=1) * (crop_px / 2)


def _fits(matrix: Matrix, crop_px: int, size: tuple[int, ...]) -> bool:
    half_x, half_y = _half_extent(matrix, crop_px)
    return bool(2 * half_x <= size[1] and 2 * half_y <= size[0])


def _draw_grid(
    matrix: Matrix, crop_px: int, size: tuple[int, ...], rng: np.random.Generator
) -> Grid:
    """Return a crop somewhere on the image, or around it where it is smaller."""
    x, y = _draw_centre(matrix, crop_px, size, rng)
    if np.array_equal(matrix, np.eye(2)):
        # Unscaled crops keep the pixels as they are.
        x, y = (round(v - crop_px / 2) + crop_px / 2 for v in (x, y))
    steps = np.arange(crop_px) + 0.5 - crop_px / 2
    step_px = math.sqrt(float(np.linalg.det(matrix)))
    if matrix[0, 1] == matrix[1, 0] == 0:
        rows, cols = y + matrix[1, 1] * steps, x + matrix[0, 0] * steps
        return Grid(rows[:, None], cols[None], step_px)
    return Grid(
        y + matrix[1, 0] * steps + matrix[1, 1] * steps[:, None],
        x + matrix[0, 0] * steps + matrix[0, 1] * steps[:, None],
        step_px,
    )


def _draw_centre(
    matrix: Matrix, crop_px: int, size: tuple[int, ...], rng: np.random.Generator
) -> Matrix:
    """Return the (x, y) of a crop's centre in the image."""
    sides = np.array(size[::-1])
    if _fits(matrix, crop_px, size):
        half = _half_extent(matrix, crop_px)
        return rng.uniform(half, np.maximum(half, sides - half))
    # Seen from the crop, the image lies anywhere inside, or reaches beyond both of its sides.
    room = np.abs(crop_px / 2 - np.abs(np.linalg.inv(matrix)) @ (sides / 2))
    return sides / 2 - matrix @ rng.uniform(-room, room)


def change_values(
    image: FloatArray, valid: Tensor, radiometry: Radiometry, rng: np.random.Generator
) -> None:
    """Put the image under other light and in another camera, noisy, blurred or grey, in place.

    Args:
        image: (C, H, W).
        valid: (H, W) bool; statistics are taken there.
        radiometry: strength, range and unit.
        rng: of the draws.
    """
    strength, chance = radiometry.strength, min(1.0, radiometry.strength)
    known = image[:, ::SAMPLE_EVERY_PX, ::SAMPLE_EVERY_PX]
    known = known[:, valid.numpy()[::SAMPLE_EVERY_PX, ::SAMPLE_EVERY_PX]]  # (C, pixels)
    if known.shape[1] == 0:
        return
    if len(image) == 3 and rng.random() < GREY_SHARE * chance:
        image[:], known = image.mean(axis=0), known.mean(axis=0, keepdims=True).repeat(3, axis=0)
    if rng.random() < GAMMA_SHARE * chance:
        power = math.exp(rng.uniform(-GAMMA, GAMMA) * strength)
        least, mean = known.min(axis=1), known.mean(axis=1)
        for values in (known, image):  # known is a copy
            for i, band in enumerate(values):
                _bend(band, float(least[i]), float(mean[i]), power)
    unit = np.asarray(radiometry.std or known.std(axis=1), np.float32)
    factors, offsets = _draw_light(known, unit, radiometry, rng)
    for i in range(len(image)):
        image[i] *= factors[i]
        image[i] += offsets[i]
    if rng.random() < BLUR_SHARE * chance:
        blur(image)
    if rng.random() < NOISE_SHARE * chance:
        noise = _draw_noise(image.shape, rng)
        noise *= (unit * np.float32(rng.uniform(0, NOISE) * strength))[:, None, None]
        image += noise
    if radiometry.limits is not None:
        np.clip(image, *radiometry.limits, out=image)


def _draw_light(
    known: FloatArray, unit: FloatArray, radiometry: Radiometry, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return a factor and an offset per band; gain leaves the mean, bias counts in units.

    Bias ends where a fiftieth of the values would leave the range: what is clipped is lost.
    """
    shared = rng.uniform(-1, 1, (2, 1)) * [[GAIN], [BIAS]]
    own = rng.uniform(-1, 1, (2, len(known))) * [[BAND_GAIN], [BAND_BIAS]]
    gain, bias = radiometry.strength * (shared + own)
    factor, mean = np.exp(gain), known.mean(axis=1)
    offset = mean * (1 - factor) + bias * unit
    if radiometry.limits is not None:
        low, high = np.quantile(known[:, ::CHECK_EVERY_PX], (0.02, 0.98), axis=1) * factor
        least, most = radiometry.limits[0] - low, radiometry.limits[1] - high
        both = (least + most) / 2  # where there is more contrast than range
        offset = np.where(least <= most, offset.clip(least, most), both)
    return factor.astype(np.float32), offset.astype(np.float32)


def _bend(band: FloatArray, least: float, mean: float, power: float) -> None:
    """Bend the scale of a band in place by a power; its least value and its mean stay."""
    if power == 1 or mean <= least:
        return
    span = np.float32(mean - least)
    band -= np.float32(least)
    np.maximum(band, 0, out=band)  # the least value is that of a sample of the pixels
    band /= span
    np.power(band, np.float32(power), out=band)
    band *= span
    band += np.float32(least)


def blur(image: FloatArray) -> None:
    """Average each pixel inside of the image with its neighbours, 1 2 1, in place."""
    for values in (image, image.swapaxes(1, 2)):
        mean = values[:, :-2] + values[:, 2:]
        mean *= np.float32(0.5)
        mean += values[:, 1:-1]
        mean *= np.float32(0.5)
        values[:, 1:-1] = mean


def _draw_noise(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Return normal noise; rows are stretches of one long row, which is quicker to draw."""
    bands, height, width = shape
    long = rng.standard_normal(16 * width + 65536, dtype=np.float32)
    starts = rng.integers(0, len(long) - width, bands * height)
    rows = np.lib.stride_tricks.sliding_window_view(long, width)[starts]
    return rows.reshape(bands, height, width)
