"""The CUDA backend. All maths is in kernels/cuda; here are the launches and whether they can run.

Kernels are compiled on first use by the NVRTC that comes with PyTorch. Gradients are summed in a
fixed order: twice the same inputs give the same bits.
"""

import functools

import torch

from geoseg.ops import _cuda_driver, _nvrtc
from geoseg.ops._cuda_attention import na2d, na2d_backward
from geoseg.ops._cuda_selective_scan import selective_scan, selective_scan_backward
from geoseg.ops._cuda_ss2d import ss2d_project, ss2d_scan, ss2d_scan_backward

__all__ = [
    "na2d",
    "na2d_backward",
    "selective_scan",
    "selective_scan_backward",
    "ss2d_project",
    "ss2d_scan",
    "ss2d_scan_backward",
    "unavailable_reason",
]


@functools.cache
def unavailable_reason() -> str | None:
    """Return why this backend cannot run here, or None."""
    if not torch.cuda.is_available():
        return "no CUDA device is usable"
    reason = _nvrtc.unavailable_reason() or _cuda_driver.unavailable_reason()
    if reason is not None:
        return reason
    return _architecture_reason()


def _architecture_reason() -> str | None:
    """Return why no device can be compiled for: one that can is enough."""
    refused = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        if _nvrtc.architecture_for(major, minor) is not None:
            return None
        refused.append(f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})")
    version = ".".join(map(str, _nvrtc.version()))
    return f"NVRTC {version} compiles nothing for {', '.join(refused)}"
