"""What travels from data sets to networks: samples, batches, label rules and splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from geoseg.spec import ClassSpec

# Keys are TorchGeo's. ``image`` (C, H, W) float32, raw values as in the file; ``mask`` (H, W)
# int64, channel index of the class or IGNORE; ``valid`` (H, W) bool, True where the image is
# usable; ``name`` str, for messages and pictures.
Sample = dict[str, Any]
# The same, stacked: image (N, C, H, W), mask (N, H, W), valid (N, H, W), name a list.
Batch = dict[str, Any]

IGNORE = 255  # in ``mask``, whatever number the files and the model's record use


@dataclass(frozen=True)
class Split:
    """One split of a data set, ready for a loader.

    Attributes:
        dataset: maps an index, or what ``sampler`` yields, to a `Sample`.
        classes: channel k is ``classes[k]``.
        names: of the samples' files, for leak checks and reports; one per scene for rasters.
        sampler: draws the patches of rasters; None: every sample once, shuffled in training.
        bands: names of the image bands.
        dtype: data type of the image files.
    """

    dataset: Dataset[Sample]
    classes: tuple[ClassSpec, ...]
    names: tuple[str, ...] = ()
    sampler: Sampler[Any] | None = None
    bands: tuple[str, ...] = ("red", "green", "blue")
    dtype: str = "uint8"
    notes: tuple[str, ...] = field(default=())


def collate_samples(samples: Sequence[Mapping[str, Any]]) -> Batch:
    """Stack samples of one size into a batch; what is no tensor becomes a list."""
    keys = [key for key in samples[0] if all(key in sample for sample in samples)]
    batch: Batch = {}
    for key in keys:
        values = [sample[key] for sample in samples]
        batch[key] = torch.stack(values) if isinstance(values[0], Tensor) else values
    return batch
