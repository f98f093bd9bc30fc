"""The compiled kernels equal their references, wherever an array is cut."""

import importlib.resources
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg import _native
from geoseg.predict.blend import blend_reference
from geoseg.predict.scores import ScoreKinds, classify, classify_reference, empty_layers
from tests.conftest import make_spec

kernels = pytest.mark.skipif(_native.library() is None, reason="no compiled kernels")


def test_the_library_is_used_or_the_reason_is_known():
    if _native.library() is None:
        assert _native.unavailable_reason()
        assert _native.instruction_set() == "reference"
    else:
        assert _native.unavailable_reason() is None
        assert _native.instruction_set() != "reference"


def test_a_library_of_another_version_is_refused(monkeypatch, tmp_path):
    _native_load = _native._load
    if not hasattr(_native_load, "__wrapped__"):
        pytest.skip("kernels are switched off")
    monkeypatch.setattr(_native, "library_path", lambda: tmp_path / "none.so")
    lib, reason = _native_load.__wrapped__()
    assert lib is None
    assert "no C++ compiler was found" in reason
    (tmp_path / "none.so").write_bytes(b"not a library")
    lib, reason = _native_load.__wrapped__()
    assert lib is None
    assert "cannot be loaded" in reason


def test_the_wheel_layout_holds_the_sources():
    """Kernel headers are found beside the package once it is installed."""
    root = importlib.resources.files("geoseg")
    assert (root / "_lib").is_dir() or _native.library() is None


@kernels
@settings(deadline=None, max_examples=40)
@given(
    planes=st.integers(1, 5),
    size=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    left=st.integers(0, 30),
    carry=st.integers(0, 30),
    layout=st.sampled_from(["planes", "pixels", "none"]),
)
def test_blend(planes, size, left, carry, layout):
    height, width = size
    left, carry = min(left, width), min(carry, height)
    rng = np.random.default_rng(0)

    def random(*shape):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    base_left = random(planes, height, width + 3)[:, :, :left]
    base_carry = random(planes, height + 2, width + 5)[:, :carry, :width]
    logits = None if layout == "none" else random(planes, height, width)
    if layout == "pixels":
        logits = random(height, width, planes).permute(2, 0, 1)
    weights = {"weight_y": random(height), "weight_x": random(width)}
    expected, made = torch.full((2, planes, height, width), torch.nan)
    blend_reference(expected, base_left, base_carry, logits=logits, **weights)
    _native.blend(
        made.numpy(),
        base_left.numpy(),
        base_carry.numpy(),
        logits=None if logits is None else logits.numpy(),
        **{k: v.numpy() for k, v in weights.items()},
    )
    assert torch.equal(made, expected)


@kernels
@settings(deadline=None, max_examples=40)
@given(
    views=st.sampled_from([1, 4]),
    classes=st.integers(1, 20),
    size=st.tuples(st.integers(1, 20), st.integers(1, 70)),
    masked=st.booleans(),
    scale=st.sampled_from([0.1, 3.0, 60.0]),
)
def test_classify(views, classes, size, masked, scale):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy((rng.standard_normal((views * classes, *size)) * scale).astype("f4"))
    valid = rng.random(size) < 0.6 if masked else None
    spec = make_spec(1, classes, ids=tuple(range(3, 3 + classes)), temperature=1.7)
    kinds = ScoreKinds(confidence=True, probabilities=True)
    expected, made = (empty_layers(spec, kinds, *size) for _ in range(2))
    assert classify_reference(logits, valid, spec, views, expected) == 0
    classify(logits, valid, spec, views, made)
    if views == 1:
        assert np.array_equal(made["class_map"], expected["class_map"])
    else:  # means of probabilities may tie within rounding
        assert (made["class_map"] != expected["class_map"]).mean() <= 0.01
    for name in ("confidence", "probabilities"):
        difference = np.abs(made[name].astype(int) - expected[name])
        assert difference.max(initial=0) <= 1
        assert difference.mean() <= 0.01


