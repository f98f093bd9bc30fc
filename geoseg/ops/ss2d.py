"""SS2D, the four-direction scan of SegMAN and VMamba, on maps with channels last."""

import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg.ops import _torch, library, reference
from geoseg.ops._dtypes import cast, wide
from geoseg.ops.backends import STAND_IN, choose_backend, stand_in, without_autocast
from geoseg.ops.cross_scan import DIRECTIONS, cross_merge, cross_scan
from geoseg.ops.selective_scan import selective_scan


def ss2d(
    x: Tensor,
    x_proj_weight: Tensor,
    dt_projs_weight: Tensor,
    dt_projs_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """Return the sum of four selective scans of a map: rows, columns, and both backwards.

    Step sizes, B and C come from the map itself through ``x_proj_weight``. That projection acts on
    single pixels, so one matrix product of the unpermuted map serves all directions; the rest of
    the chain is fused in the compiled backends. Parameters are shaped as in the published
    checkpoints; R is the rank of the step-size projection, S the number of states.

    Args:
        x: (N, H, W, C), float32, bfloat16, float16 or float64.
        x_proj_weight: (4*(R+2S), C, 1) or (4, R+2S, C).
        dt_projs_weight: (4, C, R).
        dt_projs_bias: (4, C).
        A_logs: (4*C, S); the decay is -exp(A_logs).
        Ds: (4*C,).
        backend: None takes the first that can run; a name runs or raises.

    Returns:
        (N, H, W, C), dtype of ``x``. The state is float32, float64 for float64 input.

    Raises:
        BackendUnavailableError: the named backend cannot run here; the message says why.
        ValueError: shapes that do not belong together.
    """
    channels, rank, states = _check(x, x_proj_weight, dt_projs_weight, A_logs)
    _check_vectors(channels, dt_projs_bias, Ds)
    name = choose_backend("ss2d", x.device.type, backend)
    dtype = wide(x)
    weight = cast(x_proj_weight.reshape(-1, channels), dtype)
    parameters = [cast(p, dtype) for p in (dt_projs_weight, dt_projs_bias, A_logs, Ds)]
    with without_autocast(x.device.type):
        if name == "cuda" and x.dtype != dtype:
            x = x.contiguous()
            q = library.ss2d_project(x, weight)  # (N, H, W, 4*(R+2S))
        else:
            q = F.linear(cast(x, dtype), weight)
        q = q.unflatten(-1, (DIRECTIONS, rank + 2 * states))
        if states > 1:
            return _general(x, q, *parameters, backend=name)
        if name == "reference":
            return reference.ss2d_scan(x.to(dtype), q, *parameters).to(x.dtype)
        if name == STAND_IN:
            return stand_in().ss2d_scan(x, q, *parameters)
        if name == "torch":
            return _torch.ss2d_scan(x, q, *parameters)
        return library.ss2d_scan(x.contiguous(), q, *[p.contiguous() for p in parameters])


def _general(
    x: Tensor,
    q: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_logs: Tensor,
    Ds: Tensor,
    *,
    backend: str,
) -> Tensor:
    """Run any number of states as the papers write it: four sequences, scan, merge."""
    height, width = x.shape[1:3]
    rank, states = dt_weight.shape[2], A_logs.shape[1]
    u = cross_scan(x.permute(0, 3, 1, 2)).flatten(1, 2)  # (N, 4*C, L)
    per_direction = []
    for k in range(DIRECTIONS):
        rows = q[:, :, :, k].permute(0, 3, 1, 2)  # (N, R+2S, H, W)
        per_direction.append(cross_scan(rows)[:, k])
    small = torch.stack(per_direction, dim=1)  # (N, 4, R+2S, L)
    step, b, c = small.split([rank, states, states], dim=2)
    delta = torch.einsum("nkrl,kcr->nkcl", step, dt_weight).flatten(1, 2)
    y = selective_scan(
        u,
        delta,
        -torch.exp(A_logs),
        b,
        c,
        Ds,
        delta_bias=dt_bias.flatten(),
        delta_softplus=True,
        backend=backend,
    )
    merged = cross_merge(y.unflatten(1, (DIRECTIONS, -1)), height, width)
    return merged.permute(0, 2, 3, 1)


def _check(
    x: Tensor, x_proj_weight: Tensor, dt_projs_weight: Tensor, A_logs: Tensor
) -> tuple[int, int, int]:
    """Return C, R and S, or raise a ValueError."""
    if x.ndim != 4 or dt_projs_weight.ndim != 3 or dt_projs_weight.shape[:2] != (4, x.shape[-1]):
        raise ValueError(
            "ss2d expects x (N, H, W, C) and dt_projs_weight (4, C, R); got "
            f"{tuple(x.shape)} and {tuple(dt_projs_weight.shape)}."
        )
    channels, rank = dt_projs_weight.shape[1:]
    states = A_logs.shape[-1]
    rows = DIRECTIONS * (rank + 2 * states)
    # As in the checkpoints, split by direction, or as a matrix.
    known = ((rows, channels, 1), (DIRECTIONS, rows // DIRECTIONS, channels), (rows, channels))
    if A_logs.shape != (DIRECTIONS * channels, states) or x_proj_weight.shape not in known:
        raise ValueError(
            f"ss2d expects A_logs (4*C, S) and x_proj_weight (4*(R+2S), C, 1) with C = {channels} "
            f"and R = {rank}; got {tuple(A_logs.shape)} and {tuple(x_proj_weight.shape)}."
        )
    return channels, rank, states


def _check_vectors(channels: int, dt_projs_bias: Tensor, Ds: Tensor) -> None:
    if dt_projs_bias.shape != (DIRECTIONS, channels) or Ds.shape != (DIRECTIONS * channels,):
        raise ValueError(
            f"ss2d expects dt_projs_bias (4, C) and Ds (4*C,) with C = {channels}; got "
            f"{tuple(dt_projs_bias.shape)} and {tuple(Ds.shape)}."
        )
