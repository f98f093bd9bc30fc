"""Registers the compiled operations with torch: shapes for tracing, and gradients.

One operation stands for all compiled backends; torch picks the function by the tensors' device. So
graphs, exporters and autograd see plain operators, and nothing of how they are computed.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from geoseg.ops.backends import compiled

Rope = tuple[Tensor, Tensor]

_DEFINITIONS = {
    "ss2d_project": "(Tensor x, Tensor weight) -> Tensor",
    "ss2d_scan": "(Tensor x, Tensor q, Tensor dt_weight, Tensor dt_bias, Tensor A_logs, Tensor Ds)"
    " -> Tensor",
    "ss2d_scan_backward": "(Tensor dy, Tensor x, Tensor q, Tensor dt_weight, Tensor dt_bias, "
    "Tensor A_logs, Tensor Ds) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "na2d": "(Tensor q, Tensor k, Tensor v, int kernel_size, Tensor? bias, float scale, "
    "Tensor? rope_rows, Tensor? rope_columns) -> Tensor",
    "na2d_backward": "(Tensor dy, Tensor q, Tensor k, Tensor v, int kernel_size, Tensor? bias, "
    "float scale, Tensor? rope_rows, Tensor? rope_columns) -> (Tensor, Tensor, Tensor, Tensor)",
    "selective_scan": "(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, "
    "Tensor? delta_bias, bool delta_softplus) -> Tensor",
    "selective_scan_backward": "(Tensor dy, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
    "Tensor? D, Tensor? delta_bias, bool delta_softplus) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
}

# Kept for the life of the process: the registrations go with it.
_library = torch.library.Library("geoseg", "DEF")


def ss2d_project(x: Tensor, weight: Tensor) -> Tensor:
    """Return a matrix (rows, C) times each pixel of (..., C), in the matrix's dtype."""
    return torch.ops.geoseg.ss2d_project(x, weight)


def ss2d_scan(
    x: Tensor, q: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor
) -> Tensor:
    """Return the four-direction scan of a map; see `geoseg.ops.reference.ss2d_scan`."""
    return torch.ops.geoseg.ss2d_scan(x, q, dt_weight, dt_bias, A_logs, Ds)


def na2d(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    bias: Tensor | None,
    scale: float,
    rope: Rope | None,
) -> Tensor:
    """Return neighbourhood attention without dilation, (N, H, W, heads, d)."""
    rows, columns = rope if rope is not None else (None, None)
    return torch.ops.geoseg.na2d(q, k, v, kernel_size, bias, scale, rows, columns)


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
    return torch.ops.geoseg.selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus)


def _run(name: str, device: str, *arguments: Any) -> Any:
    return compiled(name, device)(*arguments)


def _na2d(
    device: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    bias: Tensor | None,
    scale: float,
    rows: Tensor | None,
    columns: Tensor | None,
) -> Any:
    rope = None if rows is None else (rows, columns)
    return compiled("na2d", device)(q, k, v, kernel_size, bias, scale, rope)


def _na2d_backward(device: str, *arguments: Any) -> tuple[Tensor, ...]:
    *given, rows, columns = arguments
    run = compiled("na2d_backward", device)
    *grads, dbias = run(*given, None if rows is None else (rows, columns))
    return *grads, _present(dbias, given[0])


def _selective_scan_backward(device: str, *arguments: Any) -> tuple[Tensor, ...]:
    grads = compiled("selective_scan_backward", device)(*arguments)
    return tuple(_present(grad, arguments[0]) for grad in grads)


def _present(grad: Tensor | None, like: Tensor) -> Tensor:
    """Return ``grad``, or an empty tensor in its place: operators return no None."""
    return like.new_empty(0) if grad is None else grad


def _like(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Return dense tensors of the same shapes and dtypes, empty ones for None."""
    first = next(t for t in tensors if t is not None)
    return tuple(
        first.new_empty(0)
        if t is None
        else torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in tensors
    )


def _fake_first(first: Tensor, *_: Any) -> Tensor:
    return _like(first)[0]


def _fake_project(x: Tensor, weight: Tensor) -> Tensor:
    return weight.new_empty((*x.shape[:-1], weight.shape[0]))


def _fake_na2d_backward(dy: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    q, k, v, _, bias, *_ = arguments
    return _like(q, k, v, bias)


def _fake_scan_backward(dy: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return _like(*[t for t in inputs if not isinstance(t, bool)])


def _project_gradient(ctx: Any, dq: Tensor) -> tuple[Tensor, Tensor]:
    x, weight = ctx.saved_tensors
    dx = (dq @ weight).to(x.dtype)
    return dx, dq.flatten(0, -2).mT @ x.flatten(0, -2).to(dq.dtype)


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _ss2d_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return tuple(torch.ops.geoseg.ss2d_scan_backward(dy.contiguous(), *ctx.saved_tensors))


def _na2d_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, ctx.kernel_size, bias, ctx.scale, rows, columns = inputs
    ctx.save_for_backward(q, k, v, bias, rows, columns)


def _na2d_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, bias, rows, columns = ctx.saved_tensors
    dq, dk, dv, dbias = torch.ops.geoseg.na2d_backward(
        dy.contiguous(), q, k, v, ctx.kernel_size, bias, ctx.scale, rows, columns
    )
    return dq, dk, dv, None, None if bias is None else dbias, None, None, None


def _scan_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.delta_softplus = inputs
    ctx.save_for_backward(*tensors)


def _scan_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = torch.ops.geoseg.selective_scan_backward(dy.contiguous(), *tensors, ctx.delta_softplus)
    present = [None if t is None else g for t, g in zip(tensors, grads, strict=True)]
    return *present, None


def _no_second_gradient(ctx: Any, *grads: Any) -> None:
    raise NotImplementedError(
        "expected first derivatives only; geoseg's compiled kernels have no second ones. Use "
        "backend='reference' for them."
    )


def _nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    del ctx, inputs, output


def _register() -> None:
    bodies = {"na2d": _na2d, "na2d_backward": _na2d_backward}
    bodies["selective_scan_backward"] = _selective_scan_backward
    fakes = {
        "ss2d_project": _fake_project,
        "na2d_backward": _fake_na2d_backward,
        "ss2d_scan_backward": _fake_scan_backward,
        "selective_scan_backward": _fake_scan_backward,
    }
    gradients = {
        "ss2d_project": (_project_gradient, _keep_inputs),
        "ss2d_scan": (_ss2d_gradient, _keep_inputs),
        "na2d": (_na2d_gradient, _na2d_context),
        "selective_scan": (_scan_gradient, _scan_context),
    }
    for name, schema in _DEFINITIONS.items():
        _library.define(name + schema)
        body = bodies.get(name) or functools.partial(_run, name)
        for device in ("cpu", "cuda"):
            _library.impl(name, functools.partial(body, device), device.upper())
        qualified = f"geoseg::{name}"
        torch.library.register_fake(qualified, fakes.get(name, _fake_first), lib=_library)
        backward, context = gradients.get(name, (_no_second_gradient, _nothing))
        torch.library.register_autograd(qualified, backward, setup_context=context, lib=_library)


_register()
