"""Hamburger decoder of SegNeXt: non-negative matrix factorisation as global context.

The factorisation (Geng et al., ICLR 2021, "Is Attention Better Than Matrix Decomposition?") starts
from bases U. The published code draws them at random in every forward pass, so that one image gives
two answers in two runs. Here they are a buffer: fixed, saved with the model, or given by the
caller.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.models.layers import resize_like
from geoseg.ops.backends import without_autocast

STEPS_TRAIN = 6
STEPS_EVAL = 7
EPSILON = 1e-6
# Any fixed seed does; the drawn bases are stored in the model file.
BASES_SEED = 0


def factorise(x: Tensor, bases: Tensor, steps: int) -> Tensor:
    """Return the rank-R approximation of non-negative maps by multiplicative updates.

    The update is written on pixels-by-channels matrices, the memory order of a channels_last map,
    and runs in float32 whatever the input: its quotients need the range.

    Args:
        x: non-negative maps, (N, D, H, W).
        bases: initial bases, (1 or N, D, R), non-negative; normalised over D inside.
        steps: joint updates of coefficients and bases before the last update of coefficients.

    Returns:
        U V^T as (N, D, H, W), dtype of ``x``.
    """
    batch, dim, height, width = x.shape
    with without_autocast(x.device.type):
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, dim).float()  # (N, HW, D)
        u = F.normalize(bases.float(), dim=1).expand(batch, -1, -1)  # (N, D, R)
        v = torch.softmax(pixels @ u, dim=-1)  # (N, HW, R)
        for _ in range(steps):
            v = v * ((pixels @ u) / (v @ (u.mT @ u) + EPSILON))
            u = u * ((pixels.mT @ v) / (u @ (v.mT @ v) + EPSILON))
        v = v * ((pixels @ u) / (v @ (u.mT @ u) + EPSILON))
        approximation = (v @ u.mT).to(x.dtype)  # (N, HW, D)
    return approximation.view(batch, height, width, dim).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """1x1 convolution without bias, then GroupNorm over 32 groups."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.gn = nn.GroupNorm(32, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W), no activation."""
        return self.gn(self.conv(x))


class PlainConv(nn.Module):
    """A bare 1x1 convolution with bias, one level down as in the published state dicts."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        return self.conv(x)


class Hamburger(nn.Module):
    """Non-negative projection, factorisation, projection back, residual.

    Args:
        channels: width D of the map.
        rank: number of bases R.
        random_bases_in_training: draw new bases at every training step, as the published code does.
    """

    bases: Tensor

    def __init__(self, channels: int, rank: int, *, random_bases_in_training: bool = False) -> None:
        super().__init__()
        self.ham_in = PlainConv(channels, channels)
        self.ham_out = ConvNorm(channels, channels)
        self.random_bases_in_training = random_bases_in_training
        generator = torch.Generator().manual_seed(BASES_SEED)
        drawn = torch.rand((1, channels, rank), generator=generator, device="cpu")
        self.register_buffer("bases", F.normalize(drawn, dim=1))

    def forward(self, x: Tensor, bases: Tensor | None = None) -> Tensor:
        """Return (N, D, H, W); ``bases`` (1 or N, D, R) replace the saved ones."""
        if bases is None:
            bases = self._own_bases(x)
        enriched = F.relu(self.ham_in(x))
        enriched = factorise(enriched, bases, STEPS_TRAIN if self.training else STEPS_EVAL)
        return F.relu(x + self.ham_out(enriched))

    def _own_bases(self, x: Tensor) -> Tensor:
        if self.training and self.random_bases_in_training:
            shape = (x.shape[0], *self.bases.shape[1:])
            return torch.rand(shape, device=x.device)
        return self.bases


class LightHamHead(nn.Module):
    """Fuses stages 2 to 4 at one eighth of the input size and classifies each position.

    Args:
        in_channels: widths of stages 2, 3 and 4.
        ham_channels: width of the fused and factorised map, D.
        num_classes: number of classes K.
        rank: number of NMF bases R.
        channels: width before the classifier; None: as ``ham_channels``.
        dropout: rate of whole channels dropped before the classifier in training.
        random_bases_in_training: see `Hamburger`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        ham_channels: int,
        num_classes: int,
        *,
        rank: int,
        channels: int | None = None,
        dropout: float = 0.1,
        random_bases_in_training: bool = False,
    ) -> None:
        super().__init__()
        channels = channels or ham_channels
        self.squeeze = ConvNorm(sum(in_channels), ham_channels)
        self.hamburger = Hamburger(
            ham_channels, rank, random_bases_in_training=random_bases_in_training
        )
        self.align = ConvNorm(ham_channels, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        assert self.conv_seg.bias is not None
        nn.init.zeros_(self.conv_seg.bias)

    def forward(self, features: Sequence[Tensor], bases: Tensor | None = None) -> Tensor:
        """Return logits (N, K, H/8, W/8) from the four stages; the first is not used."""
        size = features[1].shape[-2], features[1].shape[-1]
        fused = torch.cat([resize_like(f, size) for f in features[1:]], dim=1)
        x = F.relu(self.squeeze(fused))
        x = self.hamburger(x, bases)
        x = F.relu(self.align(x))
        return self.conv_seg(self.dropout(x))
