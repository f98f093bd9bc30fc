"""Parts that SegMAN's encoder and decoder share.

SegMAN: Fu, Lou and Yu, CVPR 2025. Written from the facts of the published checkpoints; module names
follow those files, so that a state dict can be read against them.
"""

import math

import torch
from torch import Tensor, nn

from geoseg.models.fused import can_fuse, conv_add, conv_gelu
from geoseg.models.layers import ChannelNorm, ConvMlp, DropPath, KeepsFloat32, depthwise
from geoseg.ops import ss2d

DIRECTIONS = 4
# Of SegMAN's layer norms; torch's default is 1e-5.
NORM_EPSILON = 1e-6
LAYER_SCALE = 1e-6
# Range of the step sizes that the scan starts with, and their floor.
STEP_RANGE = (1e-3, 0.1)
STEP_FLOOR = 1e-4


class Ss2d(KeepsFloat32):
    """Four-direction selective scan of a map: no gate, no projection in or out, no expansion."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        rank = -(-channels // 16)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS * (rank + 2), channels, 1))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, channels, rank))
        # A = -exp(0) = -1 in every channel.
        self.A_logs = nn.Parameter(torch.zeros(DIRECTIONS * channels, 1))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * channels))
        low, high = (math.log(step) for step in STEP_RANGE)
        step = torch.empty(DIRECTIONS, channels).uniform_(low, high).exp().clamp(min=STEP_FLOOR)
        # The inverse of softplus.
        self.dt_projs_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        nn.init.uniform_(self.x_proj_weight, -(channels**-0.5), channels**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(rank**-0.5), rank**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        pixels = x.permute(0, 2, 3, 1)  # (N, H, W, C)
        y = ss2d(
            pixels,
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs,
            self.Ds,
        )
        return y.permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """Per-channel weight and bias; the published files hold it as a depthwise 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1, 1), LAYER_SCALE))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        return torch.addcmul(self.bias.view(-1, 1, 1), x, self.weight[..., 0])


class AddsOnto(nn.Module):
    """A mixer whose last convolution can add its result to a map, the argument ``onto``."""


class ResidualMlp(ConvMlp):
    """1x1 convolution, GELU, depthwise 3x3 added to its own input, 1x1 convolution.

    GELU comes before the depthwise convolution, and the residual is inside: SegNeXt's differs.
    """

    def _hidden(self, x: Tensor) -> Tensor:
        hidden = conv_gelu(self.fc1, x)
        return conv_add(self.dwconv, hidden, hidden)


class SegManBlock(nn.Module):
    """Position convolution, mixer, position convolution, MLP; each of the four is residual.

    Args:
        channels: width C.
        mixer: what exchanges between pixels, (N, C, H, W) and more arguments -> (N, C, H, W).
        hidden: width of the MLP.
        drop_path: rate at which mixer and MLP are dropped; the position convolutions never are.
        layer_scale: scale the branches of mixer and MLP per channel.
    """

    def __init__(
        self,
        channels: int,
        mixer: nn.Module,
        hidden: int,
        *,
        drop_path: float = 0.0,
        layer_scale: bool = False,
    ) -> None:
        super().__init__()
        self.cpe1 = depthwise(channels, (3, 3))
        self.norm1 = ChannelNorm(channels, NORM_EPSILON)
        self.token_mixer = mixer
        self.cpe2 = depthwise(channels, (3, 3))
        self.norm2 = ChannelNorm(channels, NORM_EPSILON)
        self.mlp = ResidualMlp(channels, hidden)
        self.drop_path = DropPath(drop_path)
        self.layer_scale1 = LayerScale(channels) if layer_scale else nn.Identity()
        self.layer_scale2 = LayerScale(channels) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, *given: object) -> Tensor:
        """Return (N, C, H, W); ``given`` goes to the mixer."""
        x = conv_add(self.cpe1, x, x)
        if isinstance(self.token_mixer, AddsOnto) and self._adds_inside(
            x, self.layer_scale1, self.token_mixer
        ):
            x = self.token_mixer(self.norm1(x), *given, onto=x)
        else:
            x = x + self.drop_path(self.layer_scale1(self.token_mixer(self.norm1(x), *given)))
        x = conv_add(self.cpe2, x, x)
        if self._adds_inside(x, self.layer_scale2, self.mlp):
            return self.mlp(self.norm2(x), onto=x)
        return x + self.drop_path(self.layer_scale2(self.mlp(self.norm2(x))))

    def _adds_inside(self, x: Tensor, scale: nn.Module, branch: nn.Module) -> bool:
        """Return whether a branch's last convolution may add ``x``: nobody looks in between."""
        if self.training or branch._forward_hooks:
            return False
        return isinstance(scale, nn.Identity) and can_fuse(x)
