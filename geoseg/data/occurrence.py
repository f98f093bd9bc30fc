"""Where classes and usable pixels are: a coarse map of each scene's labels, read once."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from geoseg.data.labels import Mask
from geoseg.data.patches import PatchSlice
from geoseg.data.sample import IGNORE
from geoseg.data.scene_pairs import MOST_THREADS, ScenePairs
from geoseg.data.scenes import Scene
from geoseg.predict.area import Stencil
from geoseg.raster.gdal import network_environment
from geoseg.types import ValidMask, Window

Places = NDArray[np.int64]

# A patch is looked at in so many steps a side ...
STEPS_PER_PATCH = 32
# ... unless all scenes together would take more memory than this, at 5 bytes each.
MOST_PLACES = 16 * 2**20
# Pixels of a scene that are read at a time.
STRIP_PX = 2**24


@dataclass(frozen=True)
class Occurrence:
    """A scene's labels at every ``step_px``-th pixel, and which patches hold enough of them.

    Attributes:
        labels: channel index or IGNORE, uint8 (rows, cols); ignored where the image is not usable
            or the ground belongs to another split.
        step_px: between places, in pixels of the scene's grid.
        size_px: side of a patch.
        least_valid: share of usable places below which a patch is not drawn.
    """

    labels: Mask
    step_px: int
    size_px: int
    least_valid: float

    @property
    def usable(self) -> int:
        """Number of usable places."""
        return int((self.labels != IGNORE).sum())

    @property
    def reach(self) -> tuple[int, int]:
        """Places under a patch, along rows and columns; fewer where the scene is smaller."""
        places = max(1, self.size_px // self.step_px)
        return min(places, self.labels.shape[0]), min(places, self.labels.shape[1])

    @cached_property
    def share(self) -> NDArray[np.float32]:
        """Usable share of a patch by the place of its upper left corner."""
        down, along = self.reach
        sums = np.pad((self.labels != IGNORE).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        inside = sums[down:, along:] - sums[:-down, along:] - sums[down:, :-along]
        counts = inside + sums[:-down, :-along]
        return (counts / (down * along)).astype(np.float32)

    @cached_property
    def corners(self) -> Places | None:
        """Places that a patch may start at, flat in ``share``; None: all of them."""
        enough = (self.share >= self.least_valid) & (self.share > 0)
        return None if enough.all() else np.flatnonzero(enough)

    @property
    def can_be_drawn(self) -> bool:
        """Whether any patch holds enough."""
        return self.corners is None or len(self.corners) > 0

    def places_of(self, channel: int) -> Places:
        """Return where a class is, flat in ``labels``."""
        return np.flatnonzero(self.labels == channel)

    def share_at(self, row_px: int, col_px: int) -> float:
        """Return the usable share of the patch that starts at a pixel."""
        rows, cols = self.share.shape
        row = min(max(row_px // self.step_px, 0), rows - 1)
        col = min(max(col_px // self.step_px, 0), cols - 1)
        return float(self.share[row, col])


def read_occurrences(
    dataset: ScenePairs, size_px: int, least_valid: float, *, look: bool = True
) -> tuple[Occurrence, ...]:
    """Return where classes occur in each scene.

    Args:
        dataset: whose scenes.
        size_px: side of a patch.
        least_valid: see `Occurrence`.
        look: read the labels; if not, all ground of the split counts as of one class.

    Raises:
        InputError: a file cannot be read, or a label has no class.
    """
    step_px = choose_step(
        [scene.grid.height * scene.grid.width for scene in dataset.scenes], size_px
    )

    def read(scene: Scene) -> Occurrence:
        read_labels = _coarse_labels if look else _coarse_region
        return Occurrence(read_labels(dataset, scene, step_px), step_px, size_px, least_valid)

    with ThreadPoolExecutor(MOST_THREADS, initializer=network_environment().__enter__) as readers:
        return tuple(readers.map(read, dataset.scenes))


def choose_step(pixels: Sequence[int], size_px: int) -> int:
    """Return every how many pixels labels are looked at, given the pixels of each scene."""
    affordable = math.ceil(math.sqrt(sum(pixels) / MOST_PLACES))
    return max(1, size_px // STEPS_PER_PATCH, affordable)


def _coarse_labels(dataset: ScenePairs, scene: Scene, step_px: int) -> Mask:
    """Return a scene's labels at every ``step_px``-th pixel."""
    height, width = scene.grid.height, scene.grid.width
    rows = max(1, STRIP_PX // (width * step_px)) * step_px
    strips = []
    for row in range(0, height, rows):
        window = Window(row, 0, min(rows, height - row), width)
        grid = scene.grid.part(window, step_px)
        index = PatchSlice(grid.bounds, grid, scene.path, window)
        labels = dataset.labels.read(index)
        labels[~dataset.images.read_valid(index)] = IGNORE
        if scene.region is not None:
            labels[~_coarse_mask(scene.region, window, step_px)] = IGNORE
        strips.append(labels)
    return np.concatenate(strips)


def _coarse_region(_: ScenePairs, scene: Scene, step_px: int) -> Mask:
    """Return channel 0 at every ``step_px``-th pixel of a scene's ground."""
    whole = Window(0, 0, scene.grid.height, scene.grid.width)
    if scene.region is not None:
        return np.where(_coarse_mask(scene.region, whole, step_px), 0, IGNORE).astype(np.uint8)
    return np.zeros((-(-whole.height // step_px), -(-whole.width // step_px)), np.uint8)


def _coarse_mask(stencil: Stencil, window: Window, step_px: int) -> ValidMask:
    """Return where the centres of coarser pixels lie inside of a region."""
    shape = -(-window.height // step_px), -(-window.width // step_px)
    transform = Affine.translation(window.col, window.row) @ Affine.scale(step_px)
    return rasterize(stencil.polygons, shape, transform=transform, dtype="uint8") > 0
