"""A fused convolution answers what the plain operations answer, and steps aside where it must."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from geoseg.models import create_model, layers
from geoseg.models.fused import can_fuse, conv_add, conv_gelu, conv_mul, fused_dtypes

CONVOLUTIONS = {
    "1x1": lambda: nn.Conv2d(24, 24, 1),
    "depthwise": lambda: nn.Conv2d(24, 24, 3, padding=1, groups=24),
    "strip": lambda: nn.Conv2d(24, 24, (1, 11), padding=(0, 5), groups=24),
}


def plain(operation, conv, x, other):
    made = conv(x)
    return {"gelu": F.gelu(made), "add": made + other, "mul": made * other}[operation]


def fused(operation, conv, x, other):
    if operation == "gelu":
        return conv_gelu(conv, x)
    return {"add": conv_add, "mul": conv_mul}[operation](conv, x, other)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("operation", ["gelu", "add", "mul"])
@pytest.mark.parametrize("batch", [1, 2])
def test_fused_equals_plain(kind, operation, batch):
    torch.manual_seed(0)
    conv = CONVOLUTIONS[kind]().to(memory_format=torch.channels_last)
    x, other = (
        torch.randn(batch, 24, 19, 33).to(memory_format=torch.channels_last) for _ in range(2)
    )
    with torch.inference_mode():
        expected, found = (f(operation, conv, x, other) for f in (plain, fused))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_it_steps_aside():
    x = torch.randn(1, 24, 8, 8).to(memory_format=torch.channels_last)
    assert not can_fuse(x)  # gradients
    with torch.no_grad():
        assert can_fuse(x) == bool(fused_dtypes())
        assert not can_fuse(x.contiguous())
        assert not can_fuse(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not can_fuse(x)


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@torch.no_grad()
def test_what_others_did_to_a_convolution_counts():
    torch.manual_seed(0)
    x = torch.randn(1, 24, 8, 8).to(memory_format=torch.channels_last)
    other, seen = torch.randn_like(x), []
    hooked, normed, pruned = (nn.Conv2d(24, 24, 1) for _ in range(3))
    hooked.register_forward_hook(lambda module, given, made: seen.append(made))
    normed = nn.utils.parametrizations.weight_norm(normed)
    normed.parametrizations.weight.original0.mul_(3)
    prune.random_unstructured(pruned, "weight", amount=0.5)
    for conv in (hooked, normed, pruned, Doubled(24, 24, 1)):
        for operation in ("gelu", "add", "mul"):
            expected = plain(operation, conv, x, other)
            assert torch.equal(fused(operation, conv, x, other), expected)
    assert len(seen) == 6


@torch.no_grad()
@pytest.mark.parametrize("name", ["segnext_t", "segman_t"])
def test_hooks_see_what_they_see_with_gradients(name):
    torch.manual_seed(0)
    network = create_model(name, num_classes=3).eval()
    image, seen = torch.randn(1, 3, 224, 224), {}
    for path, module in network.named_modules():
        module.register_forward_hook(
            lambda _, given, made, path=path: (
                seen.setdefault(path, []).append(made) if isinstance(made, torch.Tensor) else None
            )
        )
    network(image)
    without, seen = seen, {}
    with torch.enable_grad():
        network(image)
    assert without.keys() == seen.keys()
    for path, made in seen.items():
        for one, other in zip(without[path], made, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-4), path


def test_bfloat16_rounds_less_often():
    if torch.bfloat16 not in fused_dtypes():
        pytest.skip("this CPU has no fused bfloat16 convolutions")
    torch.manual_seed(0)
    conv = CONVOLUTIONS["depthwise"]().to(memory_format=torch.channels_last)
    x = torch.randn(1, 24, 19, 33).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        exact = F.gelu(conv(x))
        rough = conv.bfloat16()
        found = conv_gelu(rough, x.bfloat16()).float()
        twice = F.gelu(rough(x.bfloat16())).float()
    assert (found - exact).abs().mean() <= (twice - exact).abs().mean()


def test_the_network_answers_the_same_with_and_without(monkeypatch):
    torch.manual_seed(0)
    network = create_model("segnext_t", num_classes=3).eval()
    image = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        with_fusion = network(image)
        monkeypatch.setattr("geoseg.models.fused.can_fuse", lambda *_: False)
        without = network(image)
    assert torch.allclose(with_fusion, without, rtol=0, atol=2e-5 * max(1.0, float(without.std())))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("height", [37, 64])
def test_an_mlp_in_strips_equals_the_whole(monkeypatch, batch, height):
    torch.manual_seed(0)
    mlp = layers.ConvMlp(8, 64).eval().to(memory_format=torch.channels_last)
    x = torch.randn(batch, 8, height, 40).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        whole = mlp(x)
        for strips in (2, 5, height):
            monkeypatch.setattr(layers, "STRIP_BYTES", 64 * height * 40 * 4 / strips)
            assert torch.allclose(mlp(x), whole, rtol=1e-5, atol=1e-6)
