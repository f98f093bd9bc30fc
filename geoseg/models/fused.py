"""Convolutions together with what follows them, in one pass over memory.

On a CPU, without gradients and channels_last, oneDNN takes an activation or a second operand into
the convolution that makes its input. PyTorch has no public name for that in eager mode; the
operators are those that torch.compile writes. Where they are missing or do not apply, the plain
operations run and answer the same within rounding.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.models.depthwise import DepthwiseConv2d


def conv_gelu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return ``gelu(conv(x))``, (N, C, H, W)."""
    if not (can_fuse(x) and is_plain(conv)):
        return F.gelu(conv(x))
    return _with_activation(conv, x, "gelu", "none")


def conv_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return ``relu(conv(x))``, (N, C, H, W)."""
    if not (can_fuse(x) and is_plain(conv)):
        return F.relu(conv(x))
    return _with_activation(conv, x, "relu")


def conv_silu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return ``silu(conv(x))``, (N, C, H, W)."""
    if not (can_fuse(x) and is_plain(conv)):
        return F.silu(conv(x))
    return _with_activation(conv, x, "swish")


def conv_add(conv: nn.Conv2d, x: Tensor, other: Tensor | None) -> Tensor:
    """Return ``conv(x) + other``, (N, C, H, W); None adds nothing."""
    if other is None:
        return conv(x)
    if not (can_fuse(x, other) and is_plain(conv)):
        return conv(x) + other
    return _with_operand(conv, x, other, "add")


def conv_mul(conv: nn.Conv2d, x: Tensor, other: Tensor) -> Tensor:
    """Return ``conv(x) * other``, (N, C, H, W)."""
    if not (can_fuse(x, other) and is_plain(conv)):
        return conv(x) * other
    return _with_operand(conv, x, other, "mul")


def is_plain(conv: nn.Module) -> bool:
    """Return whether calling a module is its weights' convolution and nothing else.

    Not where somebody looks on by a hook, which is also how older pruning and weight norm work, or
    has put another class in its place.
    """
    if type(conv) not in (nn.Conv2d, DepthwiseConv2d):
        return False
    return not (conv._forward_hooks or conv._forward_pre_hooks)


def can_fuse(*maps: Tensor) -> bool:
    """Return whether maps (N, C, H, W) can go through a fused convolution."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False  # neither differentiable nor known to exporters
    if torch._C._get_tracing_state() is not None or torch.is_autocast_enabled("cpu"):
        return False
    return all(
        x.device.type == "cpu"
        and x.dtype in fused_dtypes()
        and x.is_contiguous(memory_format=torch.channels_last)
        # One pixel's strides are ambiguous; torch 2.10 stumbles over them.
        and min(x.shape[2:]) > 1
        for x in maps
    )


@functools.cache
def fused_dtypes() -> tuple[torch.dtype, ...]:
    """Return the data types that this build and this CPU have fused convolutions for."""
    operators = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    overloads = operators.overloads() if operators is not None else []
    has_onednn = torch.backends.mkldnn.is_available()
    if not has_onednn or {"default", "binary"} - set(overloads):
        return ()
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.float32, torch.bfloat16
    return (torch.float32,)


def _arguments(conv: nn.Conv2d, x: Tensor) -> tuple[object, ...]:
    return x, conv.weight, conv.bias, *_geometry(conv)


def _with_activation(conv: nn.Conv2d, x: Tensor, name: str, algorithm: str = "") -> Tensor:
    operator = torch.ops.mkldnn._convolution_pointwise.default
    return operator(*_arguments(conv, x), name, [], algorithm)


def _with_operand(conv: nn.Conv2d, x: Tensor, other: Tensor, operation: str) -> Tensor:
    operator = torch.ops.mkldnn._convolution_pointwise.binary
    arguments = (x, other, conv.weight, conv.bias, *_geometry(conv))
    return operator(*arguments, operation, None, None, [], None)


def _geometry(conv: nn.Conv2d) -> tuple[object, ...]:
    return list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
