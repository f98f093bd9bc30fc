"""Imagery with its labels, patch by patch: what the loaders of a run read."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torchgeo.datasets import IntersectionDataset
from torchgeo.datasets.utils import GeoSlice

from geoseg.data.geodatasets import ImageRasters, Labels, as_mask, quiet_pandas
from geoseg.data.patches import PatchSlice
from geoseg.data.sample import IGNORE, Sample
from geoseg.data.scenes import Scene
from geoseg.errors import InputError
from geoseg.raster.gdal import network_environment

Transform = Callable[[Sample], Sample]
MOST_THREADS = 4


class ScenePairs(IntersectionDataset):
    """Imagery with its labels: indexed by a `PatchSlice` or plain ground, gives a `Sample`.

    Args:
        images: what is seen.
        labels: what it shows.
        scenes: the images one by one, each with the part of it that belongs to the split.
        transform: called on each sample, for example an augmentation.

    Raises:
        InputError: imagery and labels have no ground in common.
    """

    def __init__(
        self,
        images: ImageRasters,
        labels: Labels,
        scenes: Sequence[Scene],
        *,
        transform: Transform | None = None,
    ) -> None:
        try:
            with quiet_pandas():
                super().__init__(images, labels, spatial_only=True, collate_fn=join_samples)
        except RuntimeError as error:
            raise InputError(
                f"expected labels of the ground that the images show; {images.names[0]!r} and "
                f"{str(labels.index.filepath.iloc[0])!r}, for example, have none in common. Check "
                "their CRS."
            ) from error
        self.images, self.labels = images, labels
        self.scenes = tuple(scenes)
        self.transform = transform
        self._scene_of = {scene.path: scene for scene in scenes}

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Return a sample, transformed."""
        return self._transformed(self._load(index))

    def __getitems__(self, indexes: Sequence[GeoSlice]) -> list[Sample]:
        """Return the samples of a batch; a process without workers reads them on threads."""
        threads = 1 if get_worker_info() is not None else min(MOST_THREADS, os.cpu_count() or 1)
        if threads == 1 or len(indexes) == 1:
            return [self[index] for index in indexes]
        with ThreadPoolExecutor(threads, initializer=network_environment().__enter__) as readers:
            loaded = list(readers.map(self._load, indexes))
        # One after the other: the transform draws from one stream of random numbers.
        return [self._transformed(sample) for sample in loaded]

    def _load(self, index: GeoSlice) -> Sample:
        if not isinstance(index, PatchSlice):
            x, y = self._disambiguate_slice(index)[:2]
            return {**super().__getitem__(index), "name": f"{x.start:.9g} {y.start:.9g}"}
        values, valid = self.images.read(index)
        mask = self.labels.read(index)
        mask[~valid] = IGNORE
        scene, window = self._scene_of[index.image], index.window
        if scene.region is not None:
            mask[~scene.region.mask(window)] = IGNORE
        return {
            "image": torch.from_numpy(values),  # (C, H, W)
            **as_mask(mask),  # (H, W)
            "valid": torch.from_numpy(valid),  # (H, W)
            "name": f"{scene.name} {window.row} {window.col}",
        }

    def _transformed(self, sample: Sample) -> Sample:
        return self.transform(sample) if self.transform is not None else sample


def join_samples(samples: Sequence[Sample]) -> Sample:
    """Return image, valid and mask of the same ground as one sample; invalid pixels are ignored."""
    image = next(s for s in samples if "image" in s)
    label = next(s for s in samples if "mask" in s)
    mask: Tensor = label["mask"]
    mask[~image["valid"]] = IGNORE
    return {"image": image["image"], "mask": mask, "valid": image["valid"]}
