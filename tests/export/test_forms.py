"""The scan and the attention in standard operators against the plain ones."""

import numpy as np
import pytest
import torch

from geoseg.export import forms
from geoseg.ops import reference
from geoseg.ops.neighborhood_attention import rope_angles

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

OPSET = 18
BATCHED = {"x", "q", "k", "v"}
# Lengths of 1, of every step even, and with an odd one first, last and in between.
MAPS = [(1, 1), (1, 2), (1, 7), (7, 9), (5, 13), (8, 8), (25, 41)]
# map, window: the smallest map, one tile, tiles that are moved inwards, inner tiles.
WINDOWS = [((3, 3), 3), ((17, 5), 5), ((9, 40), 7), ((19, 17), 9), ((11, 53), 11), ((13, 32), 13)]


def run(function, inputs):
    """Return what onnxruntime makes of a function and of tensors by name, maps in any batch."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node(function.name, list(inputs), ["y"], domain=forms.DOMAIN)
    shapes = {n: ["batch" if n in BATCHED else t.shape[0], *t.shape[1:]] for n, t in inputs.items()}
    given = [helper.make_tensor_value_info(name, kind, shapes[name]) for name in inputs]
    graph = helper.make_graph([node], "g", given, [helper.make_tensor_value_info("y", kind, None)])
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(forms.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    fed = {name: t.float().contiguous().numpy() for name, t in inputs.items()}
    return torch.from_numpy(session.run(None, fed)[0])


def draw(*shape, seed=0):
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def error(made, exact):
    return float((made.double() - exact).norm() / exact.norm())


def scan_inputs(size, *, batch=2, channels=6, rank=2):
    """Return the inputs of a scan, with a small skip: a large one would hide errors."""
    return {
        "x": draw(batch, *size, channels),
        "q": draw(batch, *size, 4, rank + 2, seed=1),
        "dt_weight": 0.5 * draw(4, channels, rank, seed=2),
        "dt_bias": draw(4, channels, seed=3) - 2,
        "A_logs": 0.5 * draw(4 * channels, 1, seed=4),
        "Ds": 0.01 * draw(4 * channels, seed=5),
    }


@pytest.mark.parametrize("size", MAPS, ids=str)
def test_scan_equals_the_loop(size):
    inputs = scan_inputs(size)
    made = run(forms.ss2d_scan("scan", size, 6, 2, opset=OPSET), inputs)
    assert error(made, reference.ss2d_scan(*inputs.values())) <= 1e-6


def test_scan_keeps_a_long_memory():
    inputs = scan_inputs((40, 40), batch=1)
    inputs["dt_bias"] -= 4  # small steps: what is read is remembered over hundreds of pixels
    made = run(forms.ss2d_scan("scan", (40, 40), 6, 2, opset=OPSET), inputs)
    assert error(made, reference.ss2d_scan(*inputs.values())) <= 1e-6


@pytest.mark.parametrize("has_rope", [False, True], ids=["plain", "rotated"])
@pytest.mark.parametrize("has_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(("size", "kernel"), WINDOWS, ids=str)
def test_attention_equals_the_gathered_windows(size, kernel, has_bias, has_rope):
    inputs = {name: draw(2, *size, 2, 8, seed=i) for i, name in enumerate("qkv")}
    bias = draw(2, 2 * kernel - 1, 2 * kernel - 1, seed=3) if has_bias else None
    angles = [draw(length, 2, seed=4) for length in size]
    rope = tuple(torch.stack([a.sin(), a.cos()], dim=-1) for a in angles)
    q, k, v = inputs.values()
    if has_bias:
        inputs["bias"] = bias
    if has_rope:
        inputs |= {"rope_rows": rope[0], "rope_columns": rope[1]}
        q, k = (reference.rotate(t, *rope_angles(rope)) for t in (q, k))
    of = forms.Attention(size, 2, 8, kernel, 0.3, has_bias, has_rope)
    made = run(forms.na2d("attention", of, opset=OPSET), inputs)
    exact = reference.neighborhood_attention(q, k, v, kernel, bias, 0.3)
    assert error(made, exact) <= 1e-6


def test_no_constant_is_as_large_as_the_scores():
    size, kernel = (64, 64), 11
    of = forms.Attention(size, 4, 8, kernel, 1.0, has_bias=True, has_rope=False)
    function = forms.na2d("attention", of, opset=OPSET)
    stored = [onnx.numpy_helper.to_array(n.attribute[0].t) for n in function.node if not n.input]
    scores = 4 * 64 * 64 * kernel**2
    assert max(np.size(array) for array in stored) < scores / 100
