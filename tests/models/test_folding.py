"""A network folded for inference answers what it answered before."""

import copy

import pytest
import torch
from torch import nn

from geoseg.models import create_model
from geoseg.models.folding import fold_for_inference
from geoseg.models.layers import KeepsFloat32
from geoseg.models.segman_layers import LayerScale

SIZES = ((224, 256), (256, 320))


def network_with_statistics(name):
    """Return a network whose norms and scales are far from doing nothing."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, LayerScale):
            nn.init.uniform_(module.weight, -0.1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
    return network.eval()


def marked(names, slow):
    return [pytest.param(n, marks=[pytest.mark.slow] if n in slow else []) for n in names]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name",
    marked(
        ["segnext_t", "segnext_b", "segman_t", "segman_s", "segman_b", "segman_l"],
        {"segman_b", "segman_l"},
    ),
)
def test_logits_are_the_same(name, size):
    network = network_with_statistics(name)
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        expected, found = network(image), fold_for_inference(network)(image)
    assert found.shape == (1, 7, *size)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_a_batch_is_folded_image_by_image():
    network = network_with_statistics("segman_t")
    image = torch.randn(3, 3, 224, 224)
    with torch.inference_mode():
        expected, found = network(image), fold_for_inference(network)(image)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_the_network_itself_is_left_alone():
    network = network_with_statistics("segman_t").train()
    before = copy.deepcopy(network.state_dict())
    folded = fold_for_inference(network)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert network.training
    assert not folded.training


def test_no_norm_of_segman_is_left():
    folded = fold_for_inference(create_model("segman_b", num_classes=2))
    left = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d | LayerScale)]
    assert left == []


def test_training_mode_is_refused():
    folded = fold_for_inference(create_model("segman_t", num_classes=2))
    assert folded.eval() is folded
    with pytest.raises(ValueError, match="expected eval mode .* got training mode"):
        folded.train()


def test_it_keeps_the_networks_names_and_type():
    folded = fold_for_inference(create_model("segman_t", num_classes=3).bfloat16())
    assert (folded.name, folded.num_classes, folded.in_channels) == ("segman_t", 3, 3)
    kept = {p for m in folded.modules() if isinstance(m, KeepsFloat32) for p in m.parameters()}
    assert {p.dtype for p in folded.parameters() if p not in kept} == {torch.bfloat16}
    assert not hasattr(folded, "is_foreign")
    copied = copy.deepcopy(folded)
    assert copied.name == "segman_t"
