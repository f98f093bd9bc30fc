"""Gradients of the depthwise convolution beside those of plain torch in float64."""

import copy

import pytest
import torch

from geoseg.models import depthwise
from geoseg.models.depthwise import DepthwiseConv2d

KERNELS = [(1, 7), (7, 1), (1, 21), (21, 1), (5, 5), (3, 3), (3, 7)]


def gradients(layer, x, grad):
    y = layer(x)
    return y, torch.autograd.grad(y, (x, layer.weight, layer.bias), grad)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(2, 8, 13, 18), (1, 4, 3, 40), (1, 1, 1, 1)])
def test_values_and_gradients_equal_float64(kernel, shape):
    torch.manual_seed(0)
    layer = DepthwiseConv2d(shape[1], kernel)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn(shape)
    y, found = gradients(layer, x, grad)
    exact = copy.deepcopy(layer).double()
    wide = x.detach().double().requires_grad_()
    y64, expected = gradients(exact, wide, grad.double())
    assert type(y.grad_fn).__name__ == "_DepthwiseBackward"
    assert type(y64.grad_fn).__name__ == "ConvolutionBackward0"
    for a, b in zip((y, *found), (y64, *expected), strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=1e-5, atol=2e-6 * float(b.detach().abs().max() + 1)
        )


def test_only_wanted_gradients_are_made():
    layer = DepthwiseConv2d(4, (1, 7))
    layer.weight.requires_grad_(False)
    x = torch.randn(1, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((4,), 30.0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_and_layouts_take_the_plain_path(dtype):
    layer = DepthwiseConv2d(4, (3, 3)).to(dtype)
    x = torch.randn(2, 4, 5, 6, dtype=dtype)
    assert type(layer(x).grad_fn).__name__ == "ConvolutionBackward0"


def test_second_derivatives_equal_those_of_plain_torch(monkeypatch):
    torch.manual_seed(0)
    layer = DepthwiseConv2d(3, (1, 5))
    x = torch.randn(1, 3, 4, 6).contiguous(memory_format=torch.channels_last).requires_grad_()

    def penalty():
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, layer.weight))

    found = penalty()
    monkeypatch.setattr(depthwise, "_has_slow_gradient", lambda x: False)
    for a, b in zip(found, penalty(), strict=True):
        torch.testing.assert_close(a, b)


def test_compiles_and_exports_as_a_plain_convolution():
    layer = DepthwiseConv2d(4, (1, 7)).eval()
    x = torch.randn(1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    program = torch.export.export(layer, (x,))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert names == {"aten.conv2d.default"}
