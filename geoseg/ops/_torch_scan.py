"""The recurrence in PyTorch operations, by chunks: fast without compiled code, on any device.

A sequence is cut into chunks of equal length that run side by side, one step after the other:
first from zero, which gives each chunk's end state; then a short recurrence over the chunks gives
their start states; then all chunks run again from there. A step is one multiply-add over
directions, chunks and channels, so that about 3 sqrt(L) operations replace L of them. Nothing is
divided by a product of decays, which would overflow.

Letters beside the papers': T steps per chunk, J chunks per sequence.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg.ops.backends import without_autocast
from geoseg.ops.cross_scan import DIRECTIONS

# Numbers per block of steps. On CPU a block's temporaries must stay in the cache, and below the
# size from which the allocator hands memory back to the system at every call; elsewhere launches
# are what costs.
_BLOCK_CPU = 2**17
_BLOCK = 2**25

# Logarithm of the decay and the input of some steps, each (directions, steps, N*J, channels).
Terms = tuple[Tensor, Tensor]
Span = tuple[int, int]


def ss2d_scan(
    x: Tensor,
    q: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
) -> Tensor:
    """Return the four-direction scan of a map; see `geoseg.ops.reference.ss2d_scan`.

    Args:
        x: (N, H, W, C), any floating dtype.
        q: per pixel and direction R step-size rows, then B, then C: (N, H, W, 4, R + 2).
        dt_weight: (4, C, R).
        dt_bias: (4, C).
        A_logs: logarithm of the negated decay, (4*C, 1).
        Ds: skip weights, (4*C,).

    Returns:
        (N, H, W, C), dtype of ``x``. The state is float32, or float64 if ``x`` is.
    """
    if x.numel() == 0:
        return x.clone()  # empty, and part of the graph
    wide = torch.promote_types(x.dtype, torch.float32)
    with without_autocast(x.device.type):
        maps = x.to(wide)
        steps = chunk_steps(x.shape[1] * x.shape[2])
        u = _by_rows_and_columns(maps, steps)  # (2, T, N*J, C)
        rows = _by_directions(q.to(wide), steps)  # (4, T, N*J, R+2)
        parameters = (
            dt_weight.to(wide).transpose(1, 2),
            dt_bias.to(wide)[:, None],
            -torch.exp(A_logs.to(wide)).view(DIRECTIONS, 1, 1, -1),
        )
        spans = _spans(u[:, 0].numel() * 2, steps, u, rows, *parameters)
        blocks = [partial(_ss2d_terms, u, rows, parameters, span) for span in spans]
        y = torch.zeros_like(u)
        for (first, end), h in zip(spans, _states(blocks, x.shape[0]), strict=True):
            part = h * rows[:, first:end, :, -1:]  # (4, steps, N*J, C)
            y[:, first:end] += part[:2]
            y[:, steps - end : steps - first] += part[2:].flip(1)
        skip = Ds.to(wide).view(DIRECTIONS, -1).sum(0)  # (C,)
        return torch.addcmul(_as_map(y, x.shape), maps, skip).to(x.dtype)


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
    """Return the selective scan; see `geoseg.ops.selective_scan`.

    Args:
        u: (N, K*D, L), any floating dtype.
        delta: (N, K*D, L).
        A: (K*D, S).
        B: (N, K, S, L).
        C: (N, K, S, L).
        D: skip weights, (K*D,), or None.
        delta_bias: (K*D,), or None.
        delta_softplus: whether step sizes are softplus(delta + delta_bias).

    Returns:
        (N, K*D, L), dtype of ``u``. The state is float32, or float64 if ``u`` is.
    """
    if u.numel() == 0:
        return u.clone()
    wide = torch.promote_types(u.dtype, torch.float32)
    groups, states = B.shape[1:3]
    with without_autocast(u.device.type):
        dt = delta.to(wide)
        if delta_bias is not None:
            dt = dt + delta_bias.to(wide)[:, None]
        if delta_softplus:
            dt = F.softplus(dt)
        steps = chunk_steps(u.shape[2])
        split = (groups, -1, 1)
        inputs = (
            _chunked((dt * u.to(wide)).transpose(1, 2), steps).unflatten(2, split),
            _chunked(dt.transpose(1, 2), steps).unflatten(2, split),  # (T, N*J, K, D, 1)
            _chunked(B.to(wide).flatten(1, 2).transpose(1, 2), steps).unflatten(2, (groups, 1, -1)),
        )
        c = _chunked(C.to(wide).flatten(1, 2).transpose(1, 2), steps).unflatten(2, (groups, 1, -1))
        decay = A.to(wide).unflatten(0, (groups, -1))  # (K, D, S)
        spans = _spans(inputs[0][0].numel() * states, steps, *inputs, c, decay)
        blocks = [partial(_selective_terms, *inputs, decay, span) for span in spans]
        parts = [
            (h[0].unflatten(2, (groups, -1, states)) * c[first:end]).sum(-1).flatten(2)
            for (first, end), h in zip(spans, _states(blocks, u.shape[0]), strict=True)
        ]
        y = torch.cat(parts).transpose(0, 1).reshape(u.shape[0], -1, u.shape[1])  # (N, J*T, K*D)
        y = y[:, : u.shape[2]].transpose(1, 2)
        if D is not None:
            y = y + D.to(wide)[:, None] * u
        return y.to(u.dtype).contiguous()


def chunk_steps(length: int) -> int:
    """Return how many steps a chunk has: about sqrt(length), a divisor of it if one is near."""
    root = math.isqrt(length - 1) + 1
    near = (steps for steps in range(root, root // 2, -1) if length % steps == 0)
    return next(near, root)


def _spans(width: int, steps: int, *inputs: Tensor) -> list[Span]:
    """Return the blocks of steps to compute together; all steps where gradients are wanted.

    Computing the terms of a block twice costs less than keeping those of all blocks, but autograd
    would keep them both times.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return [(0, steps)]
    room = _BLOCK_CPU if inputs[0].device.type == "cpu" else _BLOCK
    block = max(room // width, 1)
    return [(first, min(first + block, steps)) for first in range(0, steps, block)]


def _chunked(sequence: Tensor, steps: int) -> Tensor:
    """Return (N, L, C) as (T, N*J, C), with zeros after the end.

    Zeros after the end change nothing before it; read backwards they come first, and their input,
    a multiple of B = 0, leaves the state at 0.
    """
    short = -sequence.shape[1] % steps
    if short:
        sequence = F.pad(sequence, (0, 0, 0, short))
    return sequence.unflatten(1, (-1, steps)).flatten(0, 1).transpose(0, 1)


def _by_rows_and_columns(maps: Tensor, steps: int) -> Tensor:
    """Return (N, H, W, C) read by rows and by columns: (2, T, N*J, C)."""
    columns = maps.transpose(1, 2).flatten(1, 2)
    return torch.stack([_chunked(maps.flatten(1, 2), steps), _chunked(columns, steps)])


def _by_directions(small: Tensor, steps: int) -> Tensor:
    """Return (N, H, W, 4, M), each direction in its own order of steps: (4, T, N*J, M).

    In the reversed directions the chunks keep their places and only their steps are reversed, so
    that they share the map's layout with the others.
    """
    sides = (small.flatten(1, 2), small.transpose(1, 2).flatten(1, 2))
    orders = [_chunked(sides[k % 2][:, :, k], steps) for k in range(DIRECTIONS)]
    return torch.stack(orders[:2] + [order.flip(0) for order in orders[2:]])


def _as_map(y: Tensor, shape: torch.Size) -> Tensor:
    """Return the sum of what `_by_rows_and_columns` made, put back: (N, H, W, C)."""
    batch, height, width, channels = shape
    flat = y.transpose(1, 2).reshape(2, batch, -1, channels)[:, :, : height * width]
    rows = flat[0].unflatten(1, (height, width))
    return rows + flat[1].unflatten(1, (width, height)).transpose(1, 2)


def _ss2d_terms(
    u: Tensor, rows: Tensor, parameters: tuple[Tensor, Tensor, Tensor], span: Span
) -> Terms:
    """Return the terms of some steps of the four directions, each (4, steps, N*J, C)."""
    weight, bias, A = parameters
    first, end = span
    steps = u.shape[1]
    here = rows[:, first:end]
    both = torch.cat([u[:, first:end], u[:, steps - end : steps - first].flip(1)])
    z = torch.baddbmm(bias, here[..., :-2].flatten(1, 2), weight)  # (4, steps*N*J, C)
    dt = F.softplus(z).view_as(both)
    return dt * A, both * here[..., -2:-1] * dt


def _selective_terms(driven: Tensor, dt: Tensor, B: Tensor, A: Tensor, span: Span) -> Terms:
    """Return the terms of some steps, each (1, steps, N*J, K*D*S).

    Args:
        driven: step size times input, (T, N*J, K, D, 1).
        dt: step size, (T, N*J, K, D, 1).
        B: (T, N*J, K, 1, S).
        A: (K, D, S).
        span: first step and the one after the last.
    """
    here = slice(*span)
    return (dt[here] * A).flatten(2)[None], (driven[here] * B[here]).flatten(2)[None]


def _states(blocks: Sequence[Callable[[], Terms]], batch: int) -> Iterator[Tensor]:
    """Yield the states of each block of steps, (D, steps, N*J, C); see the module.

    Args:
        blocks: give the terms of consecutive steps; called twice if there are several.
        batch: N.
    """
    if len(blocks) == 1:
        terms = blocks[0]()
        blocks = [lambda: terms]
    h, log_decay = None, None
    for block in blocks:
        log_decays, driven = block()
        total = log_decays.sum(1)  # (D, N*J, C)
        log_decay = total if log_decay is None else log_decay + total
        for a, b in zip(torch.exp(log_decays).unbind(1), driven.unbind(1), strict=True):
            h = b if h is None else torch.addcmul(b, a, h)
    assert h is not None
    assert log_decay is not None
    h = _chunk_starts(torch.exp(log_decay), h, batch)
    for block in blocks:
        log_decays, driven = block()
        states = []
        for a, b in zip(torch.exp(log_decays).unbind(1), driven.unbind(1), strict=True):
            h = torch.addcmul(b, a, h)
            states.append(h)
        yield torch.stack(states, dim=1)


def _chunk_starts(decay: Tensor, ends: Tensor, batch: int) -> Tensor:
    """Return the state before each chunk.

    Args:
        decay: of a whole chunk, (D, N*J, C).
        ends: state after the chunk if it began at zero, (D, N*J, C).
        batch: N.
    """
    decay, ends = (_late_reversed(chunks.unflatten(1, (batch, -1))) for chunks in (decay, ends))
    h = torch.zeros_like(ends[:, :, 0])  # (D, N, C)
    starts = []
    for a, b in zip(decay.unbind(2), ends.unbind(2), strict=True):
        starts.append(h)
        h = torch.addcmul(b, a, h)
    return _late_reversed(torch.stack(starts, dim=2)).flatten(1, 2)


def _late_reversed(chunks: Tensor) -> Tensor:
    """Return (D, N, J, C) with the chunks of the third and fourth direction in reverse."""
    return torch.cat([chunks[:2], chunks[2:].flip(2)])
