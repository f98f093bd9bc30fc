"""An exported file makes the map of its model; what cannot be is refused."""

import json

import numpy as np
import pytest
import rasterio
import torch

from geoseg.errors import (
    BackendUnavailableError,
    MachineError,
    ModelFileError,
    OutputExistsError,
    UsageError,
)
from geoseg.export import ExportOptions, check, export_model
from geoseg.export.check import TOLERANCE, noise, real_values
from geoseg.foreign import load_foreign
from geoseg.predict import predict_raster
from geoseg.segmenter import Segmenter
from geoseg.spec import INPUT_KEY, TileSpec
from tests.conftest import ROOT, make_spec, small_conv
from tests.export.conftest import SCENE

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.fixture
def scene(make_raster):
    """Return a part of a real scene with a hole in it."""
    with rasterio.open(SCENE) as source:
        values = source.read(window=((300, 530), (600, 840)))
    mask = np.full(values.shape[1:], 255, np.uint8)
    mask[60:100, 80:150] = 0
    return make_raster(values, mask=mask, photometric="RGB", transform=rasterio.Affine.scale(0.15))


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_the_map_is_that_of_the_model(family, scene, tmp_path, request):
    done = request.getfixturevalue(family)
    predict_raster(done.model, scene, tmp_path / "torch.tif")
    predict_raster(done.report.path, scene, tmp_path / "onnx.tif")
    wanted, made = read(tmp_path / "torch.tif"), read(tmp_path / "onnx.tif")
    assert set(np.unique(wanted)) == {0, 1, 2, 3, 255}
    assert (made == wanted).mean() >= 0.999


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_logits_are_those_of_the_model(family, request):
    done = request.getfixturevalue(family)
    side = done.report.spec.tile.size_px
    with rasterio.open(SCENE) as source:
        values = torch.from_numpy(source.read(window=((900, 900 + side), (300, 300 + side))))[None]
    valid = torch.ones(1, side, side, dtype=torch.bool)
    valid[:, 10:30, 20:50] = False
    with torch.inference_mode():
        wanted = torch.log_softmax(done.segmenter(values, valid) / 1.5, dim=1)
        made = load_foreign(done.report.path).eval()(values, valid)
    assert wanted.min() > -20  # nothing is hidden by the least probability
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_every_export_is_checked(family, request):
    random, real = request.getfixturevalue(family).report.differences
    assert max(random.probability, real.probability) < TOLERANCE
    assert min(random.same_class, real.same_class) > 0.999
    assert "real tile: probabilities differ by " in str(real)


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_operators_are_onnx_s_own(family, request):
    model = onnx.load(request.getfixturevalue(family).report.path)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert all(onnx.defs.has(node.op_type) for node in model.graph.node)
    assert (len(model.functions), model.ir_version) == (0, 8)
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_any_batch_runs(family, request):
    done = request.getfixturevalue(family)
    session = onnxruntime.InferenceSession(str(done.report.path))
    side = done.report.spec.tile.size_px
    assert session.get_inputs()[0].shape == ["batch", 3, side, side]
    assert session.get_outputs()[0].shape == ["batch", 4, side, side]
    images = np.random.default_rng(0).random((3, 3, side, side), np.float32)
    together = session.run(None, {"image": images})[0]
    alone = [session.run(None, {"image": image[None]})[0] for image in images]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)
    np.testing.assert_allclose(together.sum(1), 1.0, atol=1e-5)


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_no_path_of_this_machine_is_in_a_file(family, request):
    done = request.getfixturevalue(family)
    written = done.report.path.read_bytes() + done.report.item.read_bytes()
    for told in (str(ROOT), "site-packages", str(done.model.parent), "stack_trace"):
        assert told.encode() not in written


def test_equal_constants_are_stored_once(segman):
    graph = onnx.load(segman.report.path).graph
    assert not any(node.op_type == "Constant" for node in graph.node)
    small = [t for t in graph.initializer if t.ByteSize() < 200 and t.dims]
    contents = [(t.data_type, tuple(t.dims), t.raw_data) for t in small if t.raw_data]
    repeated = len(contents) - len(set(contents))
    assert repeated < len(contents) / 2


def test_tiles_of_a_check_are_as_the_model_knows_them():
    spec = make_spec(5, 4, mean=1000.0, std=300.0, dtype="uint16", tile=TileSpec(96, 24))
    for values in (noise(spec), real_values(spec)):
        assert (values.shape, values.dtype) == ((5, 96, 96), np.uint16)
        assert abs(values.mean() - 1000) < 50
        assert abs(values.std() - 300) < 50
    assert real_values(make_spec(3, tile=TileSpec(2112, 64))).shape == (3, 2112, 2112)


