"""``geoseg export`` says what it wrote, how it was checked, and what to mind."""

import pytest

from geoseg.checkpoint import save_model
from tests.conftest import make_spec, small_conv


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Return a small network in place of the shipped families: those take seconds."""
    from geoseg.export import run
    from geoseg.segmenter import Segmenter

    spec = make_spec(3, mean=100.0, std=50.0)
    path = save_model(tmp_path / "m.safetensors", small_conv(), spec)
    monkeypatch.setattr(run, "load_model", lambda name: Segmenter(small_conv(), spec).eval())
    return path


def test_what_is_written_and_checked_is_said(geoseg, model, tmp_path):
    pytest.importorskip("onnxscript")
    out = tmp_path / "m.onnx"
    done = geoseg("export", model, out, "--tile-size", "48", "--stac", tmp_path / "i.json")
    assert done.code == 0
    assert done.out.strip() == str(out)
    assert "tiles of 48 px, opset 18, " in done.err
    assert "standard operators" in done.err
    assert "checked against torch, real tile: probabilities differ by " in done.err
    assert "note: the model does not know its ground sample distance" in done.err
    assert out.exists()
    assert (tmp_path / "i.json").exists()
    again = geoseg("export", model, out)
    assert again.code == 2
    assert "exists. Give --overwrite" in again.err


def test_a_check_can_be_left_out(geoseg, model, tmp_path):
    pytest.importorskip("onnxscript")
    done = geoseg("export", model, tmp_path / "m.onnx", "--no-check")
    assert done.code == 0
    assert "checked" not in done.err


def test_exported_networks_are_refused(geoseg, tmp_path):
    done = geoseg("export", tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert done.code == 3
    assert "is an exported network already" in done.err
