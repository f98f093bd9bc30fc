"""The two operations that SegMAN needs, each with several backends and a readable reference."""

from geoseg.ops.backends import available_backends
from geoseg.ops.cross_scan import cross_merge, cross_scan
from geoseg.ops.neighborhood_attention import (
    neighborhood_attention,
    rotary_neighborhood_attention,
)
from geoseg.ops.selective_scan import selective_scan
from geoseg.ops.ss2d import ss2d

__all__ = [
    "available_backends",
    "cross_merge",
    "cross_scan",
    "neighborhood_attention",
    "rotary_neighborhood_attention",
    "selective_scan",
    "ss2d",
]
