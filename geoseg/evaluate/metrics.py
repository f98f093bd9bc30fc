"""Scores of a segmentation from one confusion matrix over the whole set: macro, never micro."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.data.sample import IGNORE

BACKGROUND = "background"

Counts = NDArray[np.int64]


class ConfusionMatrix:
    """Pixels by target and predicted class, added up over any number of images.

    Args:
        num_classes: K.

    Attributes:
        counts: (K, K) int64, rows are target channels, columns predicted ones. On the device of
            the maps it was last updated with, so that processes can add theirs up.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros((num_classes, num_classes), dtype=torch.int64)

    def update(self, target: Tensor, predicted: Tensor) -> None:
        """Add the pixels of maps of channel indexes; those whose target is IGNORE are left out.

        Args:
            target: any shape, integers 0..K-1 or IGNORE.
            predicted: the same shape, integers 0..K-1.
        """
        self.counts = self.counts.to(target.device)
        self.counts += count_pairs(target, predicted, len(self.counts))

    def reset(self) -> None:
        """Forget all pixels."""
        self.counts = torch.zeros_like(self.counts)


def count_pairs(target: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Return the confusion matrix (K, K) int64 of one pair of maps; see `ConfusionMatrix`."""
    assert target.shape == predicted.shape, (target.shape, predicted.shape)
    known = target != IGNORE
    pairs = target[known].long() * num_classes + predicted[known].long()
    counts = torch.bincount(pairs, minlength=num_classes * num_classes)
    assert len(counts) == num_classes * num_classes, "a channel index is out of range"
    return counts.view(num_classes, num_classes)


def class_scores(counts: Counts | Tensor) -> dict[str, NDArray[np.float64]]:
    """Return scores of each class, each (K,); NaN where a class gives the score no meaning.

    ``iou`` and ``dice`` are NaN for a class that is neither in the targets nor predicted,
    ``accuracy`` (the share of the class that is found: recall) where it is not in the targets,
    ``precision`` where it is never predicted. The F-score with beta 1 is the dice.
    """
    matrix = _matrix(counts)
    hits, targets, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "iou": _ratio(hits, targets + predicted - hits),
        "accuracy": _ratio(hits, targets),
        "precision": _ratio(hits, predicted),
        "dice": _ratio(2 * hits, targets + predicted),
    }


def scores(counts: Counts | Tensor, names: Sequence[str]) -> dict[str, float]:
    """Return the scores of a confusion matrix by name.

    Args:
        counts: (K, K), rows are targets.
        names: of the K classes.

    Returns:
        ``miou``, ``mean_accuracy``, ``mean_precision`` and ``mean_dice``: macro means that skip
        NaN; ``miou_without_background``, ``mean_dice_without_background``: likewise without the
        class called background, absent where there is none; ``accuracy``: share of all pixels;
        and per class ``iou_NAME``, ``accuracy_NAME``, ``precision_NAME``, ``dice_NAME`` with the
        name in lower case and other characters than letters and digits as underscores.
    """
    matrix = _matrix(counts)
    by_class = class_scores(matrix)
    found = {"miou": _mean(by_class["iou"])}
    foreground = np.array([name.strip().lower() != BACKGROUND for name in names])
    if not foreground.all():
        found["miou_without_background"] = _mean(by_class["iou"][foreground])
        found["mean_dice_without_background"] = _mean(by_class["dice"][foreground])
    found["accuracy"] = float(_ratio(np.trace(matrix), matrix.sum()))
    for kind in ("accuracy", "precision", "dice"):
        found[f"mean_{kind}"] = _mean(by_class[kind])
    for kind, values in by_class.items():
        for key, value in zip(class_keys(names), values, strict=True):
            found[f"{kind}_{key}"] = float(value)
    return found


def class_keys(names: Sequence[str]) -> list[str]:
    """Return class names as they occur in the keys of scores, all different."""
    keys: list[str] = []
    for index, name in enumerate(names):
        key = re.sub(r"\W+", "_", name.strip().lower()).strip("_") or str(index)
        keys.append(f"{key}_{index}" if key in keys else key)
    return keys


def _matrix(counts: Counts | Tensor) -> Counts:
    return counts.cpu().numpy() if isinstance(counts, Tensor) else np.asarray(counts)


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.true_divide(part, whole)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
