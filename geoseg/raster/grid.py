"""The prediction grid: which tiles, in which order, finish which pixels. Integers, no I/O.

A tile row or column is planned once for the whole raster and never depends on memory, threads or
shards; only how tiles are gathered into panels does. Along one axis:

    tile 0  |-----------|            reads [start, start + tile)
    tile 1          |-----------|    core = what it read, less the halo at inner edges
    cells   |-------|-------|...     cell i = pixels that are complete once tile i is added
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from geoseg.errors import UsageError


@dataclass(frozen=True)
class Axis:
    """The tiles along rows or along columns.

    Attributes:
        length_px: pixels to cover.
        tile_px: side of a tile; may exceed ``length_px``, then the one tile is padded.
        halo_px: read at inner edges and discarded.
        starts: first pixel of each tile, ascending.
    """

    length_px: int
    tile_px: int
    halo_px: int
    starts: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.starts)

    def span(self, i: int) -> tuple[int, int]:
        """Return the first pixel that tile ``i`` covers, and the one after its last."""
        start = self.starts[i]
        return start, min(start + self.tile_px, self.length_px)

    def core(self, i: int) -> tuple[int, int]:
        """Return the pixels of tile ``i`` that count: all but the halo at inner edges."""
        start, stop = self.span(i)
        first, last = i == 0, i == len(self.starts) - 1
        return start + (0 if first else self.halo_px), stop - (0 if last else self.halo_px)

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """Borders of the cells: pixels before ``bounds[i + 1]`` are complete after tile ``i``."""
        inner = [self.core(i)[0] for i in range(1, len(self.starts))]
        return (0, *inner, self.length_px)

    @cached_property
    def most_shared_px(self) -> int:
        """The most pixels that two neighbours have in common."""
        pairs = zip(range(len(self)), self.starts[1:], strict=False)
        return max([0, *(self.span(i)[1] - start for i, start in pairs)])

    def needed(self, first_px: int, stop_px: int) -> range:
        """Return the tiles whose cores touch pixels [first, stop)."""
        touching = [
            i
            for i in range(len(self.starts))
            if self.core(i)[0] < stop_px and self.core(i)[1] > first_px
        ]
        return range(touching[0], touching[-1] + 1) if touching else range(0)


@dataclass(frozen=True)
class TileGrid:
    """Tiles over a raster: every pixel is covered, and no tile reaches past an edge."""

    rows: Axis
    cols: Axis

    @property
    def tile_count(self) -> int:
        """Number of tiles when each is run once."""
        return len(self.rows) * len(self.cols)


@dataclass(frozen=True)
class Panel:
    """A block of tile rows in a strip of tile columns; the unit that is finished and kept.

    Attributes:
        index: position in the order of work.
        strip: which strip of columns it belongs to.
        rows: tile rows whose cells it finishes.
        cols: tile columns whose cells it finishes.
    """

    index: int
    strip: int
    rows: range
    cols: range


def plan_axis(
    length_px: int, tile_px: int, overlap_px: int, *, halo_px: int = 0, shift_px: int = 0
) -> Axis:
    """Return tiles that cover ``length_px`` pixels with at least ``overlap_px`` shared.

    What the last tile would reach past the end is spread over all overlaps, in steps of 32 px where
    the stride allows it, so that networks that halve their maps five times meet the same phase.

    Args:
        length_px: pixels to cover, at least 1.
        tile_px: side of a tile.
        overlap_px: least overlap of neighbours, in [0, tile_px).
        halo_px: discarded at inner edges; neighbours' cores must still meet.
        shift_px: moves all tiles but the first; for comparing two grids.
    """
    _check(length_px, tile_px, overlap_px, halo_px)
    if shift_px and length_px > tile_px:
        rest = plan_axis(length_px - shift_px, tile_px, overlap_px, halo_px=halo_px)
        moved = (min(shift_px + start, length_px - tile_px) for start in rest.starts)
        return Axis(length_px, tile_px, halo_px, (0, *moved))
    if length_px <= tile_px:
        return Axis(length_px, tile_px, halo_px, (0,))
    stride = tile_px - overlap_px
    free = length_px - tile_px
    steps = -(-free // stride)
    align = 32 if stride % 32 == 0 else 1
    even = (-(-(i * free) // (steps * align)) * align for i in range(steps + 1))
    return Axis(length_px, tile_px, halo_px, tuple(min(start, free) for start in even))


def plan_windows(
    height: int,
    width: int,
    tile_px: int,
    *,
    overlap_px: int,
    halo_px: int = 0,
    shift_px: int = 0,
) -> TileGrid:
    """Return the tile grid of a raster of ``height`` x ``width`` pixels."""
    return TileGrid(
        plan_axis(height, tile_px, overlap_px, halo_px=halo_px, shift_px=shift_px),
        plan_axis(width, tile_px, overlap_px, halo_px=halo_px, shift_px=shift_px),
    )


def plan_panels(grid: TileGrid, *, tile_rows: int, tile_cols: int) -> list[Panel]:
    """Cut the grid into panels: strip by strip from left to right, each from top to bottom."""
    panels: list[Panel] = []
    for strip, cols in enumerate(chunks(len(grid.cols), tile_cols)):
        for rows in chunks(len(grid.rows), tile_rows):
            panels.append(Panel(len(panels), strip, rows, cols))
    return panels


def chunks(count: int, size: int) -> Iterator[range]:
    """Yield consecutive ranges of at most ``size`` that cover ``range(count)``."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def shard_of(panel_count: int, shard: tuple[int, int]) -> range:
    """Return the consecutive panels of shard (I, N), I from 1 to N."""
    i, n = shard
    return range(panel_count * (i - 1) // n, panel_count * i // n)


def _check(length_px: int, tile_px: int, overlap_px: int, halo_px: int) -> None:
    if length_px < 1:
        raise UsageError(f"expected at least 1 px to cover; got {length_px}. Check the extent.")
    if not 0 <= overlap_px < tile_px:
        raise UsageError(
            f"expected 0 <= overlap < tile size; got overlap {overlap_px} px and tile "
            f"{tile_px} px. Give a smaller --overlap or a larger --tile-size."
        )
    if 2 * halo_px > overlap_px:
        raise UsageError(
            f"expected an overlap of at least twice the halo of {halo_px} px; got {overlap_px} px. "
            f"Give --overlap {2 * halo_px} or more."
        )
