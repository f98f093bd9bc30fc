"""What a run starts from: models, published checkpoints, encoders alone."""

import sys
from pathlib import Path

import pytest
import torch

from geoseg.checkpoint import save_model
from geoseg.config.run import ModelConfig
from geoseg.errors import ModelFileError, WeightsMismatchError
from geoseg.models import create_classifier, create_model
from geoseg.models.weights import adapt_bands
from geoseg.spec import Architecture
from geoseg.train.start import load_start
from tests.conftest import make_spec

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule

FIRST = "encoder.patch_embed1.proj.0.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a stored model of three bands and four classes, and its weights."""
    torch.manual_seed(1)
    network = create_model("segnext_t", num_classes=4)
    path = tmp_path_factory.mktemp("start") / "model.safetensors"
    spec = make_spec(3, 4, architecture=Architecture("segnext_t"))
    return save_model(path, network, spec), network.state_dict()


def started(model, *, in_channels=3, num_classes=4):
    torch.manual_seed(2)
    network = create_model("segnext_t", in_channels=in_channels, num_classes=num_classes)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    note = load_start(network, model)
    return network.state_dict(), before, note


def test_nothing_is_given():
    found, before, note = started(ModelConfig("segnext_t"))
    assert all(torch.equal(found[key], before[key]) for key in found)
    assert note == ""


def test_a_whole_model(saved):
    path, stored = saved
    found, _, note = started(ModelConfig("segnext_t", weights=str(path)))
    assert all(torch.equal(found[key], stored[key]) for key in found)
    assert note == ""


def test_other_classes_get_a_new_last_layer(saved, caplog):
    path, stored = saved
    with caplog.at_level("INFO"):
        found, before, _ = started(ModelConfig("segnext_t", weights=str(path)), num_classes=7)
    assert "has 4 classes, the data have 7: the last layer starts anew" in caplog.text
    for key, value in found.items():
        source = before if key.startswith("decoder.conv_seg.") else stored
        assert torch.equal(value, source[key]), key


def test_other_bands_repeat_the_first_kernels(saved):
    path, stored = saved
    found, _, note = started(ModelConfig("segnext_t", weights=str(path)), in_channels=5)
    assert torch.equal(found[FIRST], adapt_bands(stored[FIRST], 5))
    assert note == "kernels of 3 bands of model.safetensors repeated for 5"


def test_an_encoder_alone(saved):
    path, stored = saved
    found, before, _ = started(ModelConfig("segnext_t", encoder_weights=str(path)), num_classes=9)
    for key, value in found.items():
        source = stored if key.startswith("encoder.") else before
        assert torch.equal(value, source[key]), key


def test_the_encoder_of_a_classifier(tmp_path):
    classifier = create_classifier("segnext_t", 10)
    spec = make_spec(3, 10, architecture=Architecture("segnext_t"), task="classification")
    path = save_model(tmp_path / "c.safetensors", classifier, spec)
    found, _, _ = started(ModelConfig("segnext_t", encoder_weights=str(path)))
    for key, value in classifier.state_dict().items():
        if key.startswith("encoder."):
            assert torch.equal(found[key], value), key


def test_a_published_encoder(tmp_path):
    weights = rule.state_dict("mscan_t_encoder")
    torch.save({"state_dict": weights}, tmp_path / "mscan_t.pth")
    model = ModelConfig("segnext_t", encoder_weights=str(tmp_path / "mscan_t.pth"))
    found, _, _ = started(model)
    assert torch.equal(found[FIRST], weights["patch_embed1.proj.0.weight"])


def test_another_network(saved, tmp_path):
    path, _ = saved
    with pytest.raises(WeightsMismatchError, match="of the same network and size"):
        load_start(
            create_model("segnext_s", num_classes=4), ModelConfig("segnext_s", weights=str(path))
        )
    with pytest.raises(ModelFileError, match="does not exist"):
        started(ModelConfig("segnext_t", encoder_weights=str(tmp_path / "none.pth")))
