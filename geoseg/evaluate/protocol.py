"""The published test protocols: whole images and sliding windows (mmseg 0.x behaviour).

These make numbers comparable with the papers. Maps are made by `geoseg.predict`, which blends.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.errors import UsageError
from geoseg.types import Window


@torch.inference_mode()
def infer_whole(
    network: nn.Module,
    image: Tensor,
    *,
    size: tuple[int, int] | None = None,
    bases: Tensor | None = None,
) -> Tensor:
    """Return logits of whole images.

    Args:
        network: (N, C, H, W) -> (N, K, H, W), in eval mode.
        image: preprocessed, (N, C, H, W).
        size: rows and columns of the original image, to which the logits are resized; None: as
            ``image``.
        bases: NMF bases for SegNeXt in place of its own.

    Returns:
        (N, K, *size), float32.
    """
    return _resize(_run(network, image, bases), size)


@torch.inference_mode()
def infer_slide(
    network: nn.Module,
    image: Tensor,
    crop_size: tuple[int, int],
    *,
    stride: tuple[int, int],
    size: tuple[int, int] | None = None,
    bases: Tensor | None = None,
) -> Tensor:
    """Return logits averaged over sliding windows, each counting the same.

    Args:
        network: (N, C, H, W) -> (N, K, H, W), in eval mode.
        image: preprocessed, (N, C, H, W); smaller than the crop, it is run whole.
        crop_size: rows and columns of a window.
        stride: step between windows; the last one is moved inwards.
        size: rows and columns of the original image; None: as ``image``.
        bases: NMF bases for SegNeXt in place of its own, the same in every window.

    Returns:
        (N, K, *size), float32.

    Raises:
        UsageError: a stride larger than the crop, which would leave gaps.
    """
    height, width = image.shape[-2:]
    total: Tensor | None = None
    count = image.new_zeros((1, 1, height, width))
    for w in slide_windows(height, width, crop_size, stride):
        rows, cols = slice(w.row, w.row_end), slice(w.col, w.col_end)
        logits = _run(network, image[:, :, rows, cols], bases)
        if total is None:
            total = logits.new_zeros((logits.shape[0], logits.shape[1], height, width))
        total[:, :, rows, cols] += logits
        count[:, :, rows, cols] += 1
    assert total is not None
    return _resize(total / count, size)


def slide_windows(
    height: int, width: int, crop_size: tuple[int, int], stride: tuple[int, int]
) -> Iterator[Window]:
    """Yield the windows of `infer_slide`, row by row."""
    if stride[0] > crop_size[0] or stride[1] > crop_size[1]:
        raise UsageError(f"expected a stride of at most the crop {crop_size}; got {stride}.")
    for row, row_end in _spans(height, crop_size[0], stride[0]):
        for col, col_end in _spans(width, crop_size[1], stride[1]):
            yield Window(row, col, row_end - row, col_end - col)


def _spans(length: int, crop: int, stride: int) -> Iterator[tuple[int, int]]:
    for i in range(max(length - crop + stride - 1, 0) // stride + 1):
        stop = min(i * stride + crop, length)
        yield max(stop - crop, 0), stop


def _run(network: nn.Module, image: Tensor, bases: Tensor | None) -> Tensor:
    logits: Tensor = network(image) if bases is None else network(image, bases=bases)
    return logits.float()


def _resize(logits: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None or tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
