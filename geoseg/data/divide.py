"""Divides one list of chips into splits, subsets and halves, by place where asked."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from geoseg.config.run import SplitConfig
from geoseg.data.chips import Chip, scenes_of
from geoseg.errors import InputError, UsageError

SplitName = Literal["train", "val", "test"]


def choose_subset(chips: Sequence[Chip], share: float, seed: int) -> tuple[Chip, ...]:
    """Return a share of the chips, drawn without replacement.

    The draw is that of the published recipes: NumPy's legacy generator, rounded down.

    Raises:
        InputError: the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise InputError(f"data.subset: expected a share above 0 and at most 1; got {share:g}.")
    if share == 1:
        return tuple(chips)
    count = max(1, int(len(chips) * share))
    drawn = _legacy_generator(seed).choice(len(chips), count, replace=False)
    return tuple(chips[i] for i in sorted(drawn))


def halve(chips: Sequence[Chip], split: SplitName, seed: int) -> tuple[Chip, ...]:
    """Return the half of an official validation split that is ``val`` or ``test``."""
    order = _legacy_generator(seed).permutation(len(chips))
    middle = len(chips) // 2
    half = order[:middle] if split == "val" else order[middle:]
    return tuple(chips[i] for i in sorted(half))


def divide(
    chips: Sequence[Chip], by: SplitConfig, split: SplitName, *, has_test: bool = False
) -> tuple[Chip, ...]:
    """Return the part of one set that is a split; scenes stay whole unless ``by`` says chips.

    Args:
        chips: of the whole set.
        by: how to divide.
        split: which part.
        has_test: whether the test has files of its own, so that none is held out for it.

    Raises:
        InputError: shares that leave nothing, or too few scenes.
        UsageError: division by cells, which pairs of files without georeference do not have.
    """
    if by.by == "cell":
        raise UsageError(
            "data.split.by: cell needs georeferenced scenes (data.kind: raster); for pairs of "
            "files give scene or chip."
        )
    groups = scenes_of(chips) if by.by == "scene" else [(chip.name, [chip]) for chip in chips]
    order = np.random.default_rng(by.seed).permutation(len(groups))
    num_val = held_out(by.val_share, len(groups))
    num_test = 0 if has_test else held_out(by.test_share, len(groups))
    if num_val + num_test >= len(groups):
        raise InputError(
            f"data.split: {len(groups)} {by.by}(s) cannot be divided into train, {num_val} for val "
            f"and {num_test} for test. Give more data, smaller shares, or data.val of its own."
        )
    bounds = {"val": (0, num_val), "test": (num_val, num_val + num_test)}
    first, last = bounds.get(split, (num_val + num_test, len(groups)))
    if first == last:
        raise InputError(
            f"data: there are no {split} data. Give data.{split}, or a data.split.{split}_share "
            "above 0."
        )
    chosen = {id(chip) for i in order[first:last] for chip in groups[i][1]}
    return tuple(chip for chip in chips if id(chip) in chosen)


def held_out(share: float, count: int) -> int:
    """Return how many of ``count`` groups a share is; at least one, if it is above 0."""
    return max(1, round(share * count)) if share > 0 else 0


def _legacy_generator(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed)  # the published draws were made with it
