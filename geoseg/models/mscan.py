"""MSCAN, the encoder of SegNeXt (Guo et al., NeurIPS 2022): convolutional attention in four stages.

Written from the paper and from the facts of the published checkpoints; module names follow those
files, so that a state dict can be read against them. Activations are kept channels_last: on a CPU
the strip convolutions are many times slower in any other layout.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geoseg.models.fused import conv_add, conv_gelu, conv_mul
from geoseg.models.layers import ChannelNorm, ConvMlp, DropPath, depthwise

# GELU precedes the gate and the strips follow the 5x5: kernel lengths of the three strip pairs.
STRIP_LENGTHS = (7, 11, 21)
MLP_RATIOS = (8, 8, 4, 4)


class SpatialGate(nn.Module):
    """Multi-scale attention map from a 5x5 and three strip pairs, multiplied onto the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = depthwise(channels, (5, 5))
        for i, length in enumerate(STRIP_LENGTHS):
            setattr(self, f"conv{i}_1", depthwise(channels, (1, length)))
            setattr(self, f"conv{i}_2", depthwise(channels, (length, 1)))
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """Return the gated map, (N, C, H, W). There is no sigmoid: the attention is linear."""
        local = self.conv0(u)  # (N, C, H, W)
        # The 5x5 result itself is one of the four summands.
        summed = local
        for i in range(len(STRIP_LENGTHS)):
            horizontal = getattr(self, f"conv{i}_1")(local)
            summed = conv_add(getattr(self, f"conv{i}_2"), horizontal, summed)
        return conv_mul(self.conv3, summed, u)


class GatedAttention(nn.Module):
    """1x1 convolution, GELU, spatial gate, 1x1 convolution, with an inner shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.spatial_gating_unit = SpatialGate(channels)
        self.proj_2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W). The shortcut takes ``x`` as given, which is already normalised."""
        return conv_add(self.proj_2, self.spatial_gating_unit(conv_gelu(self.proj_1, x)), x)


class MscanBlock(nn.Module):
    """Attention and MLP, each behind a BatchNorm and a per-channel scale, each residual."""

    def __init__(self, channels: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = GatedAttention(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = ConvMlp(channels, channels * mlp_ratio)
        self.drop_path = DropPath(drop_path)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), 1e-2))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        scale_1 = self.layer_scale_1.view(1, -1, 1, 1)
        scale_2 = self.layer_scale_2.view(1, -1, 1, 1)
        x = x + self.drop_path(scale_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(scale_2 * self.mlp(self.norm2(x)))


class Stem(nn.Module):
    """Two stride-2 convolutions: pixels to quarter resolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.Conv2d(half, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, ceil(H/4), ceil(W/4))."""
        return self.proj(x)


class Downsample(nn.Module):
    """A stride-2 convolution and a BatchNorm between stages."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, ceil(H/2), ceil(W/2))."""
        return self.norm(self.proj(x))


class Mscan(nn.Module):
    """Four-stage encoder; the normalised output of a stage feeds the next one.

    Args:
        in_channels: input bands.
        channels: width of each stage.
        depths: blocks in each stage.
        drop_path: rate of the last block; rates rise linearly from 0 over all blocks.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        depths: Sequence[int],
        *,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.depths = tuple(depths)
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        for s, (width, depth) in enumerate(zip(channels, depths, strict=True)):
            embed = Downsample(channels[s - 1], width) if s else Stem(in_channels, width)
            blocks = [MscanBlock(width, MLP_RATIOS[s], next(rates)) for _ in range(depth)]
            setattr(self, f"patch_embed{s + 1}", embed)
            setattr(self, f"block{s + 1}", nn.Sequential(*blocks))
            setattr(self, f"norm{s + 1}", ChannelNorm(width))
        self.apply(init_weights)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the four stage outputs, (N, C, H/4..H/32, W/4..W/32), sizes rounded up."""
        x = image
        stages = []
        for s in range(1, 5):
            x = getattr(self, f"patch_embed{s}")(x)
            x = getattr(self, f"block{s}")(x)
            x = getattr(self, f"norm{s}")(x)
            stages.append(x)
        return stages


def mscan_t(in_channels: int = 3, *, drop_path: float = 0.1) -> Mscan:
    """Return the tiny encoder, 3.9 M parameters."""
    return Mscan(in_channels, (32, 64, 160, 256), (3, 3, 5, 2), drop_path=drop_path)


def mscan_s(in_channels: int = 3, *, drop_path: float = 0.1) -> Mscan:
    """Return the small encoder, 13.5 M parameters."""
    return Mscan(in_channels, (64, 128, 320, 512), (2, 2, 4, 2), drop_path=drop_path)


def mscan_b(in_channels: int = 3, *, drop_path: float = 0.1) -> Mscan:
    """Return the base encoder, 26.3 M parameters."""
    return Mscan(in_channels, (64, 128, 320, 512), (3, 3, 12, 3), drop_path=drop_path)


def mscan_l(in_channels: int = 3, *, drop_path: float = 0.3) -> Mscan:
    """Return the large encoder, 44.6 M parameters."""
    return Mscan(in_channels, (64, 128, 320, 512), (3, 5, 27, 3), drop_path=drop_path)


class MscanClassifier(nn.Module):
    """MSCAN with global average pooling and a linear layer, as pre-trained on ImageNet."""

    def __init__(self, name: str, encoder: Mscan, num_classes: int) -> None:
        super().__init__()
        self.name = name
        self.num_classes = num_classes
        self.encoder = encoder
        self.head = nn.Linear(encoder.channels[-1], num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Return class logits, (N, K), for an image (N, bands, H, W)."""
        features = self.encoder(image.contiguous(memory_format=torch.channels_last))
        return self.head(features[-1].mean(dim=(2, 3)))


def init_weights(module: nn.Module) -> None:
    """Draw a convolution's weights from N(0, 2 / fan_out); other layers keep torch's defaults."""
    if isinstance(module, nn.Conv2d):
        rows, columns = module.kernel_size
        fan_out = rows * columns * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
