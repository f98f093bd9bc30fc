"""What every CUDA operation needs to launch its kernels: dtype codes, grids, buffers."""

import ctypes

import torch
from torch import Tensor

from geoseg.errors import BackendUnavailableError
from geoseg.ops import _cuda_driver
from geoseg.ops._cuda_driver import Grid, Kernel

IO_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# Blocks of 8 channels by 64 runs of chunks join the chunks of a scan.
CARRY_CHANNELS, CARRY_THREADS = 8, 512


def launch(program: str, entry: str, grid: Grid, arguments: ctypes.Structure, like: Tensor) -> None:
    """Queue an entry of a program, compiled for the dtype of ``like``, on its device."""
    if like.dtype not in IO_CODES:
        raise BackendUnavailableError(
            f"expected float32, bfloat16 or float16 on CUDA; got {like.dtype}. Convert it, or take "
            "backend='torch'."
        )
    kernel = Kernel(program, entry, IO_CODES[like.dtype])
    _cuda_driver.launch(kernel, grid, arguments, like.device)


def carry_grid(channels: int, rows: int, batch: int) -> Grid:
    """Return the size of the launch that joins the chunks of ``rows`` scans per image."""
    # Only x takes more than 65535.
    blocks = batch * blocks_of(channels, CARRY_CHANNELS)
    return Grid((blocks, rows, 1), CARRY_THREADS, 8 * CARRY_THREADS)


def states(x: Tensor, rows: int, chunks: int) -> tuple[Tensor, Tensor]:
    """Return room for the chunks' sums and states, (N, rows, chunks, C) each."""
    shape = (x.shape[0], rows, chunks, x.shape[-1])
    sums = torch.empty(shape, dtype=torch.float32, device=x.device)
    return sums, torch.empty_like(sums)


def dense_floats(*tensors: Tensor) -> list[Tensor]:
    """Return tensors as dense float32."""
    return [t.float().contiguous() for t in tensors]


def added(parts: Tensor) -> Tensor:
    """Return the sum over the first axis; PyTorch adds in an order that depends on shape alone."""
    return parts[0] if parts.shape[0] == 1 else parts.sum(0)


def blocks_of(count: int, size: int) -> int:
    """Return how many blocks of a size hold a count."""
    return -(-count // size)


def up(count: int, size: int) -> int:
    """Return the least multiple of ``size`` that is not below ``count``."""
    return blocks_of(count, size) * size
