"""SegMAN's encoder: local attention and a state-space scan in three stages, attention in the last.

Activations are kept channels_last: the scan and the attention read maps as (N, H, W, C), which is
then a view.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.models.fused import conv_add, conv_silu
from geoseg.models.layers import ChannelNorm, depthwise
from geoseg.models.segman_layers import NORM_EPSILON, AddsOnto, SegManBlock, Ss2d
from geoseg.models.segman_position import GRID_CELLS, ResizedBias, Rope, Rotary
from geoseg.ops import neighborhood_attention, rotary_neighborhood_attention
from geoseg.ops.neighborhood_attention import rope_angles
from geoseg.ops.reference import rotate

STAGES = 4


class Mixer(AddsOnto):
    """What both mixers have: projections, position bias, and the value's own convolution.

    Args:
        channels: width C.
        heads: number of heads; C / heads must be a multiple of 4.
        window: side of the attention window.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.lepe = depthwise(channels, (5, 5))
        self.proj = nn.Conv2d(channels, channels, 1)
        self.rpb = nn.ParameterList([torch.zeros(heads, 2 * window - 1, 2 * window - 1)])

    def forward(self, x: Tensor, rope: Rope, onto: Tensor | None = None) -> Tensor:
        """Return (N, C, H, W), added to ``onto`` if that is given."""
        qkv = self.qkv(x)  # (N, 3C, H, W)
        q, k, v = self._heads(qkv)
        # Of the values as they are, before any attention; a slice of channels has to be copied.
        values = qkv[:, 2 * x.shape[1] :].contiguous(memory_format=torch.channels_last)
        mixed = conv_add(self.lepe, values, self._mix(q, k, v, rope))  # (N, C, H, W)
        return conv_add(self.proj, mixed, onto)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (N, H, W, heads, d) each, as views."""
        pixels = qkv.permute(0, 2, 3, 1)  # (N, H, W, 3C)
        q, k, v = pixels.unflatten(-1, (3, self.heads, -1)).unbind(3)
        return q, k, v

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        raise NotImplementedError


class LocalMixer(Mixer):
    """Neighbourhood attention, then the scan of its result: stages 1 to 3."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__(channels, heads, window)
        self.dwconv = nn.Sequential(depthwise(channels, (3, 3)), nn.BatchNorm2d(channels))
        self.ssm = Ss2d(channels)
        self.norm = ChannelNorm(channels, NORM_EPSILON)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        attended = rotary_neighborhood_attention(
            q, k, v, self.window, rope=rope, bias=self.rpb[0]
        )  # (N, H, W, heads, d)
        attended = attended.flatten(-2).permute(0, 3, 1, 2)  # (N, C, H, W)
        # In series: the scan reads the attention's result, not the block's input.
        conv, norm = self.dwconv[0], self.dwconv[1]
        if isinstance(norm, nn.Identity):  # folded into the convolution
            gated = conv_silu(conv, attended)  # type: ignore[arg-type]
        else:
            gated = F.silu(self.dwconv(attended))
        scanned = self.ssm(gated)
        normed = self.norm(scanned)
        # In place is faster; with gradients, or by hooks, others may look at the norm's own result.
        is_seen = torch.is_grad_enabled() or len(self.norm._forward_hooks) > 0
        return normed + attended if is_seen else normed.add_(attended)


class GlobalMixer(Mixer):
    """Neighbourhood attention, then attention of all pixels over its result: stage 4.

    Both use the same rotated and scaled queries and the same keys. The global position bias belongs
    to a grid of 7x7, a 224 px image; for other sizes its matrix is resized as if it were an image.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__(channels, heads, window)
        self.rpb.append(nn.Parameter(torch.zeros(heads, GRID_CELLS, GRID_CELLS)))
        self.resized_bias = ResizedBias()

    def train(self, mode: bool = True) -> Self:
        """Set training mode, and forget what was kept for inference."""
        self.resized_bias.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.resized_bias.clear()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, rope: Rope) -> Tensor:
        height, width = q.shape[1:3]
        sin, cos = rope_angles(rope)  # (H, W, d/2)
        # Scaled once, here: neither attention scales again.
        scale = q.shape[-1] ** -0.5
        q, k = rotate(q, sin, cos).to(q.dtype) * scale, rotate(k, sin, cos).to(k.dtype)
        local = neighborhood_attention(q, k, v, self.window, bias=self.rpb[0], scale=1.0)
        q, k, local = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, local))  # (N, heads, L, d)
        bias = self.resized_bias(self.rpb[1], height * width).to(q.dtype)  # (heads, L, L)
        # The values of the global attention are the local one's result.
        y = F.scaled_dot_product_attention(q, k, local, attn_mask=bias[None], scale=1.0)
        y = y.transpose(1, 2).flatten(2).unflatten(1, (height, width))  # (N, H, W, C)
        return y.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one width, which share their rotary angles."""

    def __init__(self, blocks: Sequence[SegManBlock], head_dim: int) -> None:
        super().__init__()
        self.rope = Rotary(head_dim)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        rope = self.rope(x.shape[2], x.shape[3])
        for block in self.blocks:
            x = block(x, rope)
        return x


