"""Calibration: what is known of a made-up model comes out, and temperatures are stored."""

import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as peer

from geoseg.checkpoint import load_model, read_spec
from geoseg.errors import UsageError
from geoseg.evaluate.calibration import (
    PixelSample,
    calibrate,
    expected_error,
    fit_temperature,
    mean_nll,
    probabilities,
    reliability,
    store_temperature,
)
from geoseg.model_files import find_model
from tests.conftest import levels_model


def sample_of(temperature, *, pixels=20_000, classes=3, seed=0):
    """Return logits of a model whose confidences are too high by a temperature, and targets."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((pixels, 1, classes), generator=generator)
    targets = torch.multinomial(logits[:, 0].softmax(dim=1), 1, generator=generator)[:, 0]
    return logits * temperature, targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_a_made_up_model_is_found(temperature):
    logits, targets = sample_of(temperature)
    assert fit_temperature(logits, targets) == pytest.approx(temperature, rel=0.05)


def test_the_fit_is_the_optimum_that_lbfgs_finds():
    logits, targets = sample_of(2.0)
    log_t = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits[:, 0] / log_t.exp(), targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, targets) == pytest.approx(float(log_t.detach().exp()), rel=1e-3)


def test_the_calibration_error_equals_torchmetrics():
    logits, targets = sample_of(3.0)
    probs = probabilities(logits, 1.0)
    expected = peer.multiclass_calibration_error(probs, targets, num_classes=3, n_bins=15)
    assert expected_error(reliability(probs, targets)) == pytest.approx(float(expected), abs=1e-5)


def test_calibration_says_what_the_temperature_gains():
    logits, targets = sample_of(3.0)
    found = calibrate(logits, targets, 1.0)
    assert found.nll == pytest.approx(mean_nll(probabilities(logits, 1.0), targets))
    assert found.ece > 0.1
    assert found.ece_after < 0.02
    assert found.nll_after < found.nll
    assert sum(b.count for b in found.bins) == found.pixels == 20_000
    assert (found.bins[0].lower, found.bins[-1].upper, len(found.bins)) == (0.0, 1.0, 15)
    assert math.isnan(found.bins[0].accuracy)  # the greatest of three cannot be below a third
    assert found.note == ""


def test_a_temperature_that_is_at_work_is_counted_in():
    logits, targets = sample_of(3.0)
    found = calibrate(logits, targets, 3.0)
    assert found.best_temperature == pytest.approx(3.0, rel=0.05)
    assert found.ece < 0.02


def test_a_map_without_errors_has_no_best_temperature():
    logits = torch.tensor([[[4.0, 0.0]]]).repeat(2000, 1, 1)
    found = calibrate(logits, torch.zeros(2000, dtype=torch.int64), 1.0)
    assert "no optimum between the temperatures 0.05 and 20" in found.note


def test_few_pixels_are_said():
    found = calibrate(*sample_of(2.0, pixels=50), 1.0)
    assert found.note == "only 50 pixels: the temperature is not worth storing"
    assert calibrate(torch.zeros((0, 1, 3)), torch.zeros(0, dtype=torch.int64), 1.0) is None


def test_views_are_averaged_as_probabilities():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])
    probs = probabilities(logits, 2.0)
    expected = (torch.softmax(logits[0, 0] / 2, 0) + torch.softmax(logits[0, 1] / 2, 0)) / 2
    assert torch.allclose(probs[0], expected)


def test_the_sample_is_uniform_bounded_and_the_same_each_time():
    def draw():
        sample = PixelSample(2)
        sample.limit = 500
        for block in range(20):
            values = torch.arange(400.0).view(1, 20, 20) + 400 * block
            targets = torch.full((20, 20), block % 2)
            sample.add(torch.cat([values, -values]), targets, torch.ones(20, 20, dtype=torch.bool))
        return sample.result()

    logits, targets = draw()
    assert logits.shape == (500, 1, 2)
    blocks = np.bincount((logits[:, 0, 0] / 400).long().numpy(), minlength=20)
    assert blocks.min() > 8
    assert blocks.max() < 50
    assert torch.equal((logits[:, 0, 0] / 400).long() % 2, targets)
    assert torch.equal(draw()[0], logits)


def test_only_known_pixels_are_drawn():
    sample = PixelSample(2, views=2)
    known = torch.zeros(3, 3, dtype=torch.bool)
    sample.add(torch.zeros(4, 3, 3), torch.zeros(3, 3), known)
    known[1, 2] = True
    logits = torch.arange(36.0).view(4, 3, 3)
    sample.add(logits, torch.arange(9).view(3, 3), known)
    found, targets = sample.result()
    assert found.tolist() == [[[5.0, 14.0], [23.0, 32.0]]]
    assert targets.tolist() == [5]


def test_a_stored_temperature_changes_the_record_and_nothing_else(tmp_path):
    source = find_model("demo-buildings-banepa-segnext_t")
    out = store_temperature(str(source), 1.7, tmp_path / "warm.safetensors")
    assert read_spec(out).temperature == 1.7
    assert abs(out.stat().st_size - source.stat().st_size) < 200
    before, after = (load_model(p).network.state_dict() for p in (source, out))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_temperature_is_stored_for_a_network_made_in_python(tmp_path):
    out = store_temperature(levels_model(), 2.0, tmp_path / "a.safetensors")
    assert read_spec(out).temperature == 2.0


def test_a_model_without_a_record_of_its_own_takes_no_temperature(tmp_path):
    with pytest.raises(UsageError, match=r"expected a .safetensors model.*got 'net.onnx'") as e:
        store_temperature("net.onnx", 2.0, tmp_path / "a.safetensors")
    assert "Leave --store-temperature away" in str(e.value)
