"""Scores equal the official ones, skip what is ignored, and are macro."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as peer

from geoseg.data.sample import IGNORE
from geoseg.evaluate.metrics import ConfusionMatrix, class_keys, class_scores, scores

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule

CASES = rule.load("protocol/metrics.json")["cases"]


def confusion_of(case):
    confusion = ConfusionMatrix(case["num_classes"])
    for target, predicted in zip(case["gt"], case["pred"], strict=True):
        target = torch.tensor(target)
        if case["reduce_zero_label"]:
            target = torch.where((target == 0) | (target == IGNORE), IGNORE, target - 1)
        confusion.update(target, torch.tensor(predicted))
    return confusion


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["tag"])
def test_scores_equal_the_official_ones(case):
    names = [f"c{i}" for i in range(case["num_classes"])]
    counts = confusion_of(case).counts
    by_class, flat = class_scores(counts), scores(counts, names)
    ours = {
        "aAcc": flat["accuracy"],
        "IoU": by_class["iou"],
        "Acc": by_class["accuracy"],
        "Recall": by_class["accuracy"],
        "Precision": by_class["precision"],
        "Dice": by_class["dice"],
        "Fscore": by_class["dice"],
    }
    compared = 0
    for group in case["metrics"].values():
        for name, expected in group.items():
            expected = np.array(expected, dtype=np.float64)  # null becomes NaN
            np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-9)
            compared += 1
    assert compared >= 6
    assert flat["miou"] == pytest.approx(np.nanmean(by_class["iou"]), abs=1e-12)
    assert flat["iou_c1"] == by_class["iou"][1]


def test_scores_equal_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 5, (2, 40, 30), generator=generator)
    predicted = torch.where(torch.rand(target.shape, generator=generator) < 0.6, target, 4 - target)
    target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORE
    confusion = ConfusionMatrix(5)
    confusion.update(target, predicted)
    flat = scores(confusion.counts, list("abcde"))
    options = {"num_classes": 5, "ignore_index": IGNORE}
    assert torch.equal(
        confusion.counts, peer.multiclass_confusion_matrix(predicted, target, **options)
    )
    iou = peer.multiclass_jaccard_index(predicted, target, average="macro", **options)
    assert flat["miou"] == pytest.approx(float(iou), abs=1e-6)
    micro = peer.multiclass_accuracy(predicted, target, average="micro", **options)
    assert flat["accuracy"] == pytest.approx(float(micro), abs=1e-6)
    macro = peer.multiclass_precision(predicted, target, average="macro", **options)
    assert flat["mean_precision"] == pytest.approx(float(macro), abs=1e-6)


def test_the_background_is_left_out_of_one_of_the_means():
    counts = np.array([[90, 10, 0], [5, 5, 0], [0, 0, 20]])
    found = scores(counts, ["Background", "house", "water"])
    iou = [90 / 105, 5 / 20, 1.0]
    assert found["miou"] == pytest.approx(sum(iou) / 3)
    assert found["miou_without_background"] == pytest.approx(sum(iou[1:]) / 2)
    assert "miou_without_background" not in scores(counts, ["a", "b", "c"])


def test_a_class_that_never_occurs_is_skipped():
    counts = np.array([[3, 0, 0], [1, 0, 0], [0, 0, 0]])
    found = scores(counts, ["a", "b", "c"])
    assert math.isnan(found["iou_c"])
    assert found["miou"] == pytest.approx((3 / 4 + 0) / 2)
    assert math.isnan(found["precision_b"])
    assert found["mean_accuracy"] == pytest.approx(0.5)


def test_no_pixels_give_nan_and_no_warning():
    found = scores(np.zeros((2, 2), np.int64), ["a", "b"])
    assert math.isnan(found["miou"])
    assert math.isnan(found["accuracy"])


def test_ignored_pixels_count_nowhere_even_with_a_prediction_that_is_none():
    confusion = ConfusionMatrix(2)
    confusion.update(torch.tensor([0, IGNORE, 1]), torch.tensor([0, 255, 0]))
    assert confusion.counts.tolist() == [[1, 0], [1, 0]]
    confusion.reset()
    assert confusion.counts.sum() == 0


def test_class_keys_are_plain_and_differ():
    assert class_keys(["Low Vegetation", "low-vegetation", "é", "?"]) == [
        "low_vegetation",
        "low_vegetation_1",
        "é",
        "3",
    ]
