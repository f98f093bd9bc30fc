"""Neighbourhood attention in PyTorch operations: tiles of queries against their halo of keys.

The windows of neighbouring queries overlap, so a tile of 4 x 8 queries shares the keys of all its
windows: (k + 3) (k + 7) of them instead of 32 k^2. A key outside a query's own window gets a score
of minus infinity. At k = 11 this is 2.1 times the arithmetic, but all of it matrix products.

Tiles whose windows lie alike (all inner ones; those of a border; each corner) share one table of
biases and minus infinities and run as one batch of PyTorch's own attention.
"""

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from geoseg.ops.backends import constant_in_graphs, without_autocast

# Rows and columns of a tile's queries, by measurement: as fast as 8 x 8 at k = 11 and a seventh
# faster at k = 7 and 9; 4 x 4 gathers too much, 16 x 16 wastes too much.
_TILE = (4, 8)

# Numbers of gathered keys at a time. On CPU they must stay in the cache, and below the size from
# which the allocator hands memory back to the system at every call; elsewhere launches cost.
_BLOCK_CPU = 2**18
_BLOCK = 2**25


class TileGroup(NamedTuple):
    """Tiles whose windows lie alike; pixels are numbered by rows."""

    queries: NDArray[np.int64]  # (tiles, queries per tile)
    keys: NDArray[np.int64]  # (tiles, keys per tile)
    outside: NDArray[np.bool_]  # whether a key is none of a query's, (queries, keys) of a tile
    lead: tuple[int, int]  # first key minus first query, rows and columns
    tile_shape: tuple[int, int]  # rows and columns of a tile's queries
    keys_shape: tuple[int, int]  # of its keys


class _AxisRun(NamedTuple):
    """Tiles of one axis whose windows lie alike."""

    queries: NDArray[np.int64]  # (tiles, queries of a tile)
    keys: NDArray[np.int64]  # (tiles, keys of a tile)
    inside: NDArray[np.bool_]  # whether a key is in a query's window, (queries, keys) of a tile
    lead: int  # first key minus first query


class Plan(NamedTuple):
    """How a map is cut into tiles."""

    groups: tuple[TileGroup, ...]
    places: NDArray[np.int64]  # of each pixel's result in the groups' results in a row, (H*W,)


