"""Where a patch lies: a pixel grid with a place, and the TorchGeo index that carries it.

Patches of a scene are cut on the scene's own pixels, so that imagery is never resampled by being
sampled; labels come to that grid, whatever theirs is.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.raster.georef import bounds_of
from geoseg.types import BBox, Window

Floats = NDArray[np.float64]

# Every so many pixels a place is computed in the other CRS, and interpolated in between: over that
# distance projections bend by far less than a hundredth of a pixel.
LATTICE_PX = 32
# A pixel centre on another grid's edge belongs to the pixel after it, whatever rounding does.
EDGE_PX = 1e-6
# Grids whose axes differ by less than this over a patch are parallel.
PARALLEL_PX = 1e-3
SIDE_POINTS = 9


@dataclass(frozen=True)
class PatchGrid:
    """Pixels with a place.

    Attributes:
        crs: as WKT; empty: none, places are pixels of the image.
        transform: pixel -> CRS; north-up, south-up or rotated.
        height: px.
        width: px.
    """

    crs: str
    transform: Affine
    height: int
    width: int

    @property
    def bounds(self) -> BBox:
        """Bounding box in the CRS."""
        return bounds_of(self.transform, self.height, self.width)

    def part(self, window: Window, step_px: int = 1) -> "PatchGrid":
        """Return the grid of a window, which may reach beyond this one.

        Args:
            window: in pixels of this grid.
            step_px: side of the new grid's pixels, in pixels of this one; the last ones may reach
                beyond the window.
        """
        place = self.transform @ Affine.translation(window.col, window.row)
        size = -(-window.height // step_px), -(-window.width // step_px)
        return PatchGrid(self.crs, place @ Affine.scale(step_px), *size)

    def resized(self, height: int, width: int) -> "PatchGrid":
        """Return the same ground cut into another number of pixels."""
        scale = Affine.scale(self.width / width, self.height / height)
        return PatchGrid(self.crs, self.transform @ scale, height, width)

    def outline(self) -> shapely.Polygon:
        """Return the ground of the grid, in its CRS, with points along its sides."""
        # Straight sides bend in another CRS.
        steps = np.linspace(0, 1, SIDE_POINTS)[:-1]
        zeros, ones = np.zeros_like(steps), np.ones_like(steps)
        cols = np.concatenate([steps, ones, 1 - steps, zeros]) * self.width
        rows = np.concatenate([zeros, steps, ones, 1 - steps]) * self.height
        return shapely.Polygon(along(self.transform, np.stack([cols, rows], axis=1)))


class PatchSlice(tuple[slice, slice]):
    """TorchGeo's index of a patch, ``(x, y)`` in the data set's CRS, which also names its pixels.

    Data sets that do not know the class read the ground of ``(x, y)``; those of geoseg read the
    very pixels.

    Attributes:
        grid: of the patch.
        image: file of the scene.
        window: of the patch in the scene's grid; may reach beyond the scene.
    """

    grid: PatchGrid
    image: str
    window: Window

    def __new__(cls, bounds: BBox, grid: PatchGrid, image: str, window: Window) -> "PatchSlice":
        """Return the index of a patch with these bounds in the data set's CRS."""
        self = super().__new__(
            cls, (slice(bounds.left, bounds.right), slice(bounds.bottom, bounds.top))
        )
        self.grid, self.image, self.window = grid, image, window
        return self

    def __getnewargs__(self) -> tuple[BBox, PatchGrid, str, Window]:
        """Return what a copy in another process is made from."""
        x, y = self
        return BBox(x.start, y.start, x.stop, y.stop), self.grid, self.image, self.window


def along(transform: Affine, points: Floats) -> Floats:
    """Return points (N, 2) moved by an affine transform."""
    x, y = points.T
    moved = (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )
    return np.stack(moved, axis=1)


def place_patch(scene: PatchGrid, window: Window, image: str, *, crs: str) -> PatchSlice:
    """Return the index of a window of a scene, for a data set with this CRS."""
    grid = scene.part(window)
    bounds = grid.bounds
    if not same_crs(grid.crs, crs):
        bounds = BBox(*_transformer(grid.crs, crs).transform_bounds(*bounds))
    return PatchSlice(bounds, grid, image, window)


