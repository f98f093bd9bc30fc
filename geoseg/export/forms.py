"""SegMAN's two operations as ONNX functions of standard operators.

There is no loop over pixels and no work that depends on values: the scan is a parallel prefix of
2 log2(L) passes, and the windows of the attention are gathered by indexes that follow from the
map's size. What they compute is specified by `geoseg.ops.reference`. All are for any batch, and for
one size of map.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.ops.cross_scan import DIRECTIONS

# Of the functions; they are inlined before a file is written.
DOMAIN = "geoseg"

# Queries of a row that share their keys: at k = 11 a window's 121 keys become 286 for 16 queries,
# 7 times fewer than if each gathered its own, for 2.4 times the products.
_TILE = 16
# As the end of a slice: all there is, forwards or backwards.
_END = np.iinfo(np.int64).max
_BACK = (-1, -_END, -1)  # start, end and step of an axis in reverse

Value = str | NDArray[Any] | Sequence[int]


class _Function:
    """Nodes in the order of their computation; values are known by name."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._count = 0

    def add(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        """Append an operator and return its result; arrays and lists of int become constants."""
        from onnx import helper

        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        result = f"v{self._count}"
        self._count += 1
        self._nodes.append(helper.make_node(kind, names, [result], **attributes))
        return result

    def slice(self, x: str, *spans: tuple[int, int, int, int]) -> str:
        """Return a part of ``x``; spans are (axis, start, end, step)."""
        axes, starts, ends, steps = (list(column) for column in zip(*spans, strict=True))
        return self.add("Slice", x, starts, ends, axes, steps)

    def finish(self, name: str, inputs: Sequence[str], opset: int) -> Any:
        """Return the function, whose result is what was added last."""
        from onnx import helper

        imports = [helper.make_opsetid("", opset)]
        return helper.make_function(
            DOMAIN, name, inputs, [f"v{self._count - 1}"], self._nodes, imports
        )

    def _constant(self, value: NDArray[Any] | Sequence[int]) -> str:
        from onnx import numpy_helper

        array = np.asarray(value) if isinstance(value, np.ndarray) else np.array(value, np.int64)
        return self.add("Constant", value=numpy_helper.from_array(array))


def ss2d_scan(name: str, size: tuple[int, int], channels: int, rank: int, *, opset: int) -> Any:
    """Return the four-direction scan of a map, `geoseg.ops.reference.ss2d_scan`.

    Args:
        name: of the function.
        size: rows and columns of the map, H and W.
        channels: C.
        rank: step-size rows, R.
        opset: version of ONNX's operators.

    Returns:
        ONNX function of x, q, dt_weight, dt_bias, A_logs and Ds; float32.
    """
    f = _Function()
    (height, width), length = size, size[0] * size[1]
    by_rows = f.add("Reshape", "x", [0, 1, length, channels])
    turned = f.add("Transpose", "x", perm=[0, 2, 1, 3])
    by_columns = f.add("Reshape", turned, [0, 1, length, channels])
    backwards = [f.slice(m, (2, *_BACK)) for m in (by_rows, by_columns)]
    u = f.add("Concat", by_rows, by_columns, *backwards, axis=1)  # (N, 4, L, C)
    rows = _by_directions(f, "q", length, rank + 2)  # (N, 4, L, R+2)
    step, b, c = (
        f.slice(rows, (3, first, end, 1))
        for first, end in ((0, rank), (rank, rank + 1), (rank + 1, rank + 2))
    )
    z = f.add("MatMul", step, f.add("Transpose", "dt_weight", perm=[0, 2, 1]))
    z = f.add("Add", z, f.add("Reshape", "dt_bias", [DIRECTIONS, 1, channels]))
    dt = f.add("Softplus", z)  # (N, 4, L, C)
    a = f.add("Neg", f.add("Exp", f.add("Reshape", "A_logs", [DIRECTIONS, 1, channels])))
    decay = f.add("Exp", f.add("Mul", dt, a))
    h = _prefix(f, decay, f.add("Mul", f.add("Mul", dt, u), b), length)
    y = f.add("Mul", h, c)
    back = f.slice(y, (1, 2, 4, 1), (2, *_BACK))
    both = f.add("Add", f.slice(y, (1, 0, 2, 1)), back)  # (N, 2, L, C)
    rows_map = f.add("Reshape", f.slice(both, (1, 0, 1, 1)), [0, height, width, channels])
    columns_map = f.add("Reshape", f.slice(both, (1, 1, 2, 1)), [0, width, height, channels])
    summed = f.add("Add", rows_map, f.add("Transpose", columns_map, perm=[0, 2, 1, 3]))
    weights = f.add("Reshape", "Ds", [DIRECTIONS, channels])
    skip = f.add("Mul", "x", f.add("ReduceSum", weights, [0], keepdims=0))
    f.add("Add", summed, skip)
    return f.finish(name, ["x", "q", "dt_weight", "dt_bias", "A_logs", "Ds"], opset)


def _by_directions(f: _Function, q: str, length: int, width: int) -> str:
    """Return q (N, H, W, 4, M), each direction in its own order of steps: (N, 4, L, M)."""
    parts = f.add("Transpose", q, perm=[0, 3, 1, 2, 4])  # (N, 4, H, W, M)
    even, odd = (f.slice(parts, (1, first, _END, 2)) for first in (0, 1))
    odd = f.add("Transpose", odd, perm=[0, 1, 3, 2, 4])
    sides = [f.add("Reshape", part, [0, 2, length, width]) for part in (even, odd)]
    orders = [
        f.slice(sides[k % 2], (1, k // 2, k // 2 + 1, 1), (2, *(_BACK if k > 1 else (0, _END, 1))))
        for k in range(DIRECTIONS)
    ]
    return f.add("Concat", *orders, axis=1)


def _prefix(f: _Function, decay: str, driven: str, length: int) -> str:
    """Return h_t = decay_t h_(t-1) + driven_t for all t of axis 2, with h = 0 before the first.

    Two steps in a row are one step of the same form, so the recurrence over pairs gives every
    second state, and one more step the others (Blelloch, "Prefix sums and their applications",
    1990). Nothing is divided by a product of decays, which would overflow.
    """
    if length == 1:
        return driven
    if length % 2:  # whatever comes after the end changes nothing before it
        end = [0, 0, 0, 0, 0, 0, 1, 0]
        decay, driven = f.add("Pad", decay, end), f.add("Pad", driven, end)
    first, second = (f.slice(driven, (2, i, _END, 2)) for i in (0, 1))  # (N, 4, L/2, C)
    decay_first, decay_second = (f.slice(decay, (2, i, _END, 2)) for i in (0, 1))
    pairs = f.add("Add", f.add("Mul", decay_second, first), second)
    after = _prefix(f, f.add("Mul", decay_second, decay_first), pairs, (length + 1) // 2)
    between = first
    if length > 2:  # cut, then padded: onnxruntime 1.22 errs where a pad is negative
        before = f.add("Pad", f.slice(after, (2, 0, -1, 1)), [0, 0, 1, 0, 0, 0, 0, 0])
        between = f.add("Add", f.add("Mul", decay_first, before), first)
    both = [f.add("Unsqueeze", part, [3]) for part in (between, after)]
    states = f.add("Concat", *both, axis=3)  # (N, 4, L/2, 2, C)
    states = f.add("Reshape", states, np.array([0, 0, length + length % 2, -1]))
    return f.slice(states, (2, 0, length, 1)) if length % 2 else states


class _AxisTiles(NamedTuple):
    """Tiles of queries along one axis, their keys, and how these lie to each other."""

    queries: NDArray[np.int64]  # (tiles, tile)
    keys: NDArray[np.int64]  # (tiles, halo)
    pattern: NDArray[np.int64]  # row of ``offsets`` that holds for a tile, (tiles,)
    offsets: NDArray[np.int64]  # key minus query + k - 1, -1 outside, (patterns, tile, halo)


class Attention(NamedTuple):
    """What is fixed of a neighbourhood attention.

    Attributes:
        size: rows and columns of the map, H and W.
        heads: number of heads.
        head_dim: d.
        kernel_size: side of the window, k.
        scale: factor on the scores.
        has_bias: there is a bias (heads, 2k-1, 2k-1).
        has_rope: there are rotation tables (H, d/4, 2) and (W, d/4, 2).
    """

    size: tuple[int, int]
    heads: int
    head_dim: int
    kernel_size: int
    scale: float
    has_bias: bool
    has_rope: bool


def na2d(name: str, of: Attention, *, opset: int) -> Any:
    """Return neighbourhood attention, `geoseg.ops.reference.neighborhood_attention`.

    Tiles of queries are one row high, so that their keys are exactly k rows of windows.

    Args:
        name: of the function.
        of: what is fixed.
        opset: version of ONNX's operators.

    Returns:
        ONNX function of q, k, v, and where there are any bias, rope_rows, rope_columns; float32.
    """
    f = _Function()
    (height, width), heads, dim = of.size, of.heads, of.head_dim
    rows, columns = _axis(height, of.kernel_size, 1), _axis(width, of.kernel_size, _TILE)
    tiles, tile = columns.queries.shape
    many = height * tiles
    q, k = _rotated(f, of) if of.has_rope else ("q", "k")
    q = f.add("Mul", q, np.array(of.scale, np.float32))
    q = f.add("Gather", q, columns.queries, axis=2)  # (N, H, tiles, tile, heads, d)
    q = f.add("Transpose", q, perm=[0, 1, 2, 4, 3, 5])
    q = f.add("Reshape", q, [0, many, heads, tile, dim])
    keys, values = (_windows(f, t, rows.keys, columns.keys) for t in (k, "v"))
    # From (N, H, k, tiles, halo, heads, d), the keys ready for the product.
    keys = f.add("Transpose", keys, perm=[0, 1, 3, 5, 6, 2, 4])
    keys = f.add("Reshape", keys, [0, many, heads, dim, -1])
    values = f.add("Transpose", values, perm=[0, 1, 3, 5, 2, 4, 6])
    values = f.add("Reshape", values, [0, many, heads, -1, dim])
    pattern = rows.pattern[:, None] * len(columns.offsets) + columns.pattern
    table = _table(f, of, rows.offsets[:, 0], columns.offsets)
    # Copied for each image when it runs: as a constant it would be as large as the scores.
    images = f.add("Shape", "q", start=0, end=1)
    table = f.add("Expand", table, f.add("Concat", images, [1, 1, 1, 1], axis=0))
    table = f.add("Gather", table, pattern.reshape(-1), axis=1)
    scores = f.add("Add", f.add("MatMul", q, keys), table)  # (N, H*tiles, heads, tile, keys)
    y = f.add("MatMul", f.add("Softmax", scores, axis=-1), values)
    y = f.add("Reshape", y, [0, height, tiles, heads, tile, dim])
    y = f.add("Transpose", y, perm=[0, 1, 2, 4, 3, 5])
    y = f.add("Reshape", y, [0, height, tiles * tile, heads, dim])
    f.add("Gather", y, _places(columns.queries, width), axis=2)
    tables = ["bias"] * of.has_bias + ["rope_rows", "rope_columns"] * of.has_rope
    return f.finish(name, ["q", "k", "v", *tables], opset)


def _places(queries: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return where each pixel of an axis is in its tiles' results in a row, (length,)."""
    places = np.empty(length, np.int64)
    places[queries] = np.arange(queries.size).reshape(queries.shape)
    return places


def _rotated(f: _Function, of: Attention) -> tuple[str, str]:
    """Return q and k rotated, even channels before odd ones: only their products count."""
    (height, width), quarter = of.size, of.head_dim // 4
    turns = []
    for i in (0, 1):  # sine, cosine
        tables = []
        for table, shape in (
            ("rope_rows", [height, 1, 1, quarter]),
            ("rope_columns", [1, width, 1, quarter]),
        ):
            part = f.add("Reshape", f.slice(table, (2, i, i + 1, 1)), shape)
            tables.append(f.add("Expand", part, [height, width, 1, quarter]))
        turns.append(f.add("Concat", *tables, axis=3))  # (H, W, 1, d/2)
    sin, cos = turns
    rotated = []
    for x in ("q", "k"):
        even, odd = (f.slice(x, (4, j, _END, 2)) for j in (0, 1))
        real = f.add("Sub", f.add("Mul", even, cos), f.add("Mul", odd, sin))
        imaginary = f.add("Add", f.add("Mul", odd, cos), f.add("Mul", even, sin))
        rotated.append(f.add("Concat", real, imaginary, axis=4))
    return rotated[0], rotated[1]


def _windows(f: _Function, t: str, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> str:
    """Return what each tile reads: (N, H, k, tiles, halo, heads, d)."""
    return f.add("Gather", f.add("Gather", t, columns, axis=2), rows, axis=1)


def _axis(length: int, kernel_size: int, tile: int) -> _AxisTiles:
    """Return an axis cut into tiles, the last moved inwards; windows never leave the map."""
    tile = min(tile, length)
    halo = min(tile + kernel_size - 1, length)
    starts = np.minimum(np.arange(0, length, tile), length - tile)
    queries = starts[:, None] + np.arange(tile)
    first = np.clip(queries - kernel_size // 2, 0, length - kernel_size)  # of each window
    keys = np.minimum(first[:, :1], length - halo) + np.arange(halo)
    since = keys[:, None] - first[:, :, None]  # (tiles, tile, halo)
    inside = (since >= 0) & (since < kernel_size)
    offset = keys[:, None] - queries[:, :, None] + kernel_size - 1
    offsets, pattern = np.unique(np.where(inside, offset, -1), axis=0, return_inverse=True)
    return _AxisTiles(queries, keys, pattern.reshape(-1), offsets)


def _table(f: _Function, of: Attention, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> str:
    """Return what is added to the scores of a tile of each pattern.

    Args:
        f: where to.
        of: what is fixed.
        rows: offsets of key and query rows, (P, k).
        columns: of key and query columns, -1 outside of the window, (Q, tile, halo).

    Returns:
        (1, P*Q, heads or 1, tile, k*halo).
    """
    side = 2 * of.kernel_size - 1
    bias: Value = "bias" if of.has_bias else np.zeros((1, side, side), np.float32)
    table = f.add("Gather", bias, rows, axis=1)  # (heads, P, k, 2k-1)
    table = f.add("Gather", table, np.maximum(columns, 0), axis=3)
    table = f.add("Transpose", table, perm=[1, 3, 0, 4, 2, 5])  # (P, Q, heads, tile, k, halo)
    outside = np.where(columns < 0, -np.inf, 0.0).astype(np.float32)
    table = f.add("Add", table, outside[:, None, :, None])
    patterns, (_, tile, halo) = len(rows) * len(columns), columns.shape
    heads = of.heads if of.has_bias else 1
    return f.add("Reshape", table, [1, patterns, heads, tile, of.kernel_size * halo])
