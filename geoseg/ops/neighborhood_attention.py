"""Neighbourhood attention: every pixel attends to the window around it, moved in at the borders."""

import torch
from torch import Tensor

from geoseg.ops import _torch, library, reference
from geoseg.ops._dtypes import cast, wide
from geoseg.ops.backends import (
    COMPILED,
    STAND_IN,
    choose_backend,
    implementation,
    stand_in,
    without_autocast,
)

Rope = tuple[Tensor, Tensor]

LARGEST_KERNEL = 13


def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    *,
    dilation: int = 1,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return softmax attention of each pixel over the ``kernel_size`` squared keys around it.

    Windows are moved inwards at the borders, never cut or padded (Hassani et al., CVPR 2023). With
    a dilation, pixels attend to those of equal coordinates modulo it.

    Args:
        q: queries, (N, H, W, heads, d), float32, bfloat16, float16 or float64.
        k: keys, likewise.
        v: values, likewise.
        kernel_size: side of the window, odd, 3 to 13.
        dilation: distance of neighbours within a window, in pixels.
        bias: added to the scores at the key's offset from the query, whose own is in the middle,
            (heads, 2*kernel_size-1, 2*kernel_size-1).
        scale: factor on the scores before the bias; None: d**-0.5.
        backend: None takes the first that can run; a name runs or raises.

    Returns:
        (N, H, W, heads, d), dtype of ``q``. Softmax and sums are float32 at least.

    Raises:
        BackendUnavailableError: the named backend cannot run this; the message says why.
        ValueError: shapes that do not belong together, or a map smaller than the window.
    """
    _check(q, k, v, kernel_size, dilation, bias)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if dilation == 1:
        return _attend((q, k, v), kernel_size, bias=bias, scale=scale, rope=None, backend=backend)
    # Pixels of one residue class see each other only: a class is an undilated map of its own.
    rows = []
    for i in range(dilation):
        columns = []
        for j in range(dilation):
            part = (t[:, i::dilation, j::dilation] for t in (q, k, v))
            y = _attend((*part,), kernel_size, bias=bias, scale=scale, rope=None, backend=backend)
            columns.append(y)
        rows.append(columns)
    return _interleave(rows, q.shape)


def rotary_neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    *,
    rope: Rope,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return neighbourhood attention of queries and keys that are rotated while they are read.

    Args:
        q: queries before rotation, (N, H, W, heads, d), d a multiple of 4.
        k: keys before rotation, likewise.
        v: values, likewise.
        kernel_size: as for `neighborhood_attention`.
        rope: sine and cosine of each row and of each column, (H, d/4, 2) and (W, d/4, 2), float32.
            Adjacent channel pairs of the first half of d turn by the row's angles, those of the
            second half by the column's.
        bias: as for `neighborhood_attention`.
        scale: likewise.
        backend: likewise.

    Returns:
        (N, H, W, heads, d), dtype of ``q``.

    Raises:
        BackendUnavailableError: the named backend cannot run this; the message says why.
        ValueError: shapes that do not belong together, or a map smaller than the window.
    """
    _check(q, k, v, kernel_size, 1, bias)
    _check_rope(q, rope)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _attend((q, k, v), kernel_size, bias=bias, scale=scale, rope=rope, backend=backend)


def rope_angles(rope: Rope) -> tuple[Tensor, Tensor]:
    """Return sine and cosine of each pixel's channel pairs, (H, W, d/2), from separate tables."""
    rows, columns = rope
    shape = (rows.shape[0], columns.shape[0], rows.shape[1])
    both = [
        torch.cat([rows[:, None, :, i].expand(shape), columns[None, :, :, i].expand(shape)], dim=-1)
        for i in range(2)
    ]
    return both[0], both[1]


def _attend(
    qkv: tuple[Tensor, ...],
    kernel_size: int,
    *,
    bias: Tensor | None,
    scale: float,
    rope: Rope | None,
    backend: str | None,
) -> Tensor:
    q, k, v = qkv
    device, dtype = q.device.type, wide(q)
    name = choose_backend("neighborhood_attention", device, backend)
    bias = None if bias is None else cast(bias, dtype)
    if name in COMPILED:  # autocast has no part in them
        return library.na2d(q, k, v, kernel_size, bias, scale, rope)
    with without_autocast(device):
        if name == "reference":
            given = q.dtype
            q, k, v = (t.to(dtype) for t in qkv)
            if rope is not None:
                sin, cos = (t.to(dtype) for t in rope_angles(rope))
                q, k = (reference.rotate(t, sin, cos) for t in (q, k))
            return reference.neighborhood_attention(q, k, v, kernel_size, bias, scale).to(given)
        if name == STAND_IN:
            return stand_in().na2d(q, k, v, kernel_size, bias, scale, rope)
        if name == "torch":
            return _torch.na2d(q, k, v, kernel_size, bias, scale, rope)
        return implementation(name).na2d(q, k, v, kernel_size, bias, scale, rope)  # natten


def _interleave(rows: list[list[Tensor]], shape: torch.Size) -> Tensor:
    """Return the map whose residue classes are given, differentiably."""
    dilation = len(rows)
    y = rows[0][0].new_zeros(shape)
    for i in range(dilation):
        for j in range(dilation):
            y[:, i::dilation, j::dilation] = rows[i][j]
    return y


def _check(
    q: Tensor, k: Tensor, v: Tensor, kernel_size: int, dilation: int, bias: Tensor | None
) -> None:
    shape = q.shape
    if len(shape) != 5 or k.shape != shape or v.shape != shape:
        raise ValueError(
            "neighborhood_attention expects q, k and v of one shape (N, H, W, heads, d); got "
            f"{tuple(shape)}, {tuple(k.shape)} and {tuple(v.shape)}."
        )
    if isinstance(kernel_size, float) or isinstance(dilation, float):
        raise ValueError(
            "neighborhood_attention expects whole numbers for kernel_size and dilation; got "
            f"{kernel_size!r} and {dilation!r}."
        )
    if kernel_size % 2 == 0 or not 3 <= kernel_size <= LARGEST_KERNEL or dilation < 1:
        raise ValueError(
            f"neighborhood_attention expects an odd kernel_size from 3 to {LARGEST_KERNEL} and a "
            f"dilation of at least 1; got {kernel_size} and {dilation}."
        )
    _, height, width, heads, _ = shape
    smallest = kernel_size * dilation
    if height < smallest or width < smallest:
        raise ValueError(
            f"neighborhood_attention expects maps of at least {smallest} pixels a side, the window "
            f"times the dilation; got {height}x{width}. Pad the map or use a smaller "
            "window."
        )
    side = 2 * kernel_size - 1
    if bias is not None and bias.shape != (heads, side, side):
        raise ValueError(
            f"neighborhood_attention expects a bias of shape {(heads, side, side)}; got "
            f"{tuple(bias.shape)}."
        )


def _check_rope(q: Tensor, rope: Rope) -> None:
    _, height, width, _, dim = q.shape
    rows, columns = rope
    wanted = (height, dim // 4, 2), (width, dim // 4, 2)
    if dim % 4 or (rows.shape, columns.shape) != wanted:
        raise ValueError(
            f"rotary_neighborhood_attention expects d to be a multiple of 4, and rope of shapes "
            f"{wanted[0]} and {wanted[1]}; got d = {dim}, {tuple(rows.shape)} and "
            f"{tuple(columns.shape)}."
        )
