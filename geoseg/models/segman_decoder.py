"""SegMAN's decoder: one scan over three scales of context at 1/32, fused at 1/8."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.models.layers import resize_like
from geoseg.models.segman_layers import SegManBlock, Ss2d

MLP_RATIO = 4
# Sides at 1/8 are divided by this to reach the scale of the scan.
REDUCTION = 4


class ConvBnRelu(nn.Module):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1
    ) -> None:
        super().__init__()
        # The 5x5 of stride 4 has this padding of 1 too, which puts its grid off the centre.
        padding = 1 if kernel > 1 else 0
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=padding, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H', W')."""
        return F.relu(self.bn(self.conv(x)))


class PixelLinear(nn.Module):
    """A linear layer on each pixel's channels; the published files hold it as a matrix."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SegManDecoder(nn.Module):
    """Stages 2 to 4 to logits at one eighth of the input size.

    Args:
        in_channels: widths of stages 2, 3 and 4.
        channels: width E of the fused map.
        projection: width P that each stage is projected to.
        num_classes: number of classes K.
        dropout: rate of whole channels dropped before the classifier in training.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        projection: int,
        *,
        num_classes: int,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.projection = projection
        self.linear_c2, self.linear_c3, self.linear_c4 = (
            PixelLinear(width, projection) for width in in_channels
        )
        self.linear_fuse = ConvBnRelu(3 * projection, channels)
        self.short_path = ConvBnRelu(channels, channels)
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvBnRelu(channels, channels))
        self.conv_downsample_2 = ConvBnRelu(channels, 2 * channels, kernel=3, stride=2)
        self.conv_downsample_4 = ConvBnRelu(channels, 4 * channels, kernel=5, stride=4)
        # In reverse: the first is for the convolved map, the last for the unshuffled one.
        self.reduce_channels = nn.ModuleList(
            ConvBnRelu(n * channels, channels) for n in (REDUCTION, 8, 16)
        )
        scanned = 3 * channels
        self.vssm = SegManBlock(scanned, Ss2d(scanned), MLP_RATIO * scanned)
        self.proj_out = ConvBnRelu(scanned, projection)
        self.cat = ConvBnRelu(2 * channels + scanned + 3 * projection, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        assert self.conv_seg.bias is not None
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits (N, K, H/8, W/8) from the four stages; the first is not used.

        Raises:
            ValueError: sides at 1/8 are no multiples of 4, or training with a single image.
        """
        second, third, fourth = features[1:]
        size = second.shape[-2], second.shape[-1]
        check_features(second, trained=cast(ConvBnRelu, self.image_pool[1]).bn.training)
        f2 = self.linear_c2(second)  # (N, P, H/8, W/8)
        f3 = resize_like(self.linear_c3(third), size)
        f4 = resize_like(self.linear_c4(fourth), size)
        x = self.linear_fuse(torch.cat([f4, f3, f2], dim=1))  # (N, E, H/8, W/8)
        short = self.short_path(x)
        pooled = self.image_pool(x).expand_as(short)
        context = resize_like(self.vssm(self._scales(x)), size)  # (N, 3E, H/8, W/8)
        p = self.proj_out(context)  # (N, P, H/8, W/8)
        # The same projected context is added to each stage.
        fused = self.cat(torch.cat([short, pooled, context, f2 + p, f3 + p, f4 + p], dim=1))
        return self.conv_seg(self.dropout(fused))

    def _scales(self, x: Tensor) -> Tensor:
        """Return three views of the map at 1/32, (N, 3E, H/32, W/32)."""
        half = self.conv_downsample_2(x)  # (N, 2E, H/16, W/16)
        quarter = self.conv_downsample_4(x)  # (N, 4E, H/32, W/32)
        scales = [
            self.reduce_channels[2](F.pixel_unshuffle(x, REDUCTION)),
            self.reduce_channels[1](F.pixel_unshuffle(half, REDUCTION // 2)),
            self.reduce_channels[0](quarter),
        ]
        return torch.cat(scales, dim=1)


def check_features(second: Tensor, *, trained: bool) -> None:
    """Raise a ValueError unless the decoder can take features of this size and batch."""
    batch, _, height, width = second.shape
    if height % REDUCTION or width % REDUCTION:
        raise ValueError(
            f"SegMAN's decoder expects maps at 1/8 whose sides are multiples of {REDUCTION}; got "
            f"{height}x{width}. Pad the image to a multiple of {8 * REDUCTION} px."
        )
    if trained and batch < 2:
        raise ValueError(
            "SegMAN needs at least 2 images per process in training: its decoder normalises one "
            f"pooled value per image over the batch; got {batch}. Raise the batch size."
        )
