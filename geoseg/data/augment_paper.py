"""The augmentation of the SegMAN and SegNeXt papers: resize, crop, flip, distort colours, pad.

Follows what mmsegmentation 0.x does (Resize, RandomCrop, RandomFlip, PhotoMetricDistortion, Pad),
with OpenCV's rules for pixels, in distribution and rounding, but reads crops alone.
"""

from typing import cast

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geoseg.config.run import AugmentConfig
from geoseg.data.crops import TRIES, Grid, Labels, is_mixed, make_sample, read_image, read_labels
from geoseg.data.sample import IGNORE, Sample
from geoseg.errors import DtypeMismatchError, InputError

FloatArray = NDArray[np.float32]
Size = tuple[int, int]  # height, width

BRIGHTNESS = 32.0
CONTRAST = 0.5, 1.5
SATURATION = 0.5, 1.5
HUE = 18  # of 180
ADVICE = "Set augment.photometric=false, or augment.kind=remote_sensing."
BLOCK_ROWS = 64  # so that the planes of a block stay in the cache


def augment_paper(augment: AugmentConfig, sample: Sample, rng: np.random.Generator) -> Sample:
    """Return a crop as the published chain makes it; of the kind ``none``, only cropped.

    Args:
        augment: ranges.
        sample: image (C, H, W); three bands of 8-bit values for the distortion of colours.
        rng: of the draws.

    Raises:
        InputError: colours are to be distorted and are not three bands of 8 bits.
    """
    size = cast(Size, tuple(sample["mask"].shape))
    is_paper = augment.kind == "paper"
    resized = draw_size(size, augment, rng) if is_paper else size
    place, labels = _draw_place(sample["mask"].numpy(), resized, augment, rng)
    grid = make_grid(size, resized, place, augment.crop_px)
    if is_paper and rng.random() < augment.flip:
        grid, labels = grid.mirrored(), labels[:, ::-1].copy()
    image, valid = read_image(sample["image"], sample["valid"], grid)
    if is_paper and augment.photometric:
        _check_colours(image)
        distort(image.round_().numpy(), rng)
    return _pad(make_sample(image, labels, valid, sample), augment.crop_px)


def draw_size(size: Size, augment: AugmentConfig, rng: np.random.Generator) -> Size:
    """Return the size of the resized image; its aspect is kept but for rounding."""
    ratio = rng.uniform(*augment.scale)
    base = augment.base_size_px or (max(size), min(size))
    long_px, short_px = int(max(base) * ratio), int(min(base) * ratio)
    factor = min(long_px / max(size), short_px / min(size))
    height, width = (max(1, int(n * factor + 0.5)) for n in size)
    return height, width


def make_grid(size: Size, resized: Size, place: Size, crop_px: int) -> Grid:
    """Return where the pixels of a crop of the resized image lie in the image.

    Args:
        size: of the image.
        resized: of the resized image.
        place: first row and column of the crop in the resized image.
        crop_px: side of the crop; it ends where the resized image does.
    """
    rows, cols = (
        (np.arange(start, min(start + crop_px, n), dtype=np.float64) + 0.5) * (old / n)
        for start, n, old in zip(place, resized, size, strict=True)
    )
    return Grid(rows[:, None], cols[None])


def _label_grid(size: Size, resized: Size, place: Size, crop_px: int) -> Grid:
    """Return the same for labels: OpenCV's nearest counts from pixels' corners, not centres."""
    rows, cols = (
        np.arange(start, min(start + crop_px, n), dtype=np.float64) * (1 / (n / old))
        for start, n, old in zip(place, resized, size, strict=True)
    )
    return Grid(rows[:, None], cols[None])


def _draw_place(
    mask: NDArray[np.int64], resized: Size, augment: AugmentConfig, rng: np.random.Generator
) -> tuple[Size, Labels]:
    """Return the place of a crop in the resized image, and its labels.

    The place is drawn again, up to ten times, while one class fills the crop or is alone in it.
    """
    compact, size = mask.astype(np.uint8), cast(Size, mask.shape)
    room = [max(n - augment.crop_px, 0) for n in resized]
    tries = TRIES + 1 if augment.cat_max_ratio < 1 and any(room) else 1
    for _ in range(tries):
        row, col = (int(rng.integers(0, most + 1)) for most in room)
        grid = _label_grid(size, resized, (row, col), augment.crop_px)
        labels = read_labels(compact, grid)
        if tries > 1 and is_mixed(labels, augment.cat_max_ratio):
            break
    return (row, col), labels


