"""Which patches of the scenes are seen: drawn for training, laid out for validation.

Both are TorchGeo samplers. Unlike TorchGeo's own they take scenes that are smaller than a patch,
and stay on the pixels of each scene, whatever its resolution and CRS.
"""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from torchgeo.samplers import SpatialSampler

from geoseg.config.run import SamplingConfig
from geoseg.data.occurrence import Occurrence, read_occurrences
from geoseg.data.patches import PatchSlice, place_patch
from geoseg.data.sample import IGNORE
from geoseg.data.scene_pairs import ScenePairs
from geoseg.data.scenes import Scene
from geoseg.errors import InputError, UsageError
from geoseg.types import Window

# A patch around a pixel of a rare class is drawn again so often if it holds too little else.
TRIES = 10
UNIFORM = SamplingConfig()


class SceneSampler(SpatialSampler):
    """Patches of scenes, in the order of an epoch.

    Args:
        dataset: whose scenes.
        size_px: side of a patch.
        rank: of this process.
        processes: that share the patches of an epoch; each gets every so-many-th.
    """

    def __init__(
        self, dataset: ScenePairs, size_px: int, *, rank: int = 0, processes: int = 1
    ) -> None:
        super().__init__(dataset)
        self.dataset = dataset
        self.size_px = size_px
        self.rank, self.processes = rank, processes
        self.epoch = 0
        self._crs = dataset.crs.to_wkt() if dataset.crs is not None else ""

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """The scenes that patches are cut from."""
        return self.dataset.scenes

    def set_epoch(self, epoch: int) -> None:
        """Choose the order: the same epoch gives the same patches."""
        self.epoch = epoch

    def patch(self, scene: Scene, row_px: int, col_px: int) -> PatchSlice:
        """Return the index of the patch that starts at a pixel of a scene."""
        window = Window(row_px, col_px, self.size_px, self.size_px)
        return place_patch(scene.grid, window, scene.path, crs=self._crs)


