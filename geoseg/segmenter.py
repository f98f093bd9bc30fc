"""Segmenter: a network together with the record of how it is fed."""

import functools
import logging
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.errors import ModelFileError, UsageError
from geoseg.preprocess import Preprocess
from geoseg.spec import ModelSpec, TileSpec

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Probabilities are turned into logits by the logarithm; 0 would become -inf.
SMALLEST_PROBABILITY = 1e-12
# Rounding in half precision, and interpolation beyond a cubic's ends.
PROBABILITY_TOLERANCE = 0.02


class Segmenter(nn.Module):
    """Raw raster values in, float32 logits out.

    Args:
        network: (N, C, H, W) float -> (N, K, H, W); one channel is taken as the second of two
            classes.
        spec: how it is fed and what it answers.
        sha256: of the model file, for the provenance tags; empty for a network made in Python.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec, *, sha256: str = "") -> None:
        super().__init__()
        if spec.task != "semantic-segmentation":
            raise ModelFileError(
                f"expected a segmentation model; {spec.name!r} is for {spec.task}. "
                "Train a segmentation model from it first."
            )
        self.network = network
        self.spec = spec
        self.sha256 = sha256
        self.preprocess = Preprocess(spec.bands)
        self.compute_dtype = torch.float32

    def forward(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return logits for raw values.

        Args:
            values: (N, C, H, W) in the raster's own dtype and scale.
            valid: True where usable, (N, H, W) bool; None: everywhere.

        Returns:
            Logits (N, K, H, W), float32. An input of a size that the network cannot take is padded
            at the bottom and right by reflection, and the padding is cut off again.

        Raises:
            ModelFileError: the network answers another shape than its record says.
        """
        height, width = values.shape[-2:]
        x = self.preprocess(values, valid)
        x = pad_to_legal(x, self.spec.tile)
        answer = self.network(x.to(self.compute_dtype))
        logits = self._logits(answer, x)
        return logits[..., :height, :width]

    def for_scaling(self, scaling: Sequence[tuple[float, float] | None]) -> "Segmenter":
        """Return a segmenter of the same network for a raster that declares scales and offsets."""
        other = Segmenter(self.network, self.spec, sha256=self.sha256)
        other.preprocess = Preprocess(self.spec.bands, scaling).to(self.preprocess.gain.device)
        other.compute_dtype = self.compute_dtype
        return other.train(self.training)

    def to_precision(self, precision: str) -> Self:
        """Cast the network to ``fp32``, ``bf16`` or ``fp16``; activations stay in that type.

        Raises:
            UsageError: another name.
        """
        if precision not in DTYPES:
            raise UsageError(f"expected a precision of {', '.join(DTYPES)}; got {precision!r}.")
        self.compute_dtype = DTYPES[precision]
        self.network.to(self.compute_dtype)
        return self

    def _logits(self, answer: Tensor, x: Tensor) -> Tensor:
        spec = self.spec
        channels = answer.shape[1] if isinstance(answer, Tensor) and answer.ndim == 4 else -1
        binary = channels == 1 and spec.num_classes == 2
        size_fits = channels > 0 and answer.shape[-2:] == x.shape[-2:]
        if not size_fits or (channels != spec.num_classes and not binary):
            expected = (x.shape[0], spec.num_classes, *x.shape[-2:])
            got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise ModelFileError(
                f"model {spec.name!r}: expected the network to answer {expected}; got {got}. "
                "Wrap the network so that it returns logits at the input's size."
            )
        answer = answer.float()
        if spec.output == "probabilities":
            self._check_probabilities(answer)
            answer = answer.clamp(SMALLEST_PROBABILITY, 1.0)
            answer = torch.logit(answer, SMALLEST_PROBABILITY) if binary else answer.log()
        return torch.cat([torch.zeros_like(answer), answer], dim=1) if binary else answer

    def _check_probabilities(self, answer: Tensor) -> None:
        low, high = (float(v) for v in torch.aminmax(answer))
        if low < -PROBABILITY_TOLERANCE or high > 1 + PROBABILITY_TOLERANCE:
            raise ModelFileError(
                f"model {self.spec.name!r}: expected probabilities between 0 and 1; the network "
                f"answers {low:.4g} to {high:.4g}. Put a softmax or sigmoid at its end, or say in "
                "its record (key geoseg.spec, output) that these are logits."
            )


def pad_to_legal(x: Tensor, tile: TileSpec) -> Tensor:
    """Return (N, C, H, W) padded at the bottom and right to a size that ``tile`` allows."""
    height, width = x.shape[-2:]
    bottom, right = legal_side(height, tile) - height, legal_side(width, tile) - width
    if min(bottom, right) < 0:
        raise ValueError(
            f"expected an image of at most {tile.size_px} px a side, the one size that the network "
            f"was exported for; got {height} x {width}. Cut it into tiles."
        )
    if bottom == 0 and right == 0:
        return x
    say_padded((height, width), (height + bottom, width + right))
    # Reflection needs more pixels than it adds; a smaller image is repeated instead.
    reflects = bottom < height and right < width
    return F.pad(x, (0, right, 0, bottom), mode="reflect" if reflects else "replicate")


@functools.cache
def say_padded(size: tuple[int, int], legal: tuple[int, int]) -> None:
    """Log that images of a size are padded to another, once for each."""
    logger.info(
        "images of %dx%d px are padded to %dx%d at the bottom and right, the nearest size that the "
        "network takes, and the padding is cut off again",
        *size,
        *legal,
    )


def legal_side(side_px: int, tile: TileSpec) -> int:
    """Return the smallest side from ``side_px`` up that the network can take.

    A network that takes one size only has no other, however large ``side_px`` is.
    """
    if tile.fixed:
        return tile.size_px
    side_px = max(side_px, tile.min_px)
    return -(-side_px // tile.multiple_px) * tile.multiple_px
