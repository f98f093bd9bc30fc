"""Whole and sliding inference equal the official ones."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geoseg.errors import UsageError
from geoseg.evaluate import infer_slide, infer_whole, slide_windows
from geoseg.models import from_official

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule

CASES = rule.load("inference/manifest.json")["cases"]


@functools.cache
def network_of(name):
    return from_official(rule.state_dict(f"{name}_ade20k", num_classes=19))


@pytest.fixture(scope="module")
def network():
    return network_of("segnext_t")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_logits_and_probabilities_equal_the_official_ones(case):
    name = "_".join(case["name"].split("_")[:2])
    network = network_of(name)
    image, size = rule.image(case["image"]), tuple(case["ori_hw"])
    # Of every window, as the official code draws them with a fixed seed; SegMAN has none.
    tag = case.get("bases", f"nmf_bases:{image.shape[0]}x256x16")
    bases = rule.bases(tag) if name == "segnext_t" else None
    stored = rule.arrays(case["file"])

    def infer(view):
        if case["test_cfg"]["mode"] == "whole":
            return infer_whole(network, view, size=size, bases=bases)
        crop, stride = (tuple(case["test_cfg"][key]) for key in ("crop_size", "stride"))
        return infer_slide(network, view, crop, stride=stride, size=size, bases=bases)

    logits = infer(image.flip(-1) if case["flip"] else image)
    probs = logits.softmax(dim=1)
    if case["flip"]:
        probs = probs.flip(-1)
    std = case["outputs"]["logits"]["std"]
    assert rule.error(logits, stored, "logits") <= 2e-5 * max(1.0, std)
    assert rule.error(probs, stored, "prob") <= 1e-5
    if case["flip"]:
        probs = (probs + infer(image).softmax(dim=1)) / 2
        assert rule.error(probs, stored, "prob_mean_of_two") <= 1e-5
    if "argmax" in stored:
        near_ties = case["outputs"]["share_of_pixels_with_margin_below_1e-4"]
        differ = float((probs.argmax(dim=1).numpy() != stored["argmax"]).mean())
        assert differ <= near_ties


@pytest.mark.parametrize("case", rule.load("protocol/slide_windows.json"))
def test_windows_equal_the_official_ones(case):
    windows = slide_windows(*case["image"], tuple(case["crop"]), tuple(case["stride"]))
    assert [[w.row, w.col, w.row_end, w.col_end] for w in windows] == case["windows"]


def test_an_image_smaller_than_the_crop_is_run_whole(network):
    image = torch.randn(1, 3, 40, 50)
    whole = infer_whole(network, image)
    slid = infer_slide(network, image, (64, 64), stride=(32, 32))
    assert np.array_equal(whole, slid)


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(UsageError, match=r"stride of at most the crop \(64, 64\); got \(65, 64\)"):
        list(slide_windows(100, 100, (64, 64), (65, 64)))
