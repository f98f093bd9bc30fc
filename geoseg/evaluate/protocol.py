"""The published test protocols: whole images and sliding windows (mmseg 0.x behaviour).

These make numbers comparable with the papers. Maps are made by `geoseg.predict`, which blends.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.config.run import EvaluationConfig
from geoseg.errors import UsageError
from geoseg.segmenter import Segmenter
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


@torch.inference_mode()
def infer_benchmark(
    segmenter: Segmenter, image: Tensor, valid: Tensor | None, evaluation: EvaluationConfig
) -> Tensor:
    """Return class probabilities of one image as the published benchmarks compute them.

    The image is resized for each ratio, run whole or in windows, plain and mirrored; the softmax
    of every view is taken at the original size, and their mean is returned.

    Args:
        segmenter: in eval mode; it normalises.
        image: raw values, (C, H, W), any real dtype.
        valid: True where usable, (H, W) bool; None: everywhere.
        evaluation: sizes, windows, ratios and mirroring.

    Returns:
        (K, H, W) float32, on the segmenter's device.
    """
    size = (image.shape[-2], image.shape[-1])
    values = _filled(segmenter, image, valid)
    total: Tensor | None = None
    for ratio in evaluation.ratios:
        view = _resize_steps(values, evaluation, ratio)
        for mirror in (False, True) if evaluation.flip else (False,):
            logits = _infer_view(segmenter, view.flip(-1) if mirror else view, evaluation, size)
            probs = torch.softmax(logits / segmenter.spec.temperature, dim=1)[0]  # (K, H, W)
            probs = probs.flip(-1) if mirror else probs
            total = probs if total is None else total + probs
    assert total is not None, "no ratio"
    return total / (len(evaluation.ratios) * (2 if evaluation.flip else 1))


def plan_size(
    height: int, width: int, evaluation: EvaluationConfig, ratio: float = 1.0
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return rows and columns after the resize that keeps the aspect, and after the alignment.

    Args:
        height: of the image.
        width: of the image.
        evaluation: ``base_size_px`` and ``multiple_px``.
        ratio: of the multi-scale test.
    """
    base = evaluation.base_size_px or (max(height, width), min(height, width))
    long, short = (int(side * ratio) for side in (max(base), min(base)))
    scale = min(long / max(height, width), short / min(height, width))
    rows, cols = (max(1, int(side * scale + 0.5)) for side in (height, width))
    multiple = evaluation.multiple_px
    return (rows, cols), (-(-rows // multiple) * multiple, -(-cols // multiple) * multiple)


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


def _filled(segmenter: Segmenter, image: Tensor, valid: Tensor | None) -> Tensor:
    """Return the image as a batch of one, float32, each band's training mean where not valid.

    The preprocessing makes 0 of invalid pixels too; done before it, resizing is no matter.
    """
    device = segmenter.preprocess.gain.device
    values = image[None].to(device, torch.float32)  # (1, C, H, W)
    if valid is None or bool(valid.all()):
        return values
    neutral = [(band.mean - band.offset) / band.scale for band in segmenter.spec.bands]
    fill = torch.tensor(neutral, device=device).view(1, -1, 1, 1)
    return torch.where(valid.to(device)[None, None], values, fill)


def _resize_steps(values: Tensor, evaluation: EvaluationConfig, ratio: float) -> Tensor:
    height, width = values.shape[-2:]
    for size in plan_size(height, width, evaluation, ratio):
        values = _resize(values, size)
    return values


def _infer_view(
    segmenter: Segmenter, view: Tensor, evaluation: EvaluationConfig, size: tuple[int, int]
) -> Tensor:
    if evaluation.mode == "whole":
        return infer_whole(segmenter, view, size=size)
    crop, stride = evaluation.crop_px, evaluation.stride_px
    return infer_slide(segmenter, view, (crop, crop), stride=(stride, stride), size=size)


def _run(network: nn.Module, image: Tensor, bases: Tensor | None) -> Tensor:
    logits: Tensor = network(image) if bases is None else network(image, bases=bases)
    return logits.float()


def _resize(logits: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None or tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
