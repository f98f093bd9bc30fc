"""The "torch" backend: PyTorch operations only, for devices that have no compiled kernels.

It has no backward of its own: autograd differentiates what it runs.
"""

from geoseg.ops._torch_attention import na2d
from geoseg.ops._torch_scan import selective_scan, ss2d_scan

__all__ = ["na2d", "selective_scan", "ss2d_scan", "unavailable_reason"]


def unavailable_reason() -> str | None:
    """Return None: this backend runs wherever PyTorch does."""
    return None
