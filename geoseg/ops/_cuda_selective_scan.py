"""The general selective scan on CUDA; maths in kernels/cuda/selective_scan_*.cuh."""

import functools
from typing import Any

import torch
from torch import Tensor

from geoseg.ops._cuda_arguments import SelectiveScanArguments, fill
from geoseg.ops._cuda_driver import Grid
from geoseg.ops._cuda_launch import added, blocks_of, carry_grid, launch

# Of a chunk, and channels of a block.
SEQUENCE_STEPS = 32


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
        u: (N, K*D, L), float32, bfloat16 or float16.
        delta: step sizes, (N, K*D, L).
        A: (K*D, S).
        B: (N, K, S, L).
        C: (N, K, S, L).
        D: (K*D,) or None.
        delta_bias: (K*D,) or None.
        delta_softplus: of delta plus its bias.

    Returns:
        (N, K*D, L), dtype of ``u``.
    """
    if u.numel() == 0:
        return torch.empty_like(u)
    scan = _SelectiveScan((u, delta, B, C), (A, D, delta_bias), delta_softplus)
    y = torch.empty_like(scan.u)
    fill(scan.arguments, y=y)
    scan.join(None)
    scan.launch("selective_scan_output", tiles=3)
    return y.to(u.dtype)


def selective_scan_backward(dy: Tensor, *inputs: Any) -> tuple[Tensor | None, ...]:
    """Return the gradients of `selective_scan`.

    Args:
        dy: gradient of the output, (N, K*D, L).
        inputs: all that was given to `selective_scan`.

    Returns:
        Of u, delta, A, B, C, D and delta_bias, each in its argument's dtype, None for None.
    """
    u, delta, A, B, C, D, delta_bias, delta_softplus = inputs
    if u.numel() == 0:
        return tuple(None if t is None else torch.zeros_like(t) for t in inputs[:-1])
    scan = _SelectiveScan((u, delta, B, C), (A, D, delta_bias), delta_softplus)
    a = scan.arguments
    new = functools.partial(torch.empty, dtype=torch.float32, device=u.device)
    dy = dy.to(scan.u.dtype).contiguous()
    du, ddelta = torch.empty_like(scan.u), torch.empty_like(scan.u)
    dB = new((blocks_of(a.channels // a.groups, SEQUENCE_STEPS), *B.shape))
    dC = torch.empty_like(dB)
    parts = new((a.batch * a.chunks, a.states + 2, a.channels))
    fill(a, dy=dy, du=du, ddelta=ddelta, dB=dB, dC=dC, parameters=parts)
    scan.join(dy)
    scan.launch("selective_scan_backward", tiles=8)
    total = parts.sum(0)  # (S + 2, K*D)
    grads = (du, ddelta, total[: a.states].T, added(dB), added(dC), total[-2], total[-1])
    return tuple(
        None if t is None else grad.to(t.dtype).contiguous()
        for t, grad in zip(inputs[:-1], grads, strict=True)
    )


class _SelectiveScan:
    """The arguments of a general scan and the tensors that they point to."""

    def __init__(
        self,
        sequences: tuple[Tensor, Tensor, Tensor, Tensor],
        parameters: tuple[Tensor, Tensor | None, Tensor | None],
        delta_softplus: bool,
    ) -> None:
        """Take u, delta, B, C; A, D, delta_bias."""
        # One dtype in memory; where they differ, the one that holds them all.
        dtypes = {t.dtype for t in sequences}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        self.u, self.delta, self.B, self.C = (t.to(dtype).contiguous() for t in sequences)
        self.parameters = [None if t is None else t.float().contiguous() for t in parameters]
        A, D, delta_bias = self.parameters
        batch, channels, length = self.u.shape
        self.arguments = SelectiveScanArguments()
        fill(self.arguments, u=self.u, delta=self.delta, A=A, B=self.B, C=self.C, D=D)
        fill(self.arguments, delta_bias=delta_bias, softplus=int(delta_softplus))
        fill(self.arguments, batch=batch, channels=channels, length=length)
        fill(self.arguments, groups=self.B.shape[1], states=self.B.shape[2])
        fill(self.arguments, chunks=blocks_of(length, SEQUENCE_STEPS))

    def launch(self, entry: str, *, tiles: int) -> None:
        """Launch a kernel of one block per chunk and channel block."""
        a = self.arguments
        blocks = a.groups * blocks_of(a.channels // a.groups, SEQUENCE_STEPS)
        floats = tiles * SEQUENCE_STEPS * (SEQUENCE_STEPS + 1)
        grid = Grid((a.batch * a.chunks, blocks, 1), SEQUENCE_STEPS, 4 * floats)
        launch("selective_scan", entry, grid, a, self.u)

    def join(self, dy: Tensor | None) -> None:
        """Find the states that chunks start from; with ``dy`` also where gradients start."""
        a, new = self.arguments, functools.partial(torch.empty, device=self.u.device)
        self.sums = new((a.batch, a.chunks, a.channels), dtype=torch.float32)
        self.ends = new((a.batch, a.states, a.chunks, a.channels), dtype=torch.float32)
        self.adjoints = None if dy is None else torch.empty_like(self.ends)
        fill(a, sums=self.sums, ends=self.ends, adjoints=self.adjoints)
        self.launch("selective_scan_sum_chunks", tiles=2 if dy is None else 3)
        grid = carry_grid(a.channels, a.states, a.batch)
        launch("selective_scan", "selective_scan_join_chunks", grid, a, self.u)
