"""Losses equal their formulas, written out here once more."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geoseg.config.run import LossConfig
from geoseg.data.sample import IGNORE
from geoseg.errors import UsageError
from geoseg.models import create_model, load_official_weights
from geoseg.train.losses import SegmentationLoss, balanced_weights, cross_entropy

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule


def example(*, classes=4, ignored=0.3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, classes, 6, 7), generator=generator)
    target = torch.randint(0, classes, (2, 6, 7), generator=generator)
    target[torch.rand((2, 6, 7), generator=generator) < ignored] = IGNORE
    return logits, target


def probabilities(logits):
    values = logits.double().numpy()
    values = np.exp(values - values.max(axis=1, keepdims=True))
    return np.moveaxis(values / values.sum(axis=1, keepdims=True), 1, -1)  # (N, H, W, K)


def entropies(logits, target, *, weights=None, smoothing=0.0):
    """Loss of each labelled pixel, by the definition."""
    logs = np.log(probabilities(logits))
    known = target.numpy() != IGNORE
    labels = target.numpy()[known]
    weights = np.ones(logs.shape[-1]) if weights is None else np.array(weights)
    soft = np.full((len(labels), logs.shape[-1]), smoothing / logs.shape[-1])
    soft[np.arange(len(labels)), labels] += 1 - smoothing
    return -(soft * weights * logs[known]).sum(axis=1)


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_both_divisors(weights, smoothing):
    logits, target = example()
    each = entropies(logits, target, weights=weights, smoothing=smoothing)
    for averaging, divisor in (("all", target.numel()), ("valid", len(each))):
        config = LossConfig(averaging=averaging, label_smoothing=smoothing)
        found = SegmentationLoss(config, weights)(logits, target)
        assert float(found) == pytest.approx(each.sum() / divisor, rel=1e-5)


@pytest.mark.parametrize("model", ["segnext_t", "segman_t"])
def test_published_losses(model):
    case = next(c for c in rule.load("train/manifest.json")["cases"] if c["model"] == model)
    classes = int(case["labels"].split(":")[-1])
    network = create_model(model, num_classes=classes, drop_path=0.0, dropout=0.0).train()
    load_official_weights(network, rule.state_dict(f"{model}_ade20k", num_classes=classes))
    options = {}
    if model == "segnext_t":
        options["bases"] = rule.bases(case.get("nmf", {}).get("bases", "nmf_bases:2x256x16"))
    target = rule.labels(case["labels"])
    with torch.no_grad():
        logits = network(rule.image(case["image"]), **options)
    for over_all, key in ((True, "loss_mmseg_default"), (False, "loss_avg_non_ignore")):
        found = cross_entropy(logits, target, over_all=over_all)
        assert float(found) == pytest.approx(case[key], rel=1e-5)


def test_dice():
    logits, target = example()
    probs, labels = probabilities(logits), target.numpy()
    known = labels != IGNORE
    terms = []
    for k in range(4):
        overlap = (probs[..., k] * (labels == k))[known].sum()
        terms.append(1 - 2 * overlap / (probs[..., k][known].sum() + (labels == k)[known].sum()))
    found = SegmentationLoss(LossConfig(cross_entropy=0, dice=2.0))(logits, target)
    assert float(found) == pytest.approx(2 * np.mean(terms), rel=1e-5)


def test_focal():
    logits, target = example()
    labels = target.numpy()
    known = labels != IGNORE
    terms = []
    for k in range(4):  # one class against all others, gamma 2
        values = logits[:, k].double().numpy()[known]
        is_class = labels[known] == k
        prob = 1 / (1 + np.exp(-np.where(is_class, values, -values)))
        terms.append(((1 - prob) ** 2 * -np.log(prob)).mean())
    found = SegmentationLoss(LossConfig(cross_entropy=0, focal=1.0))(logits, target)
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-4)


def test_lovasz():
    """Berman et al. 2018: the Jaccard index of the errors in falling order, summed by parts."""
    logits, target = example()
    probs, labels = probabilities(logits), target.numpy()
    known = labels != IGNORE
    terms = []
    for k in range(4):
        truth = (labels[known] == k).astype(float)
        errors = np.abs(truth - probs[known][:, k])
        order = np.argsort(-errors)
        before = value = 0.0
        for n in range(1, len(order) + 1):
            chosen = truth[order[:n]]
            jaccard = 1 - (truth.sum() - chosen.sum()) / (truth.sum() + (1 - chosen).sum())
            value += errors[order[n - 1]] * (jaccard - before)
            before = jaccard
        terms.append(value)
    found = SegmentationLoss(LossConfig(cross_entropy=0, lovasz=1.0))(logits, target)
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-5)


def test_losses_add_up():
    logits, target = example()
    parts = [
        SegmentationLoss(LossConfig(**{"cross_entropy": 0.0} | {name: weight}))(logits, target)
        for name, weight in (("cross_entropy", 1.0), ("dice", 0.5), ("lovasz", 2.0))
    ]
    whole = SegmentationLoss(LossConfig(dice=0.5, lovasz=2.0))(logits, target)
    assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-6)


@pytest.mark.parametrize("averaging", ["all", "valid"])
def test_a_batch_without_labels_has_no_loss_and_a_gradient_of_zero(averaging):
    logits, target = example()
    logits.requires_grad_()
    config = LossConfig(averaging=averaging, dice=1.0, focal=1.0, lovasz=1.0)
    loss = SegmentationLoss(config)(logits, torch.full_like(target, IGNORE))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()


def test_no_loss_at_all():
    with pytest.raises(UsageError, match="at least one positive weight among cross_entropy"):
        SegmentationLoss(LossConfig(cross_entropy=0.0))


def test_balanced_weights_count_all_classes_the_same():
    counts = (100, 300, 0, 600)
    weights = balanced_weights(counts)
    assert weights[2] == 1.0
    products = [n * w for n, w in zip(counts, weights, strict=True) if n]
    assert products == pytest.approx([1000 / 3] * 3)
