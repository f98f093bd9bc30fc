"""How SegMAN tells pixels where they are: rotary angles and the last stage's global bias."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg.models.layers import KeepsFloat32

Rope = tuple[Tensor, Tensor]

ROPE_RANGE = 10_000.0
# Pixels of the grid that the global bias is learned on: 224 px at stride 32.
GRID_CELLS = 49
# A larger resized bias is made anew for every image rather than kept.
KEPT_BYTES = 32 * 2**20


class Rotary(KeepsFloat32):
    """Angles by which queries and keys turn per row and per column.

    Unlike in most networks the exponents include 1: they are i / (n - 1). Positions are pixel
    indexes of the map as it comes, so that the same pixel turns differently in another crop.

    Attributes:
        angle: of the n = d/4 channel pairs of one axis, each twice in a row as in the published
            files, (d/2,).
    """

    angle: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        theta = 1.0 / ROPE_RANGE ** torch.linspace(0.0, 1.0, head_dim // 4)
        self.register_buffer("angle", theta.repeat_interleave(2))

    def forward(self, height: int, width: int) -> Rope:
        """Return sine and cosine of rows and columns, (H, d/4, 2) and (W, d/4, 2), float32."""
        return self._axis(height), self._axis(width)

    def _axis(self, length: int) -> Tensor:
        index = torch.arange(length, device=self.angle.device, dtype=self.angle.dtype)
        turned = index[:, None] * self.angle[::2]  # (length, d/4)
        return torch.stack([turned.sin(), turned.cos()], dim=-1).float()


def resize_bias(bias: Tensor, length: int) -> Tensor:
    """Return a position bias between all pixels for another number of pixels.

    The published networks resize the matrix bicubically as if it were an image; its rows and
    columns are flattened grids, which this ignores.

    Args:
        bias: (heads, 49, 49).
        length: number of pixels L.

    Returns:
        (heads, L, L).
    """
    if length == bias.shape[-1]:
        return bias
    return F.interpolate(bias[None], (length, length), mode="bicubic", align_corners=False)[0]


@dataclass(frozen=True)
class _Kept:
    """A resized bias with what it was made from.

    ``source`` shares the parameter's memory: while it is held, no other tensor can lie there.
    ``values`` are the parameter's own at that time, on a CPU: writing through ``.data`` counts no
    version. On other devices a comparison would wait for the device.
    """

    source: Tensor
    version: int
    values: Tensor | None
    bias: Tensor


class ResizedBias:
    """The global bias of one mixer, resized; the last result is kept at inference.

    A result is used again only while the parameter has the same memory, unwritten since: loading
    weights, moving the network and training steps all end that. It is neither saved nor copied.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def __call__(self, bias: Tensor, length: int) -> Tensor:
        """Return ``bias`` (heads, 49, 49) as (heads, L, L)."""
        if not _may_keep(bias):
            return resize_bias(bias, length)
        kept = self._kept
        if kept is None or not _is_current(kept, bias, length):
            values = bias.detach().clone() if bias.device.type == "cpu" else None
            kept = _Kept(bias.detach(), bias._version, values, resize_bias(bias, length))
            small = kept.bias.numel() * kept.bias.element_size() <= KEPT_BYTES
            self._kept = kept if small else None
        return kept.bias

    def clear(self) -> None:
        """Forget the kept result."""
        self._kept = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ResizedBias, ()


def _may_keep(bias: Tensor) -> bool:
    # First, since a compiler cannot ask for the rest.
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    # Inference tensors count no versions.
    return not (torch.is_grad_enabled() or bias.is_inference())


def _is_current(kept: _Kept, bias: Tensor, length: int) -> bool:
    return (
        kept.source.data_ptr() == bias.data_ptr()
        and kept.source.dtype == bias.dtype
        and kept.version == bias._version
        and kept.bias.shape[-1] == length
        and (kept.values is None or torch.equal(kept.values, bias))
    )