@kernels
@settings(deadline=None, max_examples=30)
@given(cut=st.integers(1, 69), classes=st.integers(2, 6))
def test_a_result_does_not_depend_on_where_the_work_is_cut(cut, classes):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy((rng.standard_normal((classes, 8, 70)) * 3).astype("f4"))
    spec = make_spec(1, classes)
    kinds = ScoreKinds(confidence=True, probabilities=True)
    whole, parts = (empty_layers(spec, kinds, 8, 70) for _ in range(2))
    classify(logits, None, spec, 1, whole)
    for cols in (slice(0, cut), slice(cut, 70)):
        piece = {name: layer[:, :, cols] for name, layer in parts.items()}
        classify(logits[:, :, cols], None, spec, 1, piece)
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


@kernels
def test_bad_logits_are_counted_where_valid():
    logits = torch.zeros(3, 4, 40)
    logits[1, 0, 0] = torch.nan
    logits[2, 1, 5] = torch.inf
    logits[0, 2, 39] = -torch.inf
    valid = np.ones((4, 40), bool)
    valid[1] = False
    spec = make_spec(1, 3)
    for mask, expected in ((None, 3), (valid, 2)):
        layers = empty_layers(spec, ScoreKinds(confidence=True, probabilities=True), 4, 40)
        bad = _native.classify(
            logits.numpy(),
            mask,
            views=1,
            inverse_temperature=1.0,
            ids=np.arange(3, dtype=np.uint16),
            nodata=255,
            layers=layers,
        )
        assert bad == expected
        assert classify_reference(logits, mask, spec, 1, layers) == expected


@kernels
def test_confidence_is_exact_where_it_matters():
    """One half and one must not be missed by rounding; they are what people threshold at."""
    logits = torch.tensor([[0.0, 0.0, 40.0, -40.0], [0.0, 2.0, -40.0, 40.0]]).view(2, 1, 4)
    spec = make_spec(1, 2)
    layers = empty_layers(spec, ScoreKinds(confidence=True), 1, 4)
    classify(logits, None, spec, 1, layers)
    assert layers["confidence"][0, 0].tolist() == [127, round(254 / (1 + np.exp(-2))), 254, 254]
    assert layers["class_map"][0, 0].tolist() == [0, 1, 0, 1]  # the first of equals


def test_the_reference_path_predicts_the_same_map(make_raster, tmp_path):
    """A run in a process without kernels equals one with them, scores within one step."""
    values = np.random.default_rng(0).integers(0, 255, (3, 150, 170)).astype(np.uint8)
    raster = make_raster(values)
    code = (
        "import sys, torch\n"
        "from geoseg import _native\n"
        "if sys.argv[3] == 'off': _native._load = lambda: (None, 'off')\n"
        "from geoseg.predict import predict_raster, PredictOptions\n"
        "from geoseg.segmenter import Segmenter\n"
        "from tests.conftest import make_spec, small_conv\n"
        "from pathlib import Path\n"
        "model = Segmenter(small_conv(), make_spec(3, mean=127, std=60)).eval()\n"
        "out = Path(sys.argv[2])\n"
        "options = PredictOptions(probabilities=out.with_suffix('.p.tif'))\n"
        "predict_raster(model, sys.argv[1], out, options=options)\n"
    )
    import rasterio

    maps, scores = [], []
    for mode in ("on", "off"):
        out = tmp_path / f"{mode}.tif"
        command = [sys.executable, "-c", code, str(raster), str(out), mode]
        subprocess.run(command, check=True, cwd=tmp_path.parent, env=_environment())
        with rasterio.open(out) as dataset:
            maps.append(dataset.read())
        with rasterio.open(out.with_suffix(".p.tif")) as dataset:
            scores.append(dataset.read().astype(int))
    assert np.array_equal(maps[0], maps[1])
    assert np.abs(scores[0] - scores[1]).max() <= 1


def _environment():
    import os

    from tests.conftest import ROOT

    return {**os.environ, "PYTHONPATH": str(ROOT)}