def _pad(sample: Sample, crop_px: int) -> Sample:
    """Return the sample with invalid, ignored pixels at its right and bottom up to a square."""
    height, width = sample["mask"].shape
    if min(height, width) == crop_px:
        return sample
    sides = (0, crop_px - width, 0, crop_px - height)
    fills = {"image": 0.0, "mask": IGNORE, "valid": False}
    return sample | {key: F.pad(sample[key], sides, value=fill) for key, fill in fills.items()}


def check_dtype(dtype: str | None) -> None:
    """Raise a DtypeMismatchError if colours of image files of that type cannot be distorted."""
    if dtype not in {None, "uint8"}:
        raise DtypeMismatchError(
            f"expected uint8 for the papers' distortion of colours; got {dtype}. {ADVICE}"
        )


def _check_colours(image: Tensor) -> None:
    if len(image) != 3:
        raise InputError(
            f"expected red, green and blue for the papers' distortion of colours; got {len(image)} "
            f"band(s). {ADVICE}"
        )
    # Interpolation may end a millionth above; the values are rounded next.
    if (greatest := float(image.max())) >= 255.5:
        raise InputError(
            "expected values up to 255 for the papers' distortion of colours; got "
            f"{greatest:g}. {ADVICE}"
        )


def distort(image: FloatArray, rng: np.random.Generator) -> None:
    """Change brightness, contrast, saturation and hue in place, each with probability 0.5.

    Args:
        image: (3, H, W), red, green and blue, whole numbers 0..255.
        rng: of the draws.
    """

    def drawn(low: float, high: float) -> float | None:
        return float(rng.uniform(low, high)) if rng.random() < 0.5 else None

    brightness = drawn(-BRIGHTNESS, BRIGHTNESS)
    contrast_first = rng.random() < 0.5
    contrast, saturation = drawn(*CONTRAST), drawn(*SATURATION)
    # The published draw leaves out +18.
    hue = int(rng.integers(-HUE, HUE)) if rng.random() < 0.5 else None
    for start in range(0, image.shape[1], BLOCK_ROWS):
        block = image[:, start : start + BLOCK_ROWS]
        if brightness is not None:
            _stretch(block, 1.0, brightness)
        if contrast is not None and contrast_first:
            _stretch(block, contrast, 0.0)
        if saturation is not None or hue is not None:
            shift_hsv(block, 1.0 if saturation is None else saturation, hue or 0)
        if contrast is not None and not contrast_first:
            _stretch(block, contrast, 0.0)


def _stretch(block: FloatArray, factor: float, offset: float) -> None:
    """Multiply and add in place; fractions are cut off, as the published chain does."""
    block *= np.float32(factor)
    block += np.float32(offset)
    np.clip(block, 0, 255, out=block)
    np.floor(block, out=block)


def shift_hsv(block: FloatArray, saturation: float, hue: int) -> None:
    """Multiply the saturation and turn the hue in place, in OpenCV's 8-bit steps.

    Both at once: the published chain rounds to 8-bit colours in between, once more than here.

    Args:
        block: (3, H, W), red, green and blue, whole numbers 0..255.
        saturation: factor.
        hue: turn, in 180ths of the circle.
    """
    number = np.float32
    red, green, blue = block
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    # Sixths of the circle, from the channel that is greatest: red before green before blue.
    angle = red - green + 4 * chroma
    np.copyto(angle, blue - red + 2 * chroma, where=green == value)
    np.copyto(angle, green - blue, where=red == value)
    angle *= number(30) / np.maximum(chroma, number(1))
    np.floor(angle + number(hue + 0.5), out=angle)
    angle -= number(180) * np.floor(angle * number(1 / 180))
    angle *= number(1 / 30)  # 0..6
    chroma *= number(255)
    chroma /= np.maximum(value, number(1))
    np.floor(chroma + number(0.5), out=chroma)  # saturation, 0..255
    if saturation != 1:
        chroma *= number(saturation)
        np.floor(np.minimum(chroma, number(255)), out=chroma)
    chroma *= value * number(1 / 255)
    value -= chroma  # the least channel
    for channel, centre, sign in ((red, 3, 1), (green, 2, -1), (blue, 4, -1)):
        share = np.abs(angle - number(centre))
        share *= number(sign)
        share += number(-sign if sign > 0 else 2)
        np.clip(share, 0, 1, out=share)
        share *= chroma
        share += value
        # A little more than nothing, so that rounding does not cut whole numbers.
        np.floor(share + number(1e-3), out=channel)
