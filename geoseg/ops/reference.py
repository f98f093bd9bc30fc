"""The recurrence and the attention in plain PyTorch: what every other backend must equal.

Readable and slow. Runs in the dtype that it is given, in float64 as an oracle for tests.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg.ops.cross_scan import DIRECTIONS, cross_merge, cross_scan


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    *,
    delta_softplus: bool,
) -> Tensor:
    """Return the selective scan, one step after the other; see `geoseg.ops.selective_scan`.

    h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t and y_t = C_t h_t + D u_t, with h_0 = 0 before
    the first step (Gu and Dao, "Mamba", 2023, equations 1 and 4; B enters by Euler's rule).
    """
    batch, channels, length = u.shape
    groups, states = B.shape[1], B.shape[2]
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    shared = channels // groups
    decay = torch.exp(delta[:, :, None] * A[None, :, :, None])  # (N, K*D, S, L)
    b = B.repeat_interleave(shared, dim=1)  # (N, K*D, S, L)
    c = C.repeat_interleave(shared, dim=1)  # (N, K*D, S, L)
    driven = (delta * u)[:, :, None] * b  # (N, K*D, S, L)
    h = u.new_zeros(batch, channels, states)
    outputs = []
    for t in range(length):
        h = decay[..., t] * h + driven[..., t]  # (N, K*D, S)
        outputs.append((h * c[..., t]).sum(-1))
    y = torch.stack(outputs, dim=-1) if outputs else torch.zeros_like(u)  # (N, K*D, L)
    return y if D is None else y + D[:, None] * u


def ss2d_scan(
    x: Tensor,
    q: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> Tensor:
    """Return the four-direction scan of a map whose step sizes, B and C are already projected.

    Args:
        x: (N, H, W, C).
        q: per pixel and direction R step-size rows, then B, then C: (N, H, W, 4, R + 2).
        dt_weight: (4, C, R).
        dt_bias: (4, C).
        A_logs: logarithm of the negated decay, (4*C, 1).
        Ds: skip weights, (4*C,).

    Returns:
        (N, H, W, C).
    """
    batch, height, width, channels = x.shape
    rank = dt_weight.shape[2]
    u = cross_scan(x.permute(0, 3, 1, 2))  # (N, 4, C, L)
    small = cross_scan(q.permute(0, 3, 4, 1, 2).flatten(1, 2))  # (N, 4, 4*(R+2), L)
    small = small.unflatten(2, (DIRECTIONS, rank + 2))
    small = torch.stack([small[:, k, k] for k in range(DIRECTIONS)], dim=1)  # (N, 4, R+2, L)
    delta = torch.einsum("nkrl,kcr->nkcl", small[:, :, :rank], dt_weight)
    y = selective_scan(
        u.flatten(1, 2),
        delta.flatten(1, 2),
        -torch.exp(A_logs),
        small[:, :, rank : rank + 1],
        small[:, :, rank + 1 :],
        Ds,
        dt_bias.flatten(),
        delta_softplus=True,
    )
    merged = cross_merge(y.view(batch, DIRECTIONS, channels, height * width), height, width)
    return merged.permute(0, 2, 3, 1)


def window_starts(length: int, kernel_size: int) -> Tensor:
    """Return the first key of each query's window on one axis, (length,).

    Windows are moved inwards at the borders, never cut or padded, so that each query has exactly
    ``kernel_size`` keys (Hassani et al., "Neighborhood Attention Transformer", CVPR 2023).
    """
    first = torch.arange(length) - kernel_size // 2
    return first.clamp(0, length - kernel_size)


def neighborhood_attention(
    q: Tensor, k: Tensor, v: Tensor, kernel_size: int, bias: Tensor | None, scale: float
) -> Tensor:
    """Return neighbourhood attention by gathering every window; no dilation.

    Args:
        q: (N, H, W, heads, d); so are k and v.
        k: keys.
        v: values.
        kernel_size: side of the window.
        bias: added to the scores at the key's offset from the query, (heads, 2k-1, 2k-1).
        scale: factor on the scores before the bias.

    Returns:
        (N, H, W, heads, d).
    """
    height, width = q.shape[1:3]
    steps = torch.arange(kernel_size)
    rows = window_starts(height, kernel_size)[:, None] + steps  # (H, k)
    columns = window_starts(width, kernel_size)[:, None] + steps  # (W, k)
    row, column = rows[:, None, :, None], columns[None, :, None, :]
    keys = k[:, row, column]  # (N, H, W, k, k, heads, d)
    values = v[:, row, column]
    scores = torch.einsum("nhwad,nhwijad->nhwaij", q * scale, keys)
    if bias is not None:
        row_offset = rows - torch.arange(height)[:, None] + kernel_size - 1  # (H, k)
        column_offset = columns - torch.arange(width)[:, None] + kernel_size - 1  # (W, k)
        offsets = bias[:, row_offset[:, None, :, None], column_offset[None, :, None, :]]
        scores = scores + offsets.permute(1, 2, 0, 3, 4)  # (H, W, heads, k, k)
    weights = scores.flatten(4).softmax(-1).view_as(scores)
    return torch.einsum("nhwaij,nhwijad->nhwad", weights, values)


def rotate(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Return x (..., H, W, heads, d) with adjacent channel pairs rotated.

    Args:
        x: queries or keys.
        sin: of each pixel's and pair's angle, (H, W, d/2).
        cos: likewise.
    """
    even, odd = x[..., 0::2], x[..., 1::2]  # (N, H, W, heads, d/2)
    sin, cos = sin[:, :, None], cos[:, :, None]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
