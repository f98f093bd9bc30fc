"""A fused convolution answers what the plain operations answer, and steps aside where it must."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

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
