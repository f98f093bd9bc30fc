"""Every operation equals the official implementations, value and gradient, on every backend."""

import sys
from pathlib import Path

import pytest
import torch

from geoseg.ops import cross_merge, cross_scan, neighborhood_attention, selective_scan, ss2d

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule

OPS = rule.load("ops/manifest.json")["ops"]
# None takes the best that runs here.
backends = pytest.mark.parametrize("backend", ["reference", None])


def named(prefix):
    return pytest.mark.parametrize("name", [n for n in OPS if n.startswith(prefix)])


def tensors(name):
    return {k: torch.from_numpy(v) for k, v in rule.arrays(f"ops/{name}.npz").items()}


def assert_close(made, stored, *, relative=1e-5):
    limit = 1e-5 + relative * float(stored.abs().max())
    assert float((made.detach() - stored).abs().max()) <= limit


@named("cross_scan")
def test_cross_scan(name):
    stored = tensors(name)
    height, width = stored["x"].shape[2:]
    assert torch.allclose(cross_scan(stored["x"]), stored["xs"], rtol=0, atol=1e-6)
    merged = cross_merge(stored["ys"].flatten(3), height, width).flatten(2)
    assert torch.allclose(merged, stored["merged"], rtol=0, atol=1e-6)


@backends
@named("selective_scan")
def test_selective_scan(name, backend):
    stored = tensors(name)
    inputs = {
        key: stored[key].requires_grad_() if key in stored else None
        for key in ("u", "delta", "A", "B", "C", "D", "delta_bias")
    }
    y = selective_scan(**inputs, delta_softplus=OPS[name]["delta_softplus"], backend=backend)
    assert_close(y, stored["y"])
    y.backward(stored["gy"])
    for key, value in inputs.items():
        if value is not None:
            assert_close(value.grad, stored[f"grad_{key}"], relative=1e-4)


@backends
@named("ss2d")
def test_ss2d(name, backend):
    stored = tensors(name)
    prefix = OPS[name]["prefix"]
    parameters = {
        key: torch.from_numpy(rule.weight(prefix + key, tuple(shape))).requires_grad_()
        for key, shape in OPS[name]["keys"]
    }
    x = stored["x"].requires_grad_()  # (N, C, H, W)
    y = ss2d(x.permute(0, 2, 3, 1), **parameters, backend=backend).permute(0, 3, 1, 2)
    assert_close(y, stored["y"])
    y.backward(stored["gy"])
    assert_close(x.grad, stored["grad_x"], relative=1e-4)
    for key, value in parameters.items():
        assert_close(value.grad, stored[f"grad:{key}"], relative=1e-4)


@backends
@named("na2d")
def test_neighborhood_attention(name, backend):
    stored, record = tensors(name), OPS[name]
    inputs = {key: stored[key].requires_grad_() for key in ("q", "k", "v", "rpb")}
    q, k, v = (inputs[key].movedim(1, 3) for key in "qkv")  # (N, H, W, heads, d)
    y = neighborhood_attention(
        q,
        k,
        v,
        record["kernel"],
        dilation=record["dilation"],
        bias=inputs["rpb"],
        scale=record["scale"],
        backend=backend,
    ).movedim(3, 1)
    assert_close(y, stored["y"])
    y.backward(stored["gy"])
    for key, value in inputs.items():
        assert_close(value.grad, stored[f"grad_{key}"])


@named("na2d")
def test_the_default_scale_is_that_of_attention(name):
    stored, record = tensors(name), OPS[name]
    q, k, v = (stored[key].movedim(1, 3) for key in "qkv")
    y = neighborhood_attention(
        q, k, v, record["kernel"], dilation=record["dilation"], bias=stored["rpb"]
    )
    assert_close(y.movedim(3, 1), stored["y"])
