"""Crops of images without labels, drawn evenly over the ground that they show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from geoseg.config.pretrain import MaskingConfig, UnlabelledConfig
from geoseg.config.run import AugmentConfig
from geoseg.data.augment import make_transform
from geoseg.data.build import COLORS
from geoseg.data.chips import Chip, ImageRule, choose_bands, describe_image, read_image
from geoseg.data.folder import list_files
from geoseg.data.sample import IGNORE, Sample, Split
from geoseg.data.statistics import band_statistics
from geoseg.data.stream import mix
from geoseg.errors import InputError
from geoseg.types import Window

MOST_STATISTICS_CROPS = 500


class UnlabelledCrops(Dataset[Sample]):
    """Random crops; item k of n lies where the k-th n-th of all pixels does.

    Args:
        chips: files; all of each is used.
        rule: how they are read.
        augment: of a window to a crop.
        seed: of the draws.
        std: per band, the unit of the radiometric jitter; None: there is none.
        count: crops in a pass; None: as many as cover the images once.
        fixed: whether item k is the same crop whenever it is asked for.
    """

    def __init__(
        self,
        chips: Sequence[Chip],
        rule: ImageRule,
        augment: AugmentConfig,
        *,
        seed: int,
        std: Sequence[float] | None = None,
        count: int | None = None,
        fixed: bool = False,
    ) -> None:
        self.rule = rule
        # A crop that is scaled down covers more ground than its own side.
        smallest = 1.0 if augment.kind == "none" else min(1.0, augment.scale[0])
        self.side_px = math.ceil(augment.crop_px / smallest)
        self.transform = make_transform(augment, seed=seed, dtype=rule.dtype, std=std)
        self.seed = seed
        self.fixed = fixed
        self.pictures = tuple((chip, *_size(chip, rule)) for chip in chips)
        self._ends = np.cumsum([height * width for _, height, width in self.pictures])
        self.count = count or math.ceil(int(self._ends[-1]) / augment.crop_px**2)
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        """Return the number of crops in a pass."""
        return self.count

    def restart(self, position: int) -> None:
        """Let draws begin as they do at this position in every run of the seed."""
        self._rng = np.random.default_rng(mix(self.seed, position))
        self.transform.restart(position)

    def __getitem__(self, index: int) -> Sample:
        """Return a crop: ``image`` (C, crop, crop) and ``valid`` (crop, crop).

        Raises:
            InputError: a file cannot be read.
        """
        if self.fixed:
            self.restart(index)
        place = (index + self._rng.random()) / self.count * self._ends[-1]
        values, valid = read_image(self._draw_window(place), self.rule)
        sample = self.transform(
            {
                "image": torch.from_numpy(values.astype(np.float32, copy=False)),
                "mask": torch.full(valid.shape, IGNORE),
                "valid": torch.from_numpy(valid),
            }
        )
        return {"image": sample["image"], "valid": sample["valid"]}

    def _draw_window(self, place: float) -> Chip:
        """Return a window of the file that holds the pixel ``place`` of all."""
        chip, height, width = self.pictures[int(np.searchsorted(self._ends, place, "right"))]
        rows, cols = min(self.side_px, height), min(self.side_px, width)
        row = int(self._rng.integers(height - rows + 1))
        col = int(self._rng.integers(width - cols + 1))
        return replace(chip, window=Window(row, col, rows, cols))


@dataclass(frozen=True)
class Unlabelled:
    """The crops of a run.

    Attributes:
        train: augmented.
        val: of other files, the same at every validation; None: none are held out.
        bands: names.
        mean: per band.
        std: per band.
    """

    train: UnlabelledCrops
    val: UnlabelledCrops | None
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def unlabelled_crops(data: UnlabelledConfig, masking: MaskingConfig, *, seed: int) -> Unlabelled:
    """Return the crops to train and to validate on, which come from different files.

    Raises:
        InputError: no files, too few to hold one out, or files that differ in bands or data type.
    """
    items = (data.images,) if isinstance(data.images, str) else data.images
    chips = [Chip(n, str(path), "") for n, path in list_files(items, "data.images").items()]
    rule = _image_rule(data, chips[0])
    bands = data.band_names or _usual_names(rule.count or 0)
    train, held_out = _divide(chips, data.val_share, seed)
    as_they_are = AugmentConfig(kind="none", crop_px=masking.crop_px)
    mean, std = data.mean, data.std
    if mean is None or std is None:
        plain = UnlabelledCrops(train, rule, as_they_are, seed=mix(seed, 1), fixed=True)
        means, stds = band_statistics(Split(plain, (), bands=bands), MOST_STATISTICS_CROPS)
        mean = mean or tuple(round(m, 4) for m in means)
        std = std or tuple(round(s, 4) for s in stds)
    changed = AugmentConfig(
        kind="remote_sensing",
        crop_px=masking.crop_px,
        scale=masking.scale,
        cat_max_ratio=1.0,  # there are no classes
        jitter=masking.jitter,
    )
    val = None
    if held_out:
        val = UnlabelledCrops(held_out, rule, as_they_are, seed=mix(seed, 2), fixed=True)
    return Unlabelled(
        UnlabelledCrops(train, rule, changed, seed=seed, std=std, count=data.crops_per_epoch),
        val,
        bands,
        mean,
        std,
    )


def _image_rule(data: UnlabelledConfig, first: Chip) -> ImageRule:
    """Return how the images are read; the first one says how many bands there are."""
    rule = ImageRule(data.bands, data.dtype)
    count = len(choose_bands(describe_image(first), rule))
    for what, given in (("band_names", data.band_names), ("mean", data.mean), ("std", data.std)):
        if given is not None and len(given) != count:
            raise InputError(
                f"data.{what}: expected {count} values, one per band; got {len(given)}."
            )
    return replace(rule, count=count)


def _usual_names(count: int) -> tuple[str, ...]:
    return COLORS if count == 3 else tuple(f"band{i}" for i in range(1, count + 1))


def _size(chip: Chip, rule: ImageRule) -> tuple[int, int]:
    """Return height and width of a file, which must be like the others."""
    info = describe_image(chip)
    choose_bands(info, rule)
    return info.height, info.width


def _divide(chips: Sequence[Chip], val_share: float, seed: int) -> tuple[list[Chip], list[Chip]]:
    """Return the files to train on, and those held out."""
    count = max(1, round(val_share * len(chips))) if val_share > 0 else 0
    if count >= len(chips):
        raise InputError(
            f"data.images: {len(chips)} file(s) cannot be divided into train and {count} for "
            "validation. Give more files, a smaller data.val_share, or 0 for no validation."
        )
    drawn = set(np.random.default_rng(seed).permutation(len(chips))[:count].tolist())
    return (
        [chip for i, chip in enumerate(chips) if i not in drawn],
        [chip for i, chip in enumerate(chips) if i in drawn],
    )
