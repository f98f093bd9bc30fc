"""Neighbourhood attention by the package natten, where it can do it.

It can seldom do what SegMAN needs: it has had no relative-position bias since 0.20, its CUDA
kernels take head widths of multiples of 8 and its other form only powers of two. That other form
is what runs on CPU and ROCm: it keeps the scores of every pair of pixels, so its memory and time
grow with the square of the map. Nothing here falls back to another backend: `refusal` says what
natten cannot take, and `na2d` raises that.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from geoseg.errors import BackendUnavailableError
from geoseg.ops._torch_attention import rotated

# The first whose list of backends is asked with q, k and v.
_OLDEST = (0, 20, 1)


@cache
def unavailable_reason() -> str | None:
    """Return why natten cannot be used here, or None."""
    try:
        installed = version("natten")
    except PackageNotFoundError:
        return "the package natten is not installed (pip install 'geoseg[natten]')"
    numbers = tuple(int(part) for part in installed.split("+")[0].split(".")[:3] if part.isdigit())
    if numbers < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return (
            f"natten {installed} is installed, {oldest} or later is needed (pip install -U natten)"
        )
    try:
        import_module("natten.backends")
    except (ImportError, OSError, RuntimeError) as error:
        return f"natten {installed} is installed but cannot be imported: {error}"
    return None


def refusal(
    q: Tensor,
    kernel_size: int,
    bias: Tensor | None,
    rope: tuple[Tensor, Tensor] | None,  # noqa: ARG001 - asked like na2d
) -> str | None:
    """Return why natten cannot take these inputs, or None; natten must be available.

    Args:
        q: (N, H, W, heads, d); k and v are like it.
        kernel_size: side of the window.
        bias: relative-position bias or None.
        rope: rotation tables or None; any will do: q and k are rotated before natten sees them.
    """
    if bias is not None:
        return "NATTEN has no relative-position bias since 0.20"
    if q.numel() == 0:
        return "NATTEN takes no empty batch"
    if min(q.shape[1:3]) < kernel_size:
        return (
            f"NATTEN needs maps of at least {kernel_size} x {kernel_size} pixels for this window, "
            f"this one has {q.shape[1]} x {q.shape[2]}"
        )
    if q.device.type == "cpu" and q.requires_grad and torch.is_grad_enabled():
        return "NATTEN has no gradients on CPU"
    if not import_module("natten.backends").get_compatible_backends(q, q, q, torch_compile=False):
        dtype = str(q.dtype).removeprefix("torch.")
        return (
            f"no backend of NATTEN takes head width {q.shape[4]} in {dtype} on {q.device.type} "
            "here (its CUDA kernels take multiples of 8, its other form powers of two from 8)"
        )
    return None


def na2d(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    bias: Tensor | None,
    scale: float,
    rope: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Return neighbourhood attention by natten.

    Args:
        q: (N, H, W, heads, d), float32, bfloat16 or float16; so are k and v.
        k: keys.
        v: values.
        kernel_size: side of the window, odd.
        bias: must be None; see `refusal`.
        scale: factor on the scores.
        rope: sines and cosines that rotate channel pairs of q and k, by row (H, d/4, 2) and by
            column (W, d/4, 2), or None. The rotation is computed in float32.

    Returns:
        (N, H, W, heads, d), contiguous, dtype of ``q``.

    Raises:
        BackendUnavailableError: natten cannot take these inputs; the message says why.
    """
    reason = refusal(q, kernel_size, bias, rope)
    if reason is not None:
        raise BackendUnavailableError(
            f"neighborhood_attention: backend 'natten' was asked for, but {reason}. Leave backend "
            "away to take the best that runs."
        )
    if rope is not None:
        turned = rotated([q.float(), k.float()], rope)
        q, k = (tensor.to(v.dtype) for tensor in turned)
    y: Tensor = import_module("natten").na2d(q, k, v, kernel_size=kernel_size, scale=scale)
    return y.contiguous()
