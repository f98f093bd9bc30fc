"""The four-direction scan on CUDA: chunks, launches, buffers; maths in kernels/cuda/ss2d_*.cuh."""

import torch
from torch import Tensor

from geoseg.errors import BackendUnavailableError
from geoseg.ops._cuda_arguments import Ss2dArguments, fill
from geoseg.ops._cuda_driver import Grid
from geoseg.ops._cuda_launch import added, blocks_of, carry_grid, dense_floats, launch, states, up

# As in kernels/cuda: steps of a chunk and threads of a block.
FORWARD_STEPS, FORWARD_THREADS = 64, 32
BACKWARD_STEPS, BACKWARD_THREADS = 32, 64
# Blocks that keep the largest device busy; more are merged to write fewer parts.
ENOUGH_BLOCKS = 1024


def ss2d_scan(
    x: Tensor, q: Tensor, dt_weight: Tensor, dt_bias: Tensor, A_logs: Tensor, Ds: Tensor
) -> Tensor:
    """Return the four-direction scan of a map; see `geoseg.ops.reference.ss2d_scan`.

    Args:
        x: (N, H, W, C), float32, bfloat16 or float16.
        q: per pixel and direction R step-size rows, B, C: (N, H, W, 4, R + 2), float32.
        dt_weight: (4, C, R), float32.
        dt_bias: (4, C), float32.
        A_logs: (4*C, 1), float32.
        Ds: (4*C,), float32.

    Returns:
        (N, H, W, C), dtype of ``x``.
    """
    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    given = dense_floats(q, dt_weight, dt_bias, A_logs, Ds)
    arguments = _ss2d_arguments(x, given, FORWARD_STEPS)
    # Referenced until the last launch is queued; the order of the stream does the rest.
    sums, ends = states(x, 4, arguments.chunks)
    partial = y if y.dtype == torch.float32 else torch.empty_like(x, dtype=torch.float32)
    fill(arguments, sums=sums, ends=ends, partial=partial, y=y)
    chunks, blocks = x.shape[0] * arguments.chunks, blocks_of(x.shape[3], FORWARD_THREADS)
    shared = _tile_bytes(arguments, FORWARD_STEPS, FORWARD_THREADS)
    grid = Grid((chunks, blocks, 2), FORWARD_THREADS, shared)
    launch("ss2d", "ss2d_sum_chunks", grid, arguments, x)
    launch("ss2d", "ss2d_join_chunks", carry_grid(x.shape[3], 4, x.shape[0]), arguments, x)
    shared += 4 * FORWARD_STEPS * FORWARD_THREADS
    for arguments.columns in (0, 1):
        grid = Grid((chunks, blocks, 1), FORWARD_THREADS, shared)
        launch("ss2d", "ss2d_output", grid, arguments, x)
    return y


def ss2d_scan_backward(
    dy: Tensor,
    x: Tensor,
    q: Tensor,
    *parameters: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients of `ss2d_scan` by each of its arguments.

    Args:
        dy: gradient of the output, (N, H, W, C).
        x: as given to `ss2d_scan`; so are the others.
        q: likewise.
        parameters: ``dt_weight``, ``dt_bias``, ``A_logs``, ``Ds``.

    Returns:
        In the shapes of ``x``, ``q``, ``dt_weight``, ``dt_bias``, ``A_logs``, ``Ds``; the first in
        the dtype of ``x``, the others float32.
    """
    x, dy = x.contiguous(), dy.to(x.dtype).contiguous()
    given = dense_floats(q, *parameters)
    if x.numel() == 0:
        return torch.empty_like(x), *[torch.zeros_like(t) for t in given]
    batch, channels = x.shape[0], x.shape[3]
    arguments = _ss2d_arguments(x, given, BACKWARD_STEPS)
    sums, ends = states(x, 4, arguments.chunks)
    adjoints, dx = torch.empty_like(ends), torch.empty_like(x)
    partial = dx if dx.dtype == torch.float32 else torch.empty_like(x, dtype=torch.float32)
    _split_backward(arguments)
    rows = arguments.rank + 3
    parts = batch * blocks_of(arguments.chunks, arguments.part_chunks)
    sizes = given[3].new_empty(parts, 4, rows, channels)
    dq = given[0].new_empty(arguments.slices, *q.shape)
    fill(arguments, sums=sums, ends=ends, partial=partial, dy=dy, adjoints=adjoints)
    fill(arguments, dx=dx, dq=dq, parameters=sizes)
    blocks = (batch * arguments.chunks, blocks_of(channels, BACKWARD_THREADS), 2)
    shared = _tile_bytes(arguments, BACKWARD_STEPS, BACKWARD_THREADS)
    grid = Grid(blocks, BACKWARD_THREADS, shared)
    launch("ss2d", "ss2d_sum_chunks_backward", grid, arguments, x)
    launch("ss2d", "ss2d_join_chunks", carry_grid(channels, 4, batch), arguments, x)
    width = 3 * (BACKWARD_THREADS + 1) + up(arguments.rank, 4) + 2
    shared += 4 * BACKWARD_STEPS * width
    for arguments.columns in (0, 1):
        grid = Grid((parts, arguments.slices, 1), BACKWARD_THREADS, shared)
        launch("ss2d", "ss2d_backward", grid, arguments, x)
    total = sizes.sum(0)  # (4, R + 3, C): rows of dt_weight, dt_bias, A_logs, Ds
    weight = total[:, : rows - 3].transpose(1, 2).contiguous()
    bias, a_logs, ds = (total[:, i - 3].reshape(t.shape) for i, t in enumerate(given[2:]))
    return dx, added(dq), weight, bias, a_logs, ds


def _ss2d_arguments(x: Tensor, given: list[Tensor], steps: int) -> Ss2dArguments:
    batch, height, width, channels = x.shape
    arguments = Ss2dArguments()
    names = ("q", "dt_weight", "dt_bias", "a_logs", "ds")
    fill(arguments, x=x, **dict(zip(names, given, strict=True)))
    fill(arguments, batch=batch, height=height, width=width, channels=channels)
    fill(arguments, rank=given[1].shape[2], chunks=blocks_of(height * width, steps))
    _check_size(height * width * channels)
    return arguments


def _tile_bytes(arguments: Ss2dArguments, steps: int, threads: int) -> int:
    """Return the shared memory of ``Ss2dTile`` without the kernel's own part."""
    return 4 * (4 * steps + up(arguments.rank, 4) * (steps + threads + 1))


def _split_backward(arguments: Ss2dArguments) -> None:
    """Choose how many chunks a block takes, and into how many slices channel blocks are dealt."""
    chunks = arguments.batch * arguments.chunks
    arguments.part_chunks = max(1, min(arguments.chunks, chunks // ENOUGH_BLOCKS))
    parts = arguments.batch * blocks_of(arguments.chunks, arguments.part_chunks)
    blocks = blocks_of(arguments.channels, BACKWARD_THREADS)
    share = blocks_of(blocks, min(blocks, blocks_of(ENOUGH_BLOCKS // 2, parts)))
    # None is left without a block: each writes its dq.
    arguments.slices = blocks_of(blocks, share)


def _check_size(elements: int) -> None:
    # Offsets inside one image are 32-bit integers in the kernels.
    if elements >= 2**31:
        raise BackendUnavailableError(
            f"expected less than 2^31 values per image; got {elements}. Take smaller tiles."
        )
