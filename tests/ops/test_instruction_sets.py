"""Every build of the library that this processor can run answers alike."""

import numpy as np
import pytest
import torch

from geoseg import _native
from geoseg.ops import neighborhood_attention, ss2d
from geoseg.raster.overviews import halve, halve_reference
from tests.ops.test_attention import attention_inputs
from tests.ops.test_attention import error as relative_error
from tests.ops.test_scan import scan_inputs

SETS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


@pytest.fixture(params=SETS)
def instruction_set(request):
    """Switch the library to one instruction set for a test."""
    lib = _native.library()
    if lib is None:
        pytest.skip("no compiled library was built here")
    own = lib.geoseg_instruction_set()
    if lib.geoseg_use_instruction_set(request.param.encode()):
        pytest.skip(f"{request.param} was not run: this processor or this build has none")
    yield request.param
    assert lib.geoseg_use_instruction_set(own) == 0


def test_the_set_is_the_one_asked_for(instruction_set):
    assert _native.instruction_set() == instruction_set


@pytest.mark.parametrize("shape", [(2, 13, 9, 36, 3), (1, 6, 11, 364, 23)], ids=str)
def test_scan_and_its_gradients(instruction_set, shape):
    inputs = [t.requires_grad_() for t in scan_inputs(*shape, skip=1.0)]
    exact = ss2d(*inputs, backend="reference")
    dy = torch.randn_like(exact)
    wanted = torch.autograd.grad(exact, inputs, dy)
    single = [t.detach().float().requires_grad_() for t in inputs]
    made = ss2d(*single, backend="cpu")
    assert relative_error(made, exact) <= 1e-6
    for ours, theirs in zip(torch.autograd.grad(made, single, dy.float()), wanted, strict=True):
        assert relative_error(ours, theirs) <= 5e-6
    half = ss2d(single[0].detach().bfloat16(), *[t.detach() for t in single[1:]], backend="cpu")
    assert relative_error(half, exact) <= 1e-2


@pytest.mark.parametrize("shape", [(1, 13, 30, 2, 20, 7), (2, 11, 37, 1, 36, 11)], ids=str)
def test_attention_and_its_gradients(instruction_set, shape):
    leaves = [t.requires_grad_() for t in attention_inputs(*shape)]
    exact = neighborhood_attention(*leaves[:3], shape[-1], bias=leaves[3], backend="reference")
    dy = torch.randn_like(exact)
    wanted = torch.autograd.grad(exact, leaves, dy)
    single = [t.detach().float().requires_grad_() for t in leaves]
    made = neighborhood_attention(*single[:3], shape[-1], bias=single[3], backend="cpu")
    assert relative_error(made, exact) <= 1e-6
    for ours, theirs in zip(torch.autograd.grad(made, single, dy.float()), wanted, strict=True):
        assert relative_error(ours, theirs) <= 5e-6


def test_normalisation(instruction_set):
    values = np.random.default_rng(0).integers(0, 255, (3, 17, 37), dtype=np.uint8)
    gain, bias = np.array([[0.5, 2.0, -1.0], [1.0, 0.0, 3.0]], dtype=np.float32)
    out = np.full((17, 37, 3), np.nan, dtype=np.float32)
    _native.normalize(values, None, gain, bias, out)
    assert np.array_equal(out, values.transpose(1, 2, 0).astype(np.float32) * gain + bias)


@pytest.mark.parametrize("rule", ["MODE", "AVERAGE"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_overviews(instruction_set, dtype, rule):
    none = np.iinfo(dtype).max
    values = np.random.default_rng(0).choice([0, 1, 2, 7, none], (31, 143)).astype(dtype)
    assert np.array_equal(halve(values, none, rule), halve_reference(values, none, rule))


def test_an_unknown_set_is_refused():
    lib = _native.library()
    if lib is None:
        pytest.skip("no compiled library was built here")
    own = lib.geoseg_instruction_set()
    assert lib.geoseg_use_instruction_set(b"x86-64-v9") == 1
    assert lib.geoseg_instruction_set() == own
