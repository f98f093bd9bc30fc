"""The types that operations compute in."""

import torch
from torch import Tensor


def wide(t: Tensor) -> torch.dtype:
    """Return the type that sums over ``t`` are kept in.

    Raises:
        TypeError: ``t`` holds no real floating-point numbers.
    """
    if not t.is_floating_point():
        raise TypeError(f"expected float32, bfloat16, float16 or float64; got {t.dtype}.")
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def cast(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``t`` as ``dtype``; where it is so already, without the microsecond of `Tensor.to`."""
    return t if t.dtype == dtype else t.to(dtype)
