"""Layers that both network families use."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of an (N, C, H, W) map.

    On a channels_last map both permutations are views and nothing is copied.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the map normalised per pixel, (N, C, H, W)."""
        pixels = input.permute(0, 2, 3, 1)  # (N, H, W, C)
        normed = F.layer_norm(pixels, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)  # (N, C, H, W)


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch for a random share of the samples.

    Args:
        rate: probability that a sample's branch is dropped, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Return ``branch`` (N, C, H, W), zeroed per sample and rescaled to keep its mean."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = 1.0 - self.rate
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        return branch * branch.new_empty(shape).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        """Return the rate for printing."""
        return f"rate={self.rate:.3f}"


def resize_like(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (N, C, H, W) resized bilinearly to ``size`` (rows, columns), half-pixel centres."""
    if features.shape[-2:] == torch.Size(size):
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)
