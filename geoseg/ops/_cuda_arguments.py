"""The kernels' argument structures, field by field as in kernels/cuda; the tests compare them."""

import ctypes

from torch import Tensor

_Strides = ctypes.c_int64 * 4


def _pointers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_void_p) for name in names]


def _integers(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_int) for name in names]


class Ss2dProjectArguments(ctypes.Structure):
    """Mirrors ``Ss2dProjectArguments`` of ss2d_project.cuh."""

    _fields_ = (
        *_pointers("x", "weight", "q"),
        ("pixels", ctypes.c_int64),
        *_integers("channels", "rows"),
    )


class Ss2dArguments(ctypes.Structure):
    """Mirrors ``Ss2dArguments`` of ss2d_chunk.cuh."""

    _fields_ = (
        *_pointers("x", "q", "dt_weight", "dt_bias", "a_logs", "ds"),
        *_pointers("sums", "ends", "partial", "y"),
        *_pointers("dy", "adjoints", "dx", "dq", "parameters"),
        *_integers("batch", "height", "width", "channels", "rank"),
        *_integers("chunks", "row_chunks", "column_chunks"),
        *_integers("columns", "part_chunks", "slices"),
    )


class SelectiveScanArguments(ctypes.Structure):
    """Mirrors ``SelectiveScanArguments`` of selective_scan_chunk.cuh."""

    _fields_ = (
        *_pointers("u", "delta", "A", "B", "C", "D", "delta_bias"),
        *_pointers("sums", "ends", "y"),
        *_pointers("dy", "adjoints", "du", "ddelta", "dB", "dC", "parameters"),
        *_integers("batch", "channels", "states", "groups", "length", "chunks", "softplus"),
    )


class Na2dArguments(ctypes.Structure):
    """Mirrors ``Na2dArguments`` of na2d_tile.cuh."""

    _fields_ = (
        *_pointers("q", "k", "v"),
        ("q_strides", _Strides),
        ("k_strides", _Strides),
        ("v_strides", _Strides),
        *_pointers("bias", "rope_rows", "rope_columns", "y"),
        *_pointers("dy", "statistics", "dq", "dk", "dv", "dbias"),
        ("scale", ctypes.c_float),
        *_integers("batch", "height", "width", "heads", "dim", "kernel"),
        *_integers("tile_rows", "columns_at_once"),
    )


def fill(arguments: ctypes.Structure, **values: Tensor | int | float | None) -> None:
    """Set fields: a tensor as its address, None as a null pointer, numbers as they are."""
    for name, value in values.items():
        setattr(arguments, name, value.data_ptr() if isinstance(value, Tensor) else value)


def strides(x: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """Return the strides of (N, H, W, heads) in elements."""
    return _Strides(*x.stride()[:4])
