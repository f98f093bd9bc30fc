"""The four-direction scan on CUDA: chunks, launches, buffers; maths in kernels/cuda/ss2d_*.cuh."""

import torch
from torch import Tensor

from geoseg.errors import BackendUnavailableError
from geoseg.ops._cuda_arguments import Ss2dArguments, Ss2dProjectArguments, fill
from geoseg.ops._cuda_driver import Grid
from geoseg.ops._cuda_launch import added, blocks_of, carry_grid, dense_floats, launch, states, up

# As in kernels/cuda: a forward block's channels, and the lines of its square that it walks at once;
# a backward chunk's steps and threads.
FORWARD_LANES, FORWARD_LINES = 32, 8
BACKWARD_STEPS, BACKWARD_THREADS = 32, 64
# Pixels along a square of the forward pass. With large ones fewer chunks are joined; a small map
# has too few of them, and a block works too long.
LARGE_SIDE, SMALL_SIDE, ENOUGH_SQUARES = 16, 8, 64
# A block of the projection: pixels, rows of q, threads; and floats of shared memory.
PROJECT_PIXELS, PROJECT_ROWS, PROJECT_THREADS = 32, 16, 128
PROJECT_FLOATS = 4 * PROJECT_PIXELS * PROJECT_ROWS
# Of a block, that every supported device has.
SHARED_BYTES = 64 * 1024
# Blocks that keep the largest device busy; more are merged to write fewer parts.
ENOUGH_BLOCKS = 1024


def ss2d_project(x: Tensor, weight: Tensor) -> Tensor:
    """Return a matrix times each pixel, in float32, without a float32 copy of the map.

    Args:
        x: (..., C), bfloat16 or float16; float32 works, too.
        weight: (rows, C), float32.

    Returns:
        (..., rows), float32.
    """
    x, weight = x.contiguous(), weight.float().contiguous()
    rows, channels = weight.shape
    q = x.new_empty((*x.shape[:-1], rows), dtype=torch.float32)
    if q.numel() == 0:
        return q
    pixels = x.numel() // channels
    arguments = Ss2dProjectArguments()
    fill(arguments, x=x, weight=weight, q=q, pixels=pixels, channels=channels, rows=rows)
    blocks = blocks_of(pixels, PROJECT_PIXELS) * blocks_of(rows, PROJECT_ROWS)
    grid = Grid((blocks, 1, 1), PROJECT_THREADS, 4 * PROJECT_FLOATS)
    launch("ss2d", "ss2d_project", grid, arguments, x)
    return q


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
    a = _ss2d_arguments(x, given)
    # Offsets inside a square are 32-bit integers in the kernels.
    _check_size(LARGE_SIDE * a.width * a.channels, "16 rows of a map")
    side = _square_side(a)
    down, across = blocks_of(a.height, side), blocks_of(a.width, side)
    fill(a, row_chunks=a.height * across, column_chunks=a.width * down)
    a.chunks = max(a.row_chunks, a.column_chunks)
    # Referenced until the last launch is queued; the order of the stream does the rest.
    sums, ends = states(x, 4, a.chunks)
    fill(a, sums=sums, ends=ends, y=y)
    blocks = a.batch * down * across * blocks_of(a.channels, FORWARD_LANES)
    threads = FORWARD_LINES * FORWARD_LANES
    grid = Grid((2 * blocks, 1, 1), threads, _square_bytes(a.rank, side, output=False))
    launch("ss2d", f"ss2d_sum_{side}", grid, a, x)
    launch("ss2d", "ss2d_join_chunks", carry_grid(a.channels, 4, a.batch), a, x)
    grid = Grid((blocks, 1, 1), threads, _square_bytes(a.rank, side, output=True))
    launch("ss2d", f"ss2d_output_{side}", grid, a, x)
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
    arguments = _ss2d_arguments(x, given)
    # Offsets inside an image are 32-bit integers in the kernels.
    _check_size(arguments.height * arguments.width * channels, "an image")
    chunks = blocks_of(arguments.height * arguments.width, BACKWARD_STEPS)
    fill(arguments, chunks=chunks, row_chunks=chunks, column_chunks=chunks)
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
    blocks = (batch * chunks, blocks_of(channels, BACKWARD_THREADS), 2)
    # Per step a pixel and its offset, too.
    shared = _tile_bytes(arguments.rank, BACKWARD_STEPS, BACKWARD_THREADS) + 8 * BACKWARD_STEPS
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
    # Dense, as their shapes promise to a compiler: a slice of the sums has their strides.
    bias, a_logs, ds = (
        total[:, i - 3].reshape(t.shape).contiguous() for i, t in enumerate(given[2:])
    )
    return dx, added(dq), weight, bias, a_logs, ds


def _ss2d_arguments(x: Tensor, given: list[Tensor]) -> Ss2dArguments:
    batch, height, width, channels = x.shape
    arguments = Ss2dArguments()
    names = ("q", "dt_weight", "dt_bias", "a_logs", "ds")
    fill(arguments, x=x, **dict(zip(names, given, strict=True)))
    fill(arguments, batch=batch, height=height, width=width, channels=channels)
    fill(arguments, rank=given[1].shape[2])
    return arguments


def _square_side(a: Ss2dArguments) -> int:
    """Return the side of the squares of a map, whatever the batch: it decides the last bits."""
    squares = blocks_of(a.height, LARGE_SIDE) * blocks_of(a.width, LARGE_SIDE)
    enough = squares * blocks_of(a.channels, FORWARD_LANES) >= ENOUGH_SQUARES
    fits = _square_bytes(a.rank, LARGE_SIDE, output=True) <= SHARED_BYTES
    return LARGE_SIDE if enough and fits else SMALL_SIDE


def _square_bytes(rank: int, side: int, *, output: bool) -> int:
    """Return the shared memory of ``SquareTile``; with the square's outputs."""
    sums = side * side * FORWARD_LANES if output else 0
    return _tile_bytes(rank, FORWARD_LINES * side, FORWARD_LANES) + 4 * (8 + sums)


def _tile_bytes(rank: int, steps: int, channels: int) -> int:
    """Return the shared memory of ``Ss2dTile`` without the kernel's own part."""
    return 4 * (2 * steps + up(rank, 4) * (steps + channels + 1))


def _split_backward(arguments: Ss2dArguments) -> None:
    """Choose how many chunks a block takes, and into how many slices channel blocks are dealt."""
    chunks = arguments.batch * arguments.chunks
    arguments.part_chunks = max(1, min(arguments.chunks, chunks // ENOUGH_BLOCKS))
    parts = arguments.batch * blocks_of(arguments.chunks, arguments.part_chunks)
    blocks = blocks_of(arguments.channels, BACKWARD_THREADS)
    share = blocks_of(blocks, min(blocks, blocks_of(ENOUGH_BLOCKS // 2, parts)))
    # None is left without a block: each writes its dq.
    arguments.slices = blocks_of(blocks, share)


def _check_size(elements: int, what: str) -> None:
    if elements >= 2**31:
        raise BackendUnavailableError(
            f"expected less than 2^31 values in {what}; got {elements}. Take smaller tiles."
        )