class BalancedPatchSampler(SceneSampler):
    """Random patches: uniform over the ground, or class by class, or a mixture of both.

    Classes and usable ground are known from a coarse map of the labels, which is read once. A scene
    smaller than a patch lies somewhere in it. Every epoch is a function of seed and epoch alone.

    Args:
        dataset: whose scenes.
        size_px: side of a patch.
        sampling: balance, least share of usable pixels, weight of files, patches per epoch.
        seed: of the draws.
        rank: of this process.
        processes: that share the patches of an epoch.

    Raises:
        UsageError: a share that is none.
    """

    strategy: Literal["random", "sequential"] = "random"

    def __init__(
        self,
        dataset: ScenePairs,
        size_px: int,
        sampling: SamplingConfig = UNIFORM,
        *,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__(dataset, size_px, rank=rank, processes=processes)
        for name in ("balance", "least_valid"):
            if not 0 <= getattr(sampling, name) <= 1:
                raise UsageError(
                    f"data.sampling.{name}: expected a share from 0 to 1; got "
                    f"{getattr(sampling, name):g}."
                )
        self.sampling = sampling
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of patches of an epoch for this process."""
        return math.ceil(self.patches_per_epoch / self.processes)

    def __iter__(self) -> Iterator[PatchSlice]:
        """Yield the patches of the epoch."""
        draws = np.random.default_rng((self.seed, self.epoch))
        for i in range(len(self) * self.processes):
            patch = self._draw(draws)
            if i % self.processes == self.rank:
                yield patch

    @cached_property
    def patches_per_epoch(self) -> int:
        """Patches of all processes together."""
        given = self.sampling.patches_per_epoch
        if given is not None and given < 1:
            raise UsageError(f"data.sampling.patches_per_epoch: expected 1 or more; got {given}.")
        return given or sum(covering_patches(scene, self.size_px) for scene in self.scenes)

    @cached_property
    def occurrences(self) -> tuple[Occurrence, ...]:
        """Where classes and usable pixels are, by scene."""
        sampling = self.sampling
        look = sampling.balance > 0 or sampling.least_valid > 0
        return read_occurrences(self.dataset, self.size_px, sampling.least_valid, look=look)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Probability of each scene under a uniform draw."""
        usable = [o.usable if o.can_be_drawn else 0 for o in self.occurrences]
        weights = self._by_file(np.array(usable, float))
        if not weights.any():
            best = max(float(o.share.max()) for o in self.occurrences)
            raise InputError(
                f"expected patches of {self.size_px} px with at least "
                f"{self.sampling.least_valid:.0%} of valid, labelled pixels; the best one has "
                f"{best:.1%}. Lower data.sampling.least_valid, or give more labels."
            )
        return weights / weights.sum()

    @cached_property
    def class_places(self) -> dict[int, tuple[NDArray[np.float64], list[NDArray[np.int64]]]]:
        """Of each class that occurs: probability of the scenes, and its places in each."""
        found = {}
        for channel in range(IGNORE):
            counts = [int((o.labels == channel).sum()) for o in self.occurrences]
            if any(counts):
                weights = self._by_file(np.array(counts, float))
                places = [o.places_of(channel) for o in self.occurrences]
                found[channel] = weights / weights.sum(), places
        return found

    def _by_file(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.sampling.per_file == "equal":
            return (places > 0).astype(float)
        return places * np.array([scene.pixel_m2 for scene in self.scenes])

    def _draw(self, draws: Generator) -> PatchSlice:
        if draws.random() < self.sampling.balance:
            return self._draw_class(draws)
        return self._draw_ground(draws)

    def _draw_ground(self, draws: Generator) -> PatchSlice:
        i = int(draws.choice(len(self.scenes), p=self.weights))
        scene, occurrence = self.scenes[i], self.occurrences[i]
        row_px, col_px = self._anywhere(scene, draws)
        if occurrence.corners is not None:
            place = int(occurrence.corners[draws.integers(len(occurrence.corners))])
            row, col = divmod(place, occurrence.share.shape[1])
            step = occurrence.step_px
            row_px = self._within(row * step + int(draws.integers(step)), row_px, scene.grid.height)
            col_px = self._within(col * step + int(draws.integers(step)), col_px, scene.grid.width)
        return self.patch(scene, row_px, col_px)

    def _draw_class(self, draws: Generator) -> PatchSlice:
        channels = list(self.class_places)
        weights, places = self.class_places[channels[draws.integers(len(channels))]]
        i = int(draws.choice(len(self.scenes), p=weights))
        scene, occurrence = self.scenes[i], self.occurrences[i]
        place = int(places[i][draws.integers(len(places[i]))])
        row, col = divmod(place, occurrence.labels.shape[1])
        step = occurrence.step_px
        for _ in range(TRIES):
            shift = draws.integers(self.size_px, size=2)
            row_px, col_px = self._anywhere(scene, draws)
            row_px = self._within(row * step - int(shift[0]), row_px, scene.grid.height)
            col_px = self._within(col * step - int(shift[1]), col_px, scene.grid.width)
            if occurrence.share_at(row_px, col_px) >= self.sampling.least_valid:
                break
        return self.patch(scene, row_px, col_px)

    def _anywhere(self, scene: Scene, draws: Generator) -> tuple[int, int]:
        """Return a start of a patch that lies in the scene, or has the scene in it."""
        free = scene.grid.height - self.size_px, scene.grid.width - self.size_px
        row_px, col_px = (int(draws.integers(min(0, f), max(0, f), endpoint=True)) for f in free)
        return row_px, col_px

    def _within(self, start_px: int, anywhere_px: int, length_px: int) -> int:
        """Return a wanted start moved into the scene; any other where the scene is smaller."""
        if length_px <= self.size_px:
            return anywhere_px
        return min(max(start_px, 0), length_px - self.size_px)


class CoveringPatchSampler(SceneSampler):
    """Patches side by side that hold every pixel of every scene once.

    The last ones of a row or column reach beyond the scene, where nothing is valid. Patches without
    ground of the split, or out of reach of any label, are left out.

    Args:
        dataset: whose scenes.
        size_px: side of a patch.
        rank: of this process.
        processes: that share the patches.
    """

    strategy: Literal["random", "sequential"] = "sequential"

    def __len__(self) -> int:
        """Return the number of patches for this process."""
        return len(range(self.rank, sum(map(len, self.starts)), self.processes))

    def __iter__(self) -> Iterator[PatchSlice]:
        """Yield the patches, scene by scene, row by row."""
        number = 0
        for scene, starts in zip(self.scenes, self.starts, strict=True):
            for row_px, col_px in starts:
                if number % self.processes == self.rank:
                    yield self.patch(scene, int(row_px), int(col_px))
                number += 1

    @cached_property
    def starts(self) -> tuple[NDArray[np.int64], ...]:
        """First row and column of each scene's patches, (patches, 2)."""
        return tuple(covering_starts(scene, self.size_px) for scene in self.scenes)


def covering_starts(scene: Scene, size_px: int) -> NDArray[np.int64]:
    """Return first row and column of the patches that cover a scene's ground, (patches, 2)."""
    rows = np.arange(0, scene.grid.height, size_px)
    cols = np.arange(0, scene.grid.width, size_px)
    starts = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    for part in (scene.region, scene.labelled):
        if part is None:
            continue
        row, col = starts.T
        # From the first pixel's centre to the last one's: ground without a centre is no pixel.
        boxes = shapely.box(col + 0.5, row + 0.5, col + size_px - 0.5, row + size_px - 0.5)
        near = part.tree.query(boxes, predicate="intersects")[0]
        starts = starts[np.unique(near)]
    return starts


def covering_patches(scene: Scene, size_px: int) -> int:
    """Return how many patches cover a scene's ground once."""
    if scene.region is None and scene.labelled is None:
        return -(-scene.grid.height // size_px) * -(-scene.grid.width // size_px)
    return len(covering_starts(scene, size_px))
