"""Layers that both network families use."""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.models.depthwise import DepthwiseConv2d
from geoseg.models.fused import can_fuse, conv_add, conv_gelu

# Half of the largest block that glibc can be told to keep; see geoseg/predict/memory.py.
STRIP_BYTES = 16 * 2**20
HALVES = (torch.bfloat16, torch.float16)


def depthwise(channels: int, kernel: tuple[int, int]) -> nn.Conv2d:
    """Return a depthwise convolution with bias that keeps the map's size."""
    return DepthwiseConv2d(channels, kernel)


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


class ConvMlp(nn.Module):
    """1x1 convolution, depthwise 3x3, GELU, 1x1 convolution."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = depthwise(hidden, (3, 3))
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return (N, C, H, W), added to ``onto`` if that is given.

        On a CPU the hidden map, up to eight times as wide as ``x``, is made in strips of rows: it
        then stays out of memory that the system has to clear anew for every layer.
        """
        if not can_fuse(x):
            return conv_add(self.fc2, self._hidden(x), onto)
        height, width = x.shape[2:]
        hidden_bytes = self.fc1.out_channels * height * width * x.element_size()
        strips = round(hidden_bytes / STRIP_BYTES)
        if strips < 2:
            return conv_add(self.fc2, self._hidden(x), onto)
        rows = -(-height // strips)
        out = torch.empty_like(x)
        for i in range(len(x)):
            image, made = x[i : i + 1], out[i : i + 1]
            for row in range(0, height, rows):
                # The 3x3 sees one row beyond the strip; at the map's own edge it sees zeros.
                first, stop = max(0, row - 1), min(height, row + rows + 1)
                hidden = self._hidden(image[:, :, first:stop])
                inner = hidden[:, :, row - first : row - first + rows]
                below = None if onto is None else onto[i : i + 1, :, row : row + rows]
                made[:, :, row : row + rows] = conv_add(self.fc2, inner, below)
        return out

    def _hidden(self, x: Tensor) -> Tensor:
        """Return the hidden map; a pixel of it sees one pixel around."""
        return conv_gelu(self.dwconv, self.fc1(x))


class KeepsFloat32(nn.Module):
    """Leaves its own parameters and buffers in float32 when the network is cast to a lower type.

    For numbers that go into exponentials or are multiplied by pixel indexes: bfloat16 leaves them
    eight bits.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        own = (*self.named_parameters(recurse=False), *self.named_buffers(recurse=False))
        before = {name: tensor.detach() for name, tensor in own}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, given in before.items():
            tensor = getattr(self, name)
            if tensor.dtype in HALVES and given.dtype not in HALVES:
                exact = given.to(tensor.device, torch.float32)
                if isinstance(tensor, nn.Parameter):
                    tensor.grad = None  # was cast with the rest, and must have its owner's type
                    tensor.data = exact
                else:
                    setattr(self, name, exact)
        return self


def resize_like(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (N, C, H, W) resized bilinearly to ``size`` (rows, columns), half-pixel centres."""
    if features.shape[-2:] == torch.Size(size):
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def check_bands(name: str, image: Tensor, in_channels: int) -> None:
    """Raise a ValueError unless ``image`` is (N, in_channels, H, W)."""
    if image.ndim != 4 or image.shape[1] != in_channels:
        raise ValueError(
            f"{name} expects images (N, {in_channels}, H, W); got {tuple(image.shape)}. "
            f"Give {in_channels} bands, or build the network with in_channels=..."
        )
