"""Calls the compiled CPU kernels on torch tensors; mirrors ``kernels/include/geoseg_kernels.h``.

The kernels take float32, float64 and, forwards, bfloat16; float16 goes through float32 here.
"""

import ctypes
import functools
import struct
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg import _native
from geoseg.ops._dtypes import cast, wide

Rope = tuple[Tensor, Tensor]

DTYPE_CODES = {torch.float32: 5, torch.float64: 6, torch.bfloat16: 8}
DIRECTIONS = 4

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_int64

# Mirror geoseg_ss2d_scan, geoseg_sequences and geoseg_attention, padded as C does. To fill a
# ctypes.Structure takes longer than the kernel of a small map.
_SCAN = struct.Struct("@i5q6P")
_SEQUENCES = struct.Struct("@2i5q7P")
_ATTENTION = struct.Struct("@i6q3P12q3Pd")
_PACKED = ctypes.c_char_p


class _ScanGrads(ctypes.Structure):
    """Mirrors ``struct geoseg_ss2d_grads``."""

    _fields_ = tuple(
        (name, _POINTER) for name in ("x", "q", "dt_weight", "dt_bias", "a_logs", "ds")
    )


class _SequenceGrads(ctypes.Structure):
    """Mirrors ``struct geoseg_sequence_grads``."""

    _fields_ = tuple((name, _POINTER) for name in ("u", "delta", "b", "c", "a", "d", "delta_bias"))


class _AttentionGrads(ctypes.Structure):
    """Mirrors ``struct geoseg_attention_grads``."""

    _fields_ = tuple((name, _POINTER) for name in ("q", "k", "v", "bias"))


def unavailable_reason() -> str | None:
    """Return why the compiled library cannot be used here, or None."""
    return _native.unavailable_reason()


def ss2d_project(x: Tensor, weight: Tensor) -> Tensor:
    """Return a matrix (rows, C) times each pixel of (..., C), in the matrix's dtype."""
    return F.linear(cast(x, weight.dtype), weight)


def ss2d_scan(
    x: Tensor, q: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor
) -> Tensor:
    """Return the four-direction scan, (N, H, W, C); see `geoseg.ops.reference.ss2d_scan`."""
    given = x if x.dtype in DTYPE_CODES else x.float()
    inputs = [t.contiguous() for t in (given, q, dt_weight, dt_bias, A_logs, Ds)]
    scan = _scan(inputs)
    y = torch.empty_like(inputs[0])
    lib, threads = _library(), torch.get_num_threads()
    if y.numel():
        workspace = _workspace(lib.geoseg_ss2d_workspace(scan, threads))
        _done(lib.geoseg_ss2d(scan, y.data_ptr(), workspace.data_ptr(), threads))
    return cast(y, x.dtype)


