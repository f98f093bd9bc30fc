"""Neighbourhood attention on CUDA: tiles, launches, buffers; maths in kernels/cuda/na2d_*.cuh."""

import torch
from torch import Tensor

from geoseg.errors import BackendUnavailableError
from geoseg.ops._cuda_arguments import Na2dArguments, fill, strides
from geoseg.ops._cuda_driver import Grid
from geoseg.ops._cuda_launch import blocks_of, launch, up
from geoseg.ops._dtypes import cast

# As in kernels/cuda: pixels of a thread, columns of a block, channels of a thread per pass.
GROUP, TILE_COLUMNS, QUERY_WIDTH, GRADIENT_WIDTH = 4, 8, 8, 4
MAX_HEAD_DIM = 256
# A grid's second and third side.
MAX_SIDE = 65535
# Shared memory that a block takes at most, unless one column needs more.
SHARED_FLOATS = 40 * 1024 // 4

Rope = tuple[Tensor, Tensor]


def na2d(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    bias: Tensor | None,
    scale: float,
    rope: Rope | None,
) -> Tensor:
    """Return neighbourhood attention without dilation.

    Args:
        q: (N, H, W, heads, d), the last axis dense; so are k and v.
        k: keys.
        v: values.
        kernel_size: side of the window, odd, at most H and W.
        bias: added to the scores, (heads, 2k-1, 2k-1), or None.
        scale: factor on the scores.
        rope: sine and cosine of the rows (H, d/4, 2) and of the columns (W, d/4, 2), or None.

    Returns:
        (N, H, W, heads, d), dense, dtype of ``q``.

    Raises:
        BackendUnavailableError: heads are wider than the kernels take.
    """
    y = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if q.numel() > 0:
        attention = _Attention((q, k, v), kernel_size, (bias, *(rope or (None, None))), scale)
        fill(attention.arguments, y=y)
        attention.launch("na2d_forward", halo=1)
    return y


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
    """Return the gradients of `na2d`.

    Args:
        dy: gradient of the output, (N, H, W, heads, d).
        q: as given to `na2d`; so are the others.
        k: likewise.
        v: likewise.
        kernel_size: likewise.
        bias: likewise.
        scale: likewise.
        rope: likewise.

    Returns:
        Of q, k, v (dense, of each its dtype) and of the bias (float32, None without one).
    """
    dq, dk, dv = (torch.empty(t.shape, dtype=q.dtype, device=q.device) for t in (q, k, v))
    if q.numel() == 0:
        return dq, dk, dv, None if bias is None else torch.zeros_like(bias)
    attention = _Attention((q, k, v), kernel_size, (bias, *(rope or (None, None))), scale)
    a = attention.arguments
    dy = dy.to(q.dtype).contiguous()
    statistics = q.new_empty((a.batch, a.heads, a.height, a.width, 2), dtype=torch.float32)
    fill(a, dy=dy, statistics=statistics, dq=dq, dk=dk, dv=dv)
    attention.launch("na2d_forward", halo=1)
    parts = None
    if bias is not None:
        tiles = attention.tiles(attention.tile_rows())
        parts = bias.new_empty((a.batch * tiles, *bias.shape), dtype=torch.float32)
        fill(a, dbias=parts)
    attention.launch("na2d_backward_queries", halo=1)
    attention.launch("na2d_backward_keys", halo=2)
    return dq, cast(dk, k.dtype), cast(dv, v.dtype), None if parts is None else parts.sum(0)


class _Attention:
    """The arguments of neighbourhood attention and the tensors that they point to."""

    def __init__(
        self,
        maps: tuple[Tensor, Tensor, Tensor],
        kernel_size: int,
        tables: tuple[Tensor | None, ...],
        scale: float,
    ) -> None:
        """Take q, k, v; bias and the two tables of rotations."""
        q = maps[0]
        batch, height, width, heads, dim = q.shape
        if dim > MAX_HEAD_DIM:
            raise BackendUnavailableError(
                f"neighborhood_attention: expected heads of at most {MAX_HEAD_DIM} channels; got "
                f"{dim}. Take backend='torch'."
            )
        if max(heads, batch) > MAX_SIDE:
            raise BackendUnavailableError(
                f"neighborhood_attention: expected at most {MAX_SIDE} images and heads; got "
                f"{batch} and {heads}. Take fewer at once."
            )
        # A compiled graph may choose other strides than the operation was traced with.
        typed = (t.to(q.dtype) for t in maps)
        self.maps = [t if t.stride(-1) == 1 else t.contiguous() for t in typed]
        self.tables = [None if t is None else t.float().contiguous() for t in tables]
        self.arguments = Na2dArguments()
        for name, t in zip(("q", "k", "v"), self.maps, strict=True):
            fill(self.arguments, **{name: t})
            setattr(self.arguments, f"{name}_strides", strides(t))
        names = ("bias", "rope_rows", "rope_columns")
        fill(self.arguments, **dict(zip(names, self.tables, strict=True)))
        fill(self.arguments, batch=batch, height=height, width=width, heads=heads, dim=dim)
        fill(self.arguments, kernel=kernel_size, scale=scale)

    def tile_rows(self) -> int:
        """Return the rows of a block's tile: fewer where a wide head needs many threads."""
        return 8 if self.arguments.dim <= 128 else 4

    def tiles(self, rows: int) -> int:
        """Return how many tiles cover a map."""
        return blocks_of(self.arguments.height, rows) * blocks_of(
            self.arguments.width, TILE_COLUMNS
        )

    def launch(self, entry: str, *, halo: int) -> None:
        """Launch a pass; ``halo`` is 1 over a window's keys, 2 over all queries that see a key."""
        a, window = self.arguments, self.arguments.kernel
        forward = entry == "na2d_forward"
        channels = QUERY_WIDTH if forward else GRADIENT_WIDTH
        slices = blocks_of(a.dim, channels)
        a.tile_rows = self.tile_rows()
        groups = a.tile_rows * TILE_COLUMNS // GROUP
        span = window - 1 if halo == 1 else 2 * (window - 1)
        columns = min(a.width, TILE_COLUMNS + span)
        bias = up((2 * window - 1) ** 2, 4)
        floats = 2 * columns * (slices * channels + 4)
        floats += bias if forward or halo == 2 else 2 * bias
        floats += 3 * groups * GROUP if forward else 0
        floats += up(2 * columns, 4) if halo == 2 else 0
        column = (1 if forward else 2) * slices * groups * GROUP
        room = (SHARED_FLOATS - floats) // column
        a.columns_at_once = max(1, min(GROUP + span, room))
        floats += a.columns_at_once * column
        grid = Grid((self.tiles(a.tile_rows), a.heads, a.batch), groups * slices, 4 * floats)
        launch("na2d", entry, grid, a, self.maps[0])
