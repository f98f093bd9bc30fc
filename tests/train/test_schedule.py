"""Learning rates, parameter groups and drop path are those of the published runs."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from geoseg.config.run import OptimConfig
from geoseg.models import create_model
from geoseg.models.layers import DropPath
from geoseg.models.weights import official_layout
from geoseg.train.schedule import build_optimizer, freeze_encoder, lr_factor, parameter_groups

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule


def test_published_rates():
    rows = rule.load("protocol/lr_schedule.json")
    assert len(rows) > 20
    for row in rows:
        optim = OptimConfig(lr=row["base_lr"])
        lr = optim.lr * lr_factor(row["iter"], row["max_iters"], optim)
        assert lr == pytest.approx(row["lr"], rel=1e-9), row


def test_the_optimiser_takes_these_rates():
    optim = OptimConfig(lr=1e-3, warmup_steps=3)
    groups = parameter_groups(Small(), optim)
    optimizer, schedule = build_optimizer(groups, optim, 10)
    for step in range(10):
        for group in optimizer.param_groups:
            factor = 10 if group["name"].startswith("decoder") else 1
            assert group["lr"] == pytest.approx(1e-3 * factor * lr_factor(step, 10, optim))
        optimizer.step()
        schedule.step()


def test_cosine_ends_at_its_least_rate():
    optim = OptimConfig(lr=1e-3, schedule="cosine", min_lr=1e-5, warmup_steps=0)
    found = [1e-3 * lr_factor(step, 100, optim) for step in (0, 50, 100)]
    assert found == pytest.approx([1e-3, (1e-3 + 1e-5) / 2, 1e-5])


def test_constant_rises_once():
    optim = OptimConfig(schedule="constant", warmup_steps=10, warmup_ratio=0.1)
    assert [lr_factor(step, 100, optim) for step in (0, 5, 10, 99)] == pytest.approx(
        [0.1, 0.55, 1.0, 1.0]
    )


@pytest.mark.parametrize("name", ["segnext_t", "segman_t", "segman_b"])
def test_published_groups(name):
    network = create_model(name, num_classes=150)
    optim = OptimConfig()
    of_parameter = {
        id(parameter): (group["lr"] / optim.lr, group["weight_decay"])
        for group in parameter_groups(network, optim)
        for parameter in group["params"]
    }
    found = {key: of_parameter[id(p)] for key, p in network.named_parameters()}
    expected = {
        next(iter(official_layout({key: torch.zeros(1)}))): tuple(values)
        for key, values in rule.load(f"protocol/param_groups_{name}.json").items()
    }
    assert found.keys() == expected.keys()
    for key, (factor, decay) in expected.items():
        assert found[key] == (pytest.approx(factor), decay), key


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.decoder = nn.Conv2d(4, 2, 1)


def test_vectors_may_be_spared():
    groups = parameter_groups(Small(), OptimConfig(no_decay="vectors"))
    decays = {group["weight_decay"]: [p.ndim for p in group["params"]] for group in groups[:2]}
    assert set(decays) == {0.0, 0.01}
    assert set(decays[0.0]) == {1}
    assert min(p.ndim for g in groups if g["weight_decay"] > 0 for p in g["params"]) > 1


def test_a_frozen_encoder_is_in_no_group():
    network = Small()
    freeze_encoder(network)
    groups = parameter_groups(network, OptimConfig(encoder_lr_factor=0.0))
    assert [group["name"] for group in groups] == ["decoder"]


@pytest.mark.parametrize("case", rule.load("protocol/drop_path.json"))
def test_published_drop_path(case):
    encoder, size, rate = case.split("_")
    name = {"mscan": "segnext", "segman": "segman"}[encoder]
    with torch.device("meta"):
        network = create_model(f"{name}_{size}", num_classes=2, drop_path=float(rate))
    found = [m.rate for m in network.encoder.modules() if isinstance(m, DropPath)]
    expected = rule.load("protocol/drop_path.json")[case]
    assert found == pytest.approx(expected, rel=1e-6)
