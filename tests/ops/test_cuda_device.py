"""On a device: the CUDA backend equals the reference, with the same bits twice, in graphs too."""

import pytest
import torch

from geoseg.ops import _cuda, reference
from tests.ops.test_cuda_kernels import (
    attend,
    attention_inputs,
    doubles,
    error,
    scan_inputs,
    sequence_inputs,
)

pytestmark = pytest.mark.gpu

# Exponentials and logarithms are approximated on a device.
TOLERANCE = 5e-6


def moved(inputs, device="cuda"):
    return [
        tuple(u.to(device) for u in t)
        if isinstance(t, tuple)
        else t.to(device)
        if isinstance(t, torch.Tensor)
        else t
        for t in inputs
    ]


def case(name):
    """Return forward, backward, inputs, and what must come out."""
    if name == "ss2d":
        inputs = scan_inputs(2, 29, 70, 100, 7)
        leaves = doubles(*inputs)
        exact = reference.ss2d_scan(*leaves)
        return _cuda.ss2d_scan, _cuda.ss2d_scan_backward, inputs, leaves, exact
    if name == "selective_scan":
        inputs = sequence_inputs(2, 2, 40, 3, 301, softplus=True, skip=True, bias=True)
        leaves = doubles(*inputs)
        exact = reference.selective_scan(*leaves, delta_softplus=True)
        operations = _cuda.selective_scan, _cuda.selective_scan_backward
        return *operations, (*inputs, True), leaves, exact
    inputs = attention_inputs((2, 27, 33, 3, 36), 9, True, True)
    leaves = doubles(*inputs[:3], inputs[4])
    exact = attend(*leaves[:3], 9, leaves[3], *inputs[5:])
    return _cuda.na2d, _cuda.na2d_backward, inputs, leaves, exact


NAMES = ("ss2d", "selective_scan", "na2d")


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference_twice(name):
    forward, backward, inputs, leaves, exact = case(name)
    given = moved(inputs)
    made = forward(*given)
    assert error(made.cpu(), exact) <= TOLERANCE
    dy = torch.randn(exact.shape)
    grads = backward(dy.cuda(), *given)
    for grad, exact_grad in zip(
        grads, torch.autograd.grad(exact, leaves, dy.double()), strict=True
    ):
        assert error(grad.cpu(), exact_grad) <= TOLERANCE
    assert torch.equal(made, forward(*given))
    for one, other in zip(grads, backward(dy.cuda(), *given), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_the_current_stream_and_in_a_graph(name):
    forward, _, inputs, _, exact = case(name)
    given = moved(inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        forward(*given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = forward(*given)
    made.fill_(torch.nan)
    graph.replay()
    assert error(made.cpu(), exact) <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_a_device_that_is_not_the_current_one(name):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one device")
    forward, _, inputs, _, exact = case(name)
    assert error(forward(*moved(inputs, "cuda:1")).cpu(), exact) <= TOLERANCE
