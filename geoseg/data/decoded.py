"""Keeps decoded samples in memory, as small as the files' own data type."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.data.sample import Sample, Split

# As many are looked at to see whether all will fit.
FIRST_LOOK = 8


class DecodedDataset(Dataset[Sample]):
    """The samples of a data set, of which some or all are held in memory.

    Workers that are forked share the memory; each of those that are spawned gets a copy.

    Args:
        dataset: of samples as they are on disk.
        dtype: of the image files, which holds their values exactly.
        transform: called on each sample. What comes from memory is of the file's data type, the
            mask uint8, and becomes float32 and int64 in the crop alone.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        dtype: str,
        *,
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        self.dataset = dataset
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.transform = transform
        self.held: dict[int, Sample] = {}

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)  # type: ignore[arg-type]  # torch declares no length

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, transformed."""
        sample = self.held.get(index)
        if sample is None:
            sample = self.dataset[index]
        elif self.transform is None:
            sample = sample | {
                "image": sample["image"].float(),
                "mask": sample["mask"].long(),
                "valid": sample["valid"].contiguous(),
            }
        return self.transform(sample) if self.transform is not None else sample

    def fill(self, max_bytes: float) -> int:
        """Read all samples if they will fit into ``max_bytes``, else none.

        Returns:
            The bytes that are held.
        """
        total, size = len(self), 0
        for index in range(total):
            self.held[index] = compact(self.dataset[index], self.dtype)
            size += held_bytes(self.held[index])
            looked = index + 1
            expected = size / looked * total if looked >= min(FIRST_LOOK, total) else size
            if max(size, expected) > max_bytes:
                self.held.clear()
                return 0
        return size

    def with_transform(self, transform: Callable[[Sample], Sample]) -> "DecodedDataset":
        """Return a data set over the same memory that changes its samples."""
        other = DecodedDataset(self.dataset, "uint8", transform=transform)
        other.dtype, other.held = self.dtype, self.held
        return other


def keep_decoded(split: Split, max_bytes: float) -> Split:
    """Return a split of files that is held in memory if it fits; one with a sampler as it is."""
    if split.sampler is not None or max_bytes <= 0:
        return split
    dataset = DecodedDataset(split.dataset, split.dtype)
    return replace(split, dataset=dataset) if dataset.fill(max_bytes) else split


def compact(sample: Sample, dtype: torch.dtype) -> Sample:
    """Return a sample with the image in ``dtype``, the mask as bytes, and validity once for all."""
    valid: Tensor = sample["valid"]
    if bool(valid.all()):
        valid = valid.new_ones(()).expand(valid.shape)
    return sample | {
        "image": sample["image"].to(dtype),
        "mask": sample["mask"].to(torch.uint8),
        "valid": valid,
    }


def held_bytes(sample: Sample) -> int:
    """Return the memory of a sample's tensors."""
    tensors = [value for value in sample.values() if isinstance(value, Tensor)]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)