@pytest.fixture
def small():
    """Return a segmenter that is exported in no time, of 16-bit values."""
    spec = make_spec(3, mean=900.0, std=200.0, dtype="uint16", tile=TileSpec(32, 8, min_px=1))
    return Segmenter(small_conv(), spec).eval()


def test_any_network_of_standard_operators_is_exported(small, tmp_path):
    report = export_model(small, tmp_path / "a" / "m.onnx", ExportOptions(opset=20))
    made = load_foreign(report.path)
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 2000, (2, 3, 32, 32)))
    wanted = torch.log_softmax(small(values), dim=1)
    torch.testing.assert_close(made(values), wanted, atol=1e-4, rtol=0)
    assert "uint16" in report.remarks[0]
    assert json.loads(report.item.read_text("utf-8"))["assets"]["model"]["href"] == "./m.onnx"


def test_a_damaged_scaling_is_refused(small, tmp_path):
    onnx = pytest.importorskip("onnx")
    report = export_model(small, tmp_path / "m.onnx", ExportOptions(check=False))
    model = onnx.load(report.path)
    entry = next(e for e in model.metadata_props if e.key == INPUT_KEY)
    entry.value = '{"gain": [1, 2, 3]}'
    onnx.save(model, report.path)
    with pytest.raises(ModelFileError, match="'geoseg.input' to hold gain and bias of each band"):
        load_foreign(report.path)


def test_an_item_elsewhere_still_finds_the_file(small, tmp_path):
    options = ExportOptions(item=tmp_path / "items" / "i.json", check=False)
    report = export_model(small, tmp_path / "m.onnx", options)
    item = json.loads(report.item.read_text("utf-8"))
    assert item["assets"]["model"]["href"] == "../m.onnx"
    assert report.differences == ()


def test_a_file_that_answers_otherwise_is_refused_and_not_left(small, tmp_path, monkeypatch):
    wrong = Segmenter(small_conv(seed=1), small.spec).eval()
    original = check.compare
    monkeypatch.setattr(check, "compare", lambda s, _, v, name: original(s, wrong, v, name=name))
    message = "within 0.0001; on the (random|real) tile they differ by 0.*Use the .safetensors file"
    with pytest.raises(ModelFileError, match=message):
        export_model(small, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_names_and_options_that_do_not_fit_are_refused(small, tmp_path):
    with pytest.raises(UsageError, match="ends with .onnx; got 'm.pt2'"):
        export_model(small, tmp_path / "m.pt2")
    with pytest.raises(UsageError, match="expected --opset 18 to 20; got 12"):
        export_model(small, tmp_path / "m.onnx", ExportOptions(opset=12))
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(OutputExistsError, match="m.json' exists. Give --overwrite"):
        export_model(small, tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_exported_networks_are_not_exported_again(name, tmp_path):
    with pytest.raises(ModelFileError, match="is an exported network already"):
        export_model(tmp_path / name, tmp_path / "o.onnx")


def test_a_missing_exporter_is_named(small, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(BackendUnavailableError, match=r"installed: onnxscript. .*geoseg\[export\]"):
        export_model(small, tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segnext_s", "segnext_b", "segnext_l"])
def test_larger_segnexts(name, tmp_path):
    check_family(name, 64, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segman_s", "segman_b", "segman_l"])
def test_larger_segmans(name, tmp_path):
    check_family(name, 224, tmp_path)


@pytest.mark.slow
def test_a_segman_for_larger_tiles(tmp_path):
    check_family("segman_t", 352, tmp_path)


def check_family(name, side, folder):
    from tests.export.conftest import varied_model

    network, spec = varied_model(name, side)
    report = export_model(Segmenter(network, spec).eval(), folder / "m.onnx")
    assert max(d.probability for d in report.differences) < TOLERANCE
    assert min(d.same_class for d in report.differences) > 0.999


def test_what_cannot_be_written_is_a_sentence(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot be written: .* Give another name"):
        export_model(small, tmp_path / "file" / "m.onnx", ExportOptions(item=tmp_path / "m.json"))
    with pytest.raises(UsageError, match="have one name"):
        export_model(small, tmp_path / "m.onnx", ExportOptions(item=tmp_path / "m.onnx"))
