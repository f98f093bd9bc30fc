"""How many tile columns a strip has: few enough for its memory, enough for its speed.

A strip is worked on from top to bottom. What is held beside the network grows with its width; the
tiles at its borders are run for both neighbours.
"""

from dataclasses import dataclass

from geoseg.raster.grid import TileGrid
from geoseg.raster.segments import Source, reader_bytes

# A strip holds about this much beside the network, however wide the raster is ...
STRIP_BYTES = 48 * 2**20
# ... unless so few tiles fit that those at its border, which two strips run, would cost too much.
LEAST_STRIP_TILES = 16
# Rows that the resampling of logits needs beside those of a row of tiles.
REGRID_ROWS = 8


@dataclass(frozen=True)
class StripCost:
    """What a strip's memory depends on.

    Attributes:
        source: the raster.
        grid: tiles on the model's grid.
        planes: views x classes.
        pixel_bytes: of all layers of the output.
        readers: reader threads.
        batch: tiles per forward pass.
    """

    source: Source
    grid: TileGrid
    planes: int
    pixel_bytes: int
    readers: int
    batch: int

    def memory_bytes(self, width_px: int) -> int:
        """Return what a strip of ``width_px`` columns holds beside the network."""
        rows, tile = self.grid.rows, self.grid.rows.tile_px
        read = reader_bytes(
            self.source, self.grid, width_px, threads=self.readers, batch=self.batch
        )
        blended = 4 * self.planes * (rows.most_shared_px * width_px + 2 * tile * tile)
        # One row of tiles' output is written while the next is filled.
        out = round(2 * tile * width_px * self.pixel_bytes * self._regrid_area)
        regrid = 0
        if self.source.is_resampled:
            regrid = 4 * self.planes * (tile + REGRID_ROWS) * width_px
        return read + blended + out + regrid

    def usual_tiles(self) -> int:
        """Return the tile columns of a strip that costs little memory and few tiles twice."""
        count = len(self.grid.cols)
        tiles = max(LEAST_STRIP_TILES, self._most_tiles(STRIP_BYTES + self.memory_bytes(0)))
        # A narrow rest is not worth a strip of its own.
        return count if count <= tiles * 1.25 else tiles

    def fitting_tiles(self, most_bytes: int) -> int:
        """Return how many tile columns a strip of so much memory finishes; at least one."""
        # On either side a strip needs a tile more than it finishes.
        return max(1, self._most_tiles(most_bytes) - 2)

    @property
    def _regrid_area(self) -> float:
        """Pixels of the output per pixel of the model's grid."""
        return self.source.rows.ratio * self.source.cols.ratio

    def _most_tiles(self, most_bytes: int) -> int:
        cols = self.grid.cols
        stride = max(1, cols.length_px // len(cols))
        fits = 0
        for tiles in range(1, len(cols) + 1):
            if self.memory_bytes(min(tiles * stride + cols.tile_px, cols.length_px)) > most_bytes:
                break
            fits = tiles
        return fits
