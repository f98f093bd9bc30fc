"""Depthwise convolution whose gradients are fast on a CPU.

oneDNN's gradient of a depthwise kernel is 3 to 30 times slower than its forward pass when a bias is
asked for in the same call, or when the kernel is wide: then it leaves its vector code. Here the
bias is a plain sum, the gradient of the input is the convolution with the kernel turned by 180
degrees, and the gradient of a wide kernel is that of a high one on the transposed map.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# From this width on, a kernel's gradient is taken column by column or transposed.
WIDE_PX = 5


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with bias that keeps the map's size.

    Args:
        channels: of the map.
        kernel: odd (rows, columns).
    """

    def __init__(self, channels: int, kernel: tuple[int, int]) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(channels, channels, kernel, padding=padding, groups=channels)

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, C, H, W)."""
        if self.bias is None or not _has_slow_gradient(input):
            return super().forward(input)
        return _Depthwise.apply(input, self.weight, self.bias)


def _has_slow_gradient(x: Tensor) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if torch._C._get_tracing_state() is not None or torch.is_autocast_enabled("cpu"):
        return False
    is_plain = x.device.type == "cpu" and x.dtype == torch.float32
    return is_plain and x.is_contiguous(memory_format=torch.channels_last)


class _Depthwise(torch.autograd.Function):
    """Convolution of x (N, C, H, W) with weight (C, 1, rows, columns) and bias (C,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = gradients[0].contiguous(memory_format=torch.channels_last)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _convolve(grad, weight.flip(2, 3), None) if wants_x else None,
            _weight_gradient(grad, x, weight) if wants_weight else None,
            grad.sum(dim=(0, 2, 3)) if wants_bias else None,
        )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows, columns = weight.shape[2:]
    padding = (rows // 2, columns // 2)
    return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of the kernel, (C, 1, rows, columns)."""
    rows, columns = weight.shape[2:]
    if rows == 1 and columns >= WIDE_PX:
        turned = _direct(_transposed(grad), _transposed(x), weight.transpose(2, 3), columns // 2)
        return turned.transpose(2, 3)
    if columns < WIDE_PX:
        return _direct(grad, x, weight, rows // 2)
    width = x.shape[3]
    wide = F.pad(x, (columns // 2, columns // 2))
    parts = []
    for j in range(columns):
        shifted = wide[..., j : j + width].contiguous(memory_format=torch.channels_last)
        parts.append(_direct(grad, shifted, weight[..., j : j + 1], rows // 2))
    return torch.cat(parts, dim=3)


def _direct(grad: Tensor, x: Tensor, weight: Tensor, padding_rows: int) -> Tensor:
    operator = torch.ops.aten.convolution_backward
    padding = [padding_rows, weight.shape[3] // 2]
    one, zero = [1, 1], [0, 0]
    wanted = [False, True, False]
    found: Tensor = operator(
        grad, x, weight, None, one, padding, one, False, zero, len(weight), wanted
    )[1]
    return found


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(2, 3).contiguous(memory_format=torch.channels_last)