def places_in(grid: PatchGrid, crs: str, transform: Affine) -> tuple[Floats, Floats]:
    """Return where the centres of a grid's pixels lie in another raster.

    Args:
        grid: whose pixels.
        crs: of the raster.
        transform: of the raster.

    Returns:
        Rows and columns in the raster's pixels, not rounded: (height, 1) and (1, width) where the
        two grids are parallel, else both (height, width). Infinite where there is no such place.
    """
    rows = np.arange(grid.height)[:, None] + 0.5
    cols = np.arange(grid.width)[None, :] + 0.5
    if not same_crs(grid.crs, crs):
        return _projected(grid, crs, transform)
    turn = ~transform @ grid.transform
    if abs(turn.b) * grid.height < PARALLEL_PX and abs(turn.d) * grid.width < PARALLEL_PX:
        return rows * turn.e + turn.f, cols * turn.a + turn.c
    return cols * turn.d + rows * turn.e + turn.f, cols * turn.a + rows * turn.b + turn.c


def whole(places: Floats) -> NDArray[np.int64]:
    """Return the pixel that each place lies in, -1 where there is none."""
    return np.floor(np.where(np.isfinite(places), places + EDGE_PX, -1.0)).astype(np.int64)


def window_in(grid: PatchGrid, crs: str, transform: Affine) -> Window | None:
    """Return the window of a raster that is the grid, or None if their pixels do not coincide."""
    if not same_crs(grid.crs, crs):
        return None
    turn = ~transform @ grid.transform
    row, col = round(turn.f), round(turn.c)
    far = turn @ (grid.width, grid.height)
    # A hundredth of a pixel: coordinates of files that belong together are rounded differently.
    apart = (turn.c - col, turn.f - row, far[0] - col - grid.width, far[1] - row - grid.height)
    turned = turn.b * grid.height, turn.d * grid.width
    if max(map(abs, (*apart, *turned))) > 0.01:
        return None
    return Window(row, col, grid.height, grid.width)


@lru_cache(maxsize=256)
def same_crs(one: str, other: str) -> bool:
    """Return whether two WKTs mean the same CRS; none is like none only."""
    if one == other:
        return True
    if not one or not other:
        return False
    return pyproj.CRS(one).equals(pyproj.CRS(other), ignore_axis_order=True)


def _projected(grid: PatchGrid, crs: str, transform: Affine) -> tuple[Floats, Floats]:
    """Return rows and columns in a raster of another CRS, (height, width) each."""
    row_knots, col_knots = _knots(grid.height), _knots(grid.width)
    cols, rows = np.meshgrid(col_knots, row_knots)
    places = along(grid.transform, np.stack([cols.ravel(), rows.ravel()], axis=1))
    xs, ys = _transformer(grid.crs, crs).transform(places[:, 0], places[:, 1])
    theirs = along(~transform, np.stack([xs, ys], axis=1)).reshape(*cols.shape, 2)
    row_at, col_at = (np.arange(n, dtype=np.float64) + 0.5 for n in (grid.height, grid.width))
    return (
        _interpolate(theirs[..., 1], row_knots, col_knots, row_at, col_at),
        _interpolate(theirs[..., 0], row_knots, col_knots, row_at, col_at),
    )


def _knots(length_px: int) -> Floats:
    count = -(-length_px // LATTICE_PX) + 1
    return np.linspace(0.0, length_px, count)


def _interpolate(
    values: Floats, rows: Floats, cols: Floats, row_at: Floats, col_at: Floats
) -> Floats:
    """Return values on a lattice (rows, cols) interpolated bilinearly at (row_at, col_at)."""
    i = np.clip(np.searchsorted(rows, row_at) - 1, 0, len(rows) - 2)
    j = np.clip(np.searchsorted(cols, col_at) - 1, 0, len(cols) - 2)
    down = ((row_at - rows[i]) / (rows[i + 1] - rows[i]))[:, None]
    along = (col_at - cols[j]) / (cols[j + 1] - cols[j])
    with np.errstate(invalid="ignore"):  # places off the earth are infinite
        across = values[:, j] * (1 - along) + values[:, j + 1] * along  # (knots, W)
        result: Floats = across[i] * (1 - down) + across[i + 1] * down  # (H, W)
    return result


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(pyproj.CRS(source), pyproj.CRS(target), always_xy=True)
