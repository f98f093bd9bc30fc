"""Whole and sliding inference equal the official ones."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geoseg.config.run import EvaluationConfig
from geoseg.errors import UsageError
from geoseg.evaluate import infer_benchmark, infer_slide, infer_whole, slide_windows
from geoseg.evaluate.protocol import plan_size
from geoseg.models import from_official
from geoseg.segmenter import Segmenter
from geoseg.spec import TileSpec
from tests.conftest import make_spec, small_conv

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


class WithBases(nn.Module):
    """SegNeXt with the bases of the golden cases."""

    def __init__(self, network, bases):
        super().__init__()
        self.network = network
        self.bases = bases

    def forward(self, x):
        return self.network(x) if self.bases is None else self.network(x, bases=self.bases)


def golden_segmenter(name):
    bases = rule.bases("nmf_bases:1x256x16") if name == "segnext_t" else None
    spec = make_spec(3, 19, tile=TileSpec(64, 16, min_px=1))
    return Segmenter(WithBases(network_of(name), bases), spec).eval()


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c["image"].endswith("x".join(map(str, c["ori_hw"])))],
    ids=lambda c: c["name"],
)
def test_a_benchmark_run_equals_the_official_one(case):
    name = "_".join(case["name"].split("_")[:2])
    stored = rule.arrays(case["file"])
    test = case["test_cfg"]
    evaluation = EvaluationConfig(
        mode=test["mode"],
        crop_px=test.get("crop_size", [64])[0],
        stride_px=test.get("stride", [48])[0],
        flip=bool(case["flip"]),
    )
    image = rule.image(case["image"])[0]
    probs = infer_benchmark(golden_segmenter(name), image, None, evaluation)
    kind = "prob_mean_of_two" if case["flip"] else "prob"
    assert probs.shape == (19, *case["ori_hw"])
    assert rule.error(probs[None], stored, kind) <= 1e-5


@pytest.mark.parametrize("case", rule.load("protocol/resize_sizes.json"))
def test_sizes_equal_the_official_ones(case):
    for base, expected in case.items():
        if base == "in_hw":
            continue
        evaluation = EvaluationConfig(
            base_size_px=tuple(int(n) for n in base.split("x")), multiple_px=32
        )
        kept, aligned = plan_size(*case["in_hw"], evaluation)
        assert list(kept) == expected["keep_ratio_hw"]
        assert list(aligned) == expected["multiple32_hw"]
        assert list(plan_size(*kept, evaluation)[0]) == expected["rescaled_twice_hw"]


def test_ratios_and_mirroring_average_the_probabilities_of_each_view():
    network = small_conv(3, 4)
    segmenter = Segmenter(network, make_spec(3, 4)).eval()
    image = torch.rand(3, 20, 30)
    views = []
    for ratio in (0.5, 1.5):
        view = F.interpolate(image[None], size=(int(20 * ratio), int(30 * ratio)), mode="bilinear")
        for mirror in (False, True):
            logits = infer_whole(network, view.flip(-1) if mirror else view, size=(20, 30))
            probs = logits.softmax(dim=1)[0]
            views.append(probs.flip(-1) if mirror else probs)
    evaluation = EvaluationConfig(ratios=(0.5, 1.5), flip=True)
    probs = infer_benchmark(segmenter, image, None, evaluation)
    assert torch.allclose(probs, torch.stack(views).mean(dim=0), atol=1e-6)
    assert torch.allclose(probs.sum(dim=0), torch.ones(20, 30), atol=1e-5)


def test_what_lies_under_invalid_pixels_reaches_no_other():
    segmenter = Segmenter(small_conv(3, 4), make_spec(3, 4, mean=3.0, std=2.0)).eval()
    image, valid = torch.rand(3, 20, 30), torch.ones(20, 30, dtype=torch.bool)
    valid[:, :8] = False
    broken = image.clone()
    broken[:, :, :8] = float("nan")
    evaluation = EvaluationConfig(base_size_px=(45, 30), multiple_px=4)
    probs = infer_benchmark(segmenter, image, valid, evaluation)
    assert torch.equal(probs, infer_benchmark(segmenter, broken, valid, evaluation))
