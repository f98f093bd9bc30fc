"""The data of a run: splits, statistics and loaders."""

import math
from dataclasses import replace
from typing import Literal

from torch.utils.data import DataLoader

from geoseg.config.run import RunConfig
from geoseg.data.augment import RandomTransform, make_transform
from geoseg.data.build import build_split
from geoseg.data.decoded import DecodedDataset, keep_decoded
from geoseg.data.loaders import StreamDataModule
from geoseg.data.sample import Batch, Split
from geoseg.data.statistics import band_statistics, class_counts
from geoseg.errors import InputError
from geoseg.spec import ClassSpec


class SegmentationDataModule(StreamDataModule):
    """Splits and loaders of a run, in every process the same.

    Attributes:
        plain_split: training samples as they are on disk.
        train_split: augmented ones.
        val_split: as they are; None where nothing is held out.
        classes: channel k is ``classes[k]``.
        bands: names.
        dtype: of the image files.
        mean: per band, given or computed.
        std: likewise.
        batch_size: per process.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.patch_px = patch_px(config)
        plain = self.build("train")
        assert plain is not None
        self.plain_split = plain
        self.classes: tuple[ClassSpec, ...] = plain.classes
        self.bands: tuple[str, ...] = plain.bands
        self.dtype: str = plain.dtype
        self.mean, self.std = self._statistics()
        transform = make_transform(config.augment, seed=config.seed, dtype=self.dtype, std=self.std)
        size = config.trainer.batch_size
        super().__init__(
            self._augmented(plain, transform),
            self.build("val"),
            batch_size=1 if size == "auto" else size,
            seed=config.seed,
            accumulate=config.trainer.accumulate,
            workers=config.trainer.workers,
            restart=transform.restart,
        )

    def build(self, name: Literal["train", "val", "test"]) -> Split | None:
        """Return a split as it is on disk; None where no validation is asked for."""
        data = self.config.data
        own_files = data.kind in {"folder", "raster"} and data.val is None
        if name == "val" and own_files and data.split.val_share == 0:
            return None
        side_px = self.patch_px if name == "train" else self.config.evaluation.crop_px
        split = build_split(data, name, patch_px=side_px, seed=self.config.seed)
        return keep_decoded(split, data.cache_gb * 1e9)

    def _augmented(self, plain: Split, transform: RandomTransform) -> Split:
        """Return the training split with its random changes."""
        if isinstance(plain.dataset, DecodedDataset):
            return replace(plain, dataset=plain.dataset.with_transform(transform))
        return build_split(
            self.config.data,
            "train",
            transform=transform,
            patch_px=self.patch_px,
            seed=self.config.seed,
        )

    def class_counts(self) -> list[int]:
        """Return the labelled pixels of each class in the training split."""
        return [int(n) for n in class_counts(self.plain_split)]

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return this process's share of the test images, one by one."""
        split = self.build("test")
        assert split is not None
        return self.each_once(split)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        data = self.config.data
        mean, std = data.mean, data.std
        if mean is None or std is None:
            means, stds = band_statistics(self.plain_split)
            mean = mean or tuple(round(float(m), 4) for m in means)
            std = std or tuple(round(float(s), 4) for s in stds)
        if not len(mean) == len(std) == len(self.bands):
            raise InputError(
                f"data: expected a mean and std for each of the {len(self.bands)} bands "
                f"({', '.join(self.bands)}); got {len(mean)} and {len(std)}."
            )
        return mean, std


def patch_px(config: RunConfig) -> int:
    """Return the side of what is read from rasters for a training crop.

    A crop that is scaled down covers more ground than its own side.
    """
    augment = config.augment
    smallest = 1.0 if augment.kind == "none" else min(1.0, augment.scale[0])
    return math.ceil(augment.crop_px / smallest)