def na2d(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int,
    bias: Tensor | None,
    scale: float,
    rope: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Return neighbourhood attention; see `geoseg.ops.neighborhood_attention`.

    Args:
        q: (N, H, W, heads, d), any floating dtype; so are k and v. H and W at least kernel_size.
        k: keys.
        v: values.
        kernel_size: side of the window, odd.
        bias: added to the scores at the key's offset from the query, (heads, 2k-1, 2k-1), or None.
        scale: factor on the scores before the bias.
        rope: sines and cosines that rotate channel pairs of q and k, by row (H, d/4, 2) and by
            column (W, d/4, 2), or None.

    Returns:
        (N, H, W, heads, d), contiguous, dtype of ``q``. Scores and sums are float32, or float64
        if ``q`` is.
    """
    if q.numel() == 0:
        return (q + k + v).contiguous()  # empty, and part of the graph
    batch, height, width = q.shape[:3]
    wide = torch.promote_types(q.dtype, torch.float32)
    plan = plan_tiles(height, width, kernel_size)
    with without_autocast(q.device.type):
        inputs = [q.to(wide), k.to(wide), v.to(wide)]
        if rope is not None:
            inputs[:2] = rotated(inputs[:2], rope)
        inputs = [tensor.flatten(3).flatten(1, 2) for tensor in inputs]  # (N, H*W, heads*d)
        parts = [
            part
            for group in plan.groups
            for part in _attend(group, inputs, bias, scale, q.shape[3])
        ]
        y = _take(torch.cat(parts, dim=1), torch.from_numpy(plan.places)[None])
    return y.view(batch, height, width, *q.shape[3:]).to(q.dtype)


def _attend(
    group: TileGroup, inputs: list[Tensor], bias: Tensor | None, scale: float, heads: int
) -> list[Tensor]:
    """Return the results of a group of tiles in order, each (N, some tiles*queries, heads*d)."""
    batch, _, width = inputs[0].shape
    mask = _mask(group, bias, inputs[0])
    room = _BLOCK_CPU if inputs[0].device.type == "cpu" else _BLOCK
    block = max(room // (batch * group.keys.shape[1] * width), 1)
    parts = []
    for first in range(0, group.queries.shape[0], block):
        queries, keys = (
            torch.from_numpy(pixels[first : first + block])
            for pixels in (group.queries, group.keys)
        )
        q, k, v = (
            _take(table, pixels).unflatten(2, (heads, -1)).transpose(1, 2)
            for table, pixels in zip(inputs, (queries, keys, keys), strict=True)
        )  # (N*tiles, heads, pixels, d)
        everywhere = mask.expand(*q.shape[:2], -1, -1)
        y = F.scaled_dot_product_attention(q, k, v, everywhere, scale=scale)
        parts.append(y.transpose(1, 2).reshape(batch, -1, width))
    return parts


def _take(table: Tensor, pixels: Tensor) -> Tensor:
    """Return the rows ``pixels`` (T, P) of every map of ``table`` (N, L, C): (N*T, P, C).

    As an embedding, whose gradient is a sum in fixed order on every device and threaded on CPU.
    """
    batch, length, _ = table.shape
    first = torch.arange(batch, device=table.device)[:, None, None] * length
    wanted = (pixels.to(table.device) + first).flatten(0, 1)
    return F.embedding(wanted, table.flatten(0, 1))


def _mask(group: TileGroup, bias: Tensor | None, like: Tensor) -> Tensor:
    """Return what is added to a tile's scores, (1, 1 or heads, queries, keys).

    The bias depends on key minus query, so the table of query (i, j) is a crop of the padded bias
    that moves by one as i or j does.
    """
    outside = torch.from_numpy(group.outside).to(like.device)
    if bias is None:
        zeros = like.new_zeros(1, 1, *outside.shape)
        return zeros.masked_fill(outside, float("-inf"))
    (lead, left), (rows, columns) = group.lead, group.keys_shape
    tile_rows, tile_columns = group.tile_shape
    kernel_size = (bias.shape[1] + 1) // 2
    crops = F.pad(bias.to(like.dtype), 2 * (tile_columns - 1,) + 2 * (tile_rows - 1,))
    crops = crops[:, lead + kernel_size - 1 :, left + kernel_size - 1 :]
    crops = crops.unfold(1, rows, 1)[:, :tile_rows].unfold(2, columns, 1)[:, :, :tile_columns]
    crops = crops.flip(1, 2).reshape(1, -1, *outside.shape)  # (1, heads, queries, keys)
    return crops.masked_fill(outside, float("-inf"))


def rotated(both: list[Tensor], rope: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Return queries and keys with their channel pairs rotated by row and column.

    Args:
        both: q and k, (N, H, W, heads, d), float32 or float64.
        rope: sines and cosines by row (H, d/4, 2) and by column (W, d/4, 2).

    Returns:
        q and k of the same shape and dtype, the channels of both in an order of their own: only
        their products count.
    """
    rows, columns = (table.to(both[0].dtype) for table in rope)
    height, width = rows.shape[0], columns.shape[0]
    halves = [rows[:, None].expand(-1, width, -1, -1), columns[None].expand(height, -1, -1, -1)]
    angles = torch.cat(halves, dim=2)[:, :, None]  # (H, W, 1, d/2, 2)
    sin, cos = angles.unbind(-1)
    complex_runs = both[0].device.type == "cpu" and not torch.compiler.is_compiling()
    turn = _turned if complex_runs else _turned_apart
    return [turn(tensor, sin, cos) for tensor in both]


def _turned(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Return x rotated as complex numbers: one pass, but not on every device."""
    if x.storage_offset() % 2 or any(stride % 2 for stride in x.stride()[:-1]):
        x = x.contiguous()
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (N, H, W, heads, d/2)
    return torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2)


def _turned_apart(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Return x rotated, even channels before odd ones: to interleave them would cost a copy."""
    even, odd = x[..., 0::2], x[..., 1::2]  # (N, H, W, heads, d/2)
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1)


# Integers in, numbers out: a compiled graph may hold the plan.
@constant_in_graphs
def plan_tiles(height: int, width: int, kernel_size: int) -> Plan:
    """Return the tiles of a map, grouped by how their windows lie.

    The last tile of an axis that is no multiple of the tile is moved inwards; of pixels that two
    tiles compute, one result is used.
    """
    return _plan_tiles(height, width, kernel_size)


@lru_cache(maxsize=64)
def _plan_tiles(height: int, width: int, kernel_size: int) -> Plan:
    groups = []
    for row, column in product(
        _axis_runs(height, kernel_size, _TILE[0]), _axis_runs(width, kernel_size, _TILE[1])
    ):
        inside = row.inside[:, None, :, None] & column.inside[None, :, None, :]
        pixels = inside.shape[0] * inside.shape[1]
        groups.append(
            TileGroup(
                queries=_pixels(row.queries, column.queries, width),
                keys=_pixels(row.keys, column.keys, width),
                outside=~inside.reshape(pixels, -1),
                lead=(row.lead, column.lead),
                tile_shape=(inside.shape[0], inside.shape[1]),
                keys_shape=(inside.shape[2], inside.shape[3]),
            )
        )
    computed = np.concatenate([group.queries.ravel() for group in groups])
    places = np.empty(height * width, dtype=np.int64)
    places[computed] = np.arange(computed.size)
    return Plan(tuple(groups), places)


def _axis_runs(length: int, kernel_size: int, tile: int) -> list[_AxisRun]:
    """Return the tiles of one axis, those whose windows lie alike together."""
    tile = min(tile, length)
    halo = min(tile + kernel_size - 1, length)
    step, key = np.arange(tile), np.arange(halo)
    alike: dict[tuple[int, bytes], list[_AxisRun]] = {}
    for start in range(0, length, tile):
        queries = min(start, length - tile) + step
        first = np.clip(queries - kernel_size // 2, 0, length - kernel_size)  # of each window
        keys = first[0] + key - max(first[0] + halo - length, 0)
        since = keys - first[:, None]  # first key of the window, (tile, halo)
        inside = (since >= 0) & (since < kernel_size)
        run = _AxisRun(queries[None], keys[None], inside, int(keys[0] - queries[0]))
        alike.setdefault((run.lead, inside.tobytes()), []).append(run)
    return [
        runs[0]._replace(
            queries=np.concatenate([run.queries for run in runs]),
            keys=np.concatenate([run.keys for run in runs]),
        )
        for runs in alike.values()
    ]


def _pixels(rows: NDArray[np.int64], columns: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return the pixels of every pair of a run of rows (A, R) and one of columns (B, C)."""
    pixels = rows[:, None, :, None] * width + columns[None, :, None, :]
    return pixels.reshape(rows.shape[0] * columns.shape[0], -1)  # (A*B, R*C)