def ss2d_scan_backward(
    dy: Tensor,
    x: Tensor,
    q: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of x, q, dt_weight, dt_bias, A_logs and Ds."""
    inputs = [cast(t, q.dtype).contiguous() for t in (x, q, dt_weight, dt_bias, A_logs, Ds)]
    dy = cast(dy, q.dtype).contiguous()
    outputs = [torch.empty_like(t) for t in inputs[:2]] + [torch.zeros_like(t) for t in inputs[2:]]
    scan, grads = _scan(inputs), _ScanGrads(*[t.data_ptr() for t in outputs])
    lib, threads = _library(), torch.get_num_threads()
    if x.numel():
        workspace = _workspace(lib.geoseg_ss2d_backward_workspace(scan))
        arguments = (dy.data_ptr(), ctypes.byref(grads), workspace.data_ptr(), threads)
        _done(lib.geoseg_ss2d_backward(scan, *arguments))
    outputs[0] = cast(outputs[0], x.dtype)
    return tuple(outputs)


def na2d(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    bias: Tensor | None,
    scale: float,
    rope: Rope | None,
) -> Tensor:
    """Return neighbourhood attention, (N, H, W, heads, d); dilation is the caller's."""
    dtype = q.dtype if q.dtype in DTYPE_CODES else torch.float32
    given = [_readable(t, dtype) for t in (q, k, v)]
    tables = _tables(given[0], bias, rope)
    attention = _attention(given, kernel_size, tables, scale)
    y = torch.empty_like(given[0], memory_format=torch.contiguous_format)
    lib, threads = _library(), torch.get_num_threads()
    if y.numel():
        workspace = _workspace(lib.geoseg_na2d_workspace(attention, threads))
        _done(lib.geoseg_na2d(attention, y.data_ptr(), workspace.data_ptr(), threads))
    return cast(y, q.dtype)


def na2d_backward(
    dy: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    bias: Tensor | None,
    scale: float,
    rope: Rope | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return the gradients of q, k, v and the bias."""
    dtype = wide(q)
    given = [_readable(t, dtype) for t in (q, k, v)]
    dy = cast(dy, dtype).contiguous()
    tables = _tables(given[0], bias, rope)
    attention = _attention(given, kernel_size, tables, scale)
    outputs = [torch.empty(q.shape, dtype=dtype) for _ in range(3)]
    dbias = None if bias is None else torch.zeros((q.shape[0], *bias.shape), dtype=dtype)
    grads = _AttentionGrads(*[t.data_ptr() for t in outputs], _address(dbias))
    lib, threads = _library(), torch.get_num_threads()
    if q.numel():
        workspace = _workspace(lib.geoseg_na2d_backward_workspace(attention, threads))
        arguments = (dy.data_ptr(), ctypes.byref(grads), workspace.data_ptr(), threads)
        _done(lib.geoseg_na2d_backward(attention, *arguments))
    dq, dk, dv = (cast(grad, t.dtype) for grad, t in zip(outputs, (q, k, v), strict=True))
    return dq, dk, dv, None if dbias is None else dbias.sum(0)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """Return the selective scan, (N, K*D, L); see `geoseg.ops.selective_scan`."""
    inputs = _by_time(wide(u), u, delta, B, C, A, D, delta_bias)
    sequences = _sequences(inputs, delta_softplus)
    y = torch.empty_like(_present(inputs[0]))
    lib, threads = _library(), torch.get_num_threads()
    if y.numel():
        workspace = _workspace(lib.geoseg_selective_scan_workspace(sequences, threads, 0))
        _done(lib.geoseg_selective_scan(sequences, y.data_ptr(), workspace.data_ptr(), threads))
    return cast(y.mT.contiguous(), u.dtype)


def selective_scan_backward(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of u, delta, A, B, C, D and delta_bias; None where nothing was given."""
    dtype = wide(u)
    inputs = _by_time(dtype, u, delta, B, C, A, D, delta_bias)
    sequences = _sequences(inputs, delta_softplus)
    dy = cast(dy, dtype).mT.contiguous()
    outputs = [torch.zeros_like(_present(t)) for t in inputs[:4]]
    batch, channels = u.shape[:2]
    # Of the parameters, one gradient per image: added up in a fixed order.
    per_image = [(batch, *A.shape), (batch, channels), (batch, channels)]
    outputs += [torch.zeros(shape, dtype=dtype) for shape in per_image]
    grads = _SequenceGrads(*[t.data_ptr() for t in outputs])
    lib, threads = _library(), torch.get_num_threads()
    if u.numel():
        workspace = _workspace(lib.geoseg_selective_scan_workspace(sequences, threads, 1))
        arguments = (dy.data_ptr(), ctypes.byref(grads), workspace.data_ptr(), threads)
        _done(lib.geoseg_selective_scan_backward(sequences, *arguments))
    du, ddelta, dB, dC = (
        cast(grad.mT.contiguous(), given.dtype)
        for grad, given in zip(outputs[:4], (u, delta, B, C), strict=True)
    )
    dA, dD, d_bias = (grad.sum(0) for grad in outputs[4:])
    return du, ddelta, dA, dB, dC, None if D is None else dD, None if delta_bias is None else d_bias


@functools.cache
def _library() -> ctypes.CDLL:
    lib = _native.library()
    assert lib is not None, "callers ask unavailable_reason() first"
    for name, grads in (
        ("ss2d", _ScanGrads),
        ("selective_scan", _SequenceGrads),
        ("na2d", _AttentionGrads),
    ):
        gradients = ctypes.POINTER(grads)
        forward = getattr(lib, f"geoseg_{name}")
        forward.argtypes = (_PACKED, _POINTER, _POINTER, ctypes.c_int32)
        backward = getattr(lib, f"geoseg_{name}_backward")
        backward.argtypes = (_PACKED, _POINTER, gradients, _POINTER, ctypes.c_int32)
    number = ctypes.c_int32
    for name, count in (
        ("ss2d", 1),
        ("ss2d_backward", 0),
        ("selective_scan", 2),
        ("na2d", 1),
        ("na2d_backward", 1),
    ):
        size = getattr(lib, f"geoseg_{name}_workspace")
        size.restype = _SIZE
        size.argtypes = (_PACKED, *([number] * count))
    return lib


def _scan(inputs: Sequence[Tensor]) -> bytes:
    x, _, dt_weight = inputs[:3]
    sizes = (*x.shape, dt_weight.shape[2])
    return _SCAN.pack(DTYPE_CODES[x.dtype], *sizes, *[t.data_ptr() for t in inputs])


def _sequences(inputs: Sequence[Tensor | None], delta_softplus: bool) -> bytes:
    u, b = _present(inputs[0]), _present(inputs[2])  # (N, L, K*D), (N, K, L, S)
    batch, length, channels = u.shape
    sizes = (batch, channels, length, b.shape[3], b.shape[1])
    addresses = [_address(t) for t in inputs]
    return _SEQUENCES.pack(DTYPE_CODES[u.dtype], int(delta_softplus), *sizes, *addresses)


def _attention(
    given: Sequence[Tensor], kernel_size: int, tables: Sequence[Tensor | None], scale: float
) -> bytes:
    q, k, v = given
    return _ATTENTION.pack(
        DTYPE_CODES[q.dtype],
        *q.shape,
        kernel_size,
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        *q.stride()[:4],
        *k.stride()[:4],
        *v.stride()[:4],
        *[_address(t) for t in tables],
        scale,
    )


def _tables(like: Tensor, bias: Tensor | None, rope: Rope | None) -> list[Tensor | None]:
    """Return bias and rotation tables in the type that sums are kept in."""
    given = (bias, *(rope if rope is not None else (None, None)))
    dtype = wide(like)
    return [None if t is None else cast(t, dtype).contiguous() for t in given]


def _by_time(
    dtype: torch.dtype,
    u: Tensor,
    delta: Tensor,
    B: Tensor,
    C: Tensor,
    *parameters: Tensor | None,
) -> list[Tensor | None]:
    """Return sequences with time before channels and states, then the parameters."""
    turned: list[Tensor | None] = [cast(t, dtype).mT.contiguous() for t in (u, delta, B, C)]
    return turned + [None if p is None else cast(p, dtype).contiguous() for p in parameters]


def _readable(t: Tensor, dtype: torch.dtype) -> Tensor:
    t = cast(t, dtype)
    # A compiled graph may choose other strides than the operation was traced with.
    return t if t.stride(-1) == 1 else t.contiguous()


def _present(t: Tensor | None) -> Tensor:
    assert t is not None
    return t


def _address(t: Tensor | None) -> int:
    return 0 if t is None else t.data_ptr()


def _workspace(size_bytes: int) -> Tensor:
    """Return scratch memory from torch's allocator, which keeps it for the next call."""
    return torch.empty(size_bytes, dtype=torch.uint8)


def _done(status: int) -> None:
    assert status == 0