def downsample(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a stride-2 convolution and its BatchNorm; sides are halved and rounded up."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def stem(in_channels: int, channels: int) -> nn.Sequential:
    """Return four convolutions from pixels to a quarter of their resolution."""
    half = channels // 2
    return nn.Sequential(
        *downsample(in_channels, half),
        nn.GELU(),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.GELU(),
        *downsample(half, channels),
        nn.GELU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )


class SegManEncoder(nn.Module):
    """Four-stage encoder; a stage's output is its residual stream, without a norm.

    Args:
        in_channels: input bands.
        channels: width of each stage.
        depths: blocks in each stage.
        heads: attention heads in each stage.
        windows: side of the attention window in each stage.
        mlp_ratios: width of the MLP over the stage's, in each stage; the product is cut, not
            rounded.
        layer_scale: whether blocks scale their branches.
        drop_path: rate of the last block; rates rise linearly from 0 over all blocks.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        depths: Sequence[int],
        *,
        heads: Sequence[int],
        windows: Sequence[int] = (11, 9, 7, 7),
        mlp_ratios: Sequence[float] = (4, 4, 3, 3),
        layer_scale: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.depths = tuple(depths)
        self.patch_embed = stem(in_channels, channels[0])
        self.layers = nn.ModuleList()
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        for s, width in enumerate(self.channels):
            if s:
                self.layers.append(downsample(channels[s - 1], width))
            mixer = GlobalMixer if s == STAGES - 1 else LocalMixer
            blocks = [
                SegManBlock(
                    width,
                    mixer(width, heads[s], windows[s]),
                    int(mlp_ratios[s] * width),
                    drop_path=next(rates),
                    layer_scale=layer_scale,
                )
                for _ in range(depths[s])
            ]
            self.layers.append(Stage(blocks, width // heads[s]))
        self.apply(init_weights)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the four stage outputs, (N, C, H/4..H/32, W/4..W/32), sizes rounded up.

        Raises:
            ValueError: a stage's map is smaller than its attention window (sides below 193 px).
        """
        x = self.patch_embed(image)
        stages = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, Stage):
                stages.append(x)
        return stages


def init_weights(module: nn.Module) -> None:
    """Draw weights of convolutions from a truncated normal distribution of deviation 0.02."""
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def segman_encoder_t(in_channels: int = 3, *, drop_path: float = 0.0) -> SegManEncoder:
    """Return the tiny encoder, 2.3 M parameters; its third stage has the wider window."""
    return SegManEncoder(
        in_channels,
        (32, 64, 144, 192),
        (2, 2, 4, 2),
        heads=(1, 2, 4, 8),
        windows=(11, 9, 9, 7),
        drop_path=drop_path,
    )


def segman_encoder_s(in_channels: int = 3, *, drop_path: float = 0.15) -> SegManEncoder:
    """Return the small encoder, 24.0 M parameters."""
    return SegManEncoder(
        in_channels,
        (64, 144, 288, 512),
        (2, 2, 10, 4),
        heads=(2, 4, 8, 16),
        mlp_ratios=(4, 4, 3.4, 3.4),
        drop_path=drop_path,
    )


def segman_encoder_b(in_channels: int = 3, *, drop_path: float = 0.25) -> SegManEncoder:
    """Return the base encoder, 43.4 M parameters."""
    return SegManEncoder(
        in_channels,
        (96, 160, 364, 560),
        (4, 4, 18, 4),
        heads=(4, 8, 13, 20),
        layer_scale=True,
        drop_path=drop_path,
    )


def segman_encoder_l(
    in_channels: int = 3, *, drop_path: float = 0.25, stage3_of_448: bool = False
) -> SegManEncoder:
    """Return the large encoder, 79.3 M parameters.

    Args:
        in_channels: input bands.
        drop_path: rate of the last block.
        stage3_of_448: 26 blocks of width 448 in the third stage, which a second published
            configuration names, in place of 28 of width 432.
    """
    return SegManEncoder(
        in_channels,
        (96, 192, 448 if stage3_of_448 else 432, 640),
        (4, 4, 26 if stage3_of_448 else 28, 4),
        heads=(4, 8, 14 if stage3_of_448 else 12, 20),
        layer_scale=True,
        drop_path=drop_path,
    )


class SegManClassifier(nn.Module):
    """SegMAN's encoder with the head of its ImageNet pre-training."""

    def __init__(self, name: str, encoder: SegManEncoder, num_classes: int) -> None:
        super().__init__()
        self.name = name
        self.num_classes = num_classes
        self.encoder = encoder
        self.classifier = nn.Sequential(
            nn.Conv2d(encoder.channels[-1], 1024, 1),
            nn.BatchNorm2d(1024),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(1024, num_classes, 1),
        )
        self.classifier.apply(init_weights)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Return class logits, (N, K), for an image (N, bands, H, W); pre-trained at 224 px."""
        features = self.encoder(image.contiguous(memory_format=torch.channels_last))
        return self.classifier(features[-1]).flatten(1)
