"""Networks made elsewhere go through the same path."""

import json

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from geoseg.errors import BackendUnavailableError, ModelFileError, UsageError
from geoseg.foreign import load_foreign
from geoseg.predict import PredictOptions, predict_raster
from geoseg.predict.model import load_segmenter
from geoseg.segmenter import Segmenter
from geoseg.spec import SPEC_KEY, TileSpec
from tests.conftest import make_spec, small_conv

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = 64


def export_onnx(network, path, metadata, *, batch=None):
    """Write an ONNX file with metadata, for one tile size, any batch or a fixed one."""
    example = torch.zeros(batch or 2, 3, SIZE, SIZE)
    dynamic = None if batch else {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        dynamic_shapes=(dynamic,) if dynamic else None,
        verbose=False,
    )
    program.save(path)
    model = onnx.load(path)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


DEEPNESS = {
    "model_type": json.dumps("Segmentor"),
    "class_names": json.dumps({"0": "rest", "1": "house", "2": "road", "3": "water"}),
    "resolution": json.dumps(30),
    "tiles_size": json.dumps(SIZE),
    "tiles_overlap": json.dumps(25),
    "standardization_mean": json.dumps([0.4, 0.5, 0.45]),
    "standardization_std": json.dumps([0.2, 0.2, 0.25]),
}


class WithSoftmax(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).softmax(dim=1)


@pytest.fixture(scope="module")
def deepness(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    return export_onnx(WithSoftmax(small_conv()).eval(), folder / "land.onnx", DEEPNESS)


@pytest.fixture
def scene(make_raster):
    return make_raster(np.random.default_rng(0).integers(0, 255, (3, 200, 170)).astype(np.uint8))


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_deepness_metadata_becomes_a_record(deepness):
    spec = load_foreign(deepness).spec
    assert [c.name for c in spec.classes] == ["rest", "house", "road", "water"]
    assert spec.gsd_m == pytest.approx((0.24, 0.375))
    assert (spec.tile.size_px, spec.tile.overlap_px, spec.tile.fixed) == (64, 16, True)
    assert spec.bands[2].mean == 0.45
    assert spec.bands[0].scale == pytest.approx(1 / 255)
    assert (spec.output, spec.dtype) == ("probabilities", "uint8")


def test_an_onnx_network_makes_the_map_of_its_torch_original(deepness, scene, tmp_path):
    predict_raster(str(deepness), scene, tmp_path / "onnx.tif")
    spec = load_foreign(deepness).spec
    original = Segmenter(WithSoftmax(small_conv()).eval(), spec).eval()
    predict_raster(original, scene, tmp_path / "torch.tif")
    assert (read(tmp_path / "onnx.tif") == read(tmp_path / "torch.tif")).mean() > 0.9999
    with rasterio.open(tmp_path / "onnx.tif") as dataset:
        assert dataset.tags()["GEOSEG_MODEL"] == "land"
        assert len(dataset.tags()["GEOSEG_MODEL_SHA256"]) == 64


def test_a_network_without_softmax_answers_logits(scene, tmp_path):
    path = export_onnx(small_conv(), tmp_path / "logits.onnx", DEEPNESS)
    spec = load_foreign(path).spec
    assert spec.output == "logits"
    predict_raster(str(path), scene, tmp_path / "onnx.tif")
    predict_raster(Segmenter(small_conv(), spec).eval(), scene, tmp_path / "torch.tif")
    assert (read(tmp_path / "onnx.tif") == read(tmp_path / "torch.tif")).mean() > 0.9999


def test_probabilities_beyond_one_are_refused(scene, tmp_path):
    one = small_conv(classes=1)
    path = export_onnx(one, tmp_path / "one.onnx", DEEPNESS | {"class_names": '{"0": "house"}'})
    with pytest.raises(ModelFileError, match="expected probabilities between 0 and 1"):
        predict_raster(str(path), scene, tmp_path / "m.tif")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("resolution", "coarse", "expected a number in its record; got 'coarse'"),
        ("class_names", {"x": "house"}, "expected class_names by channel number"),
        ("standardization_mean", ["a", "b", "c"], "expected a number in its record; got 'a'"),
    ],
)
def test_malformed_deepness_keys_are_refused(tmp_path, key, value, message):
    record = DEEPNESS | {key: json.dumps(value)}
    path = export_onnx(small_conv(), tmp_path / "bad.onnx", record)
    with pytest.raises(ModelFileError, match=message):
        load_foreign(path)


def test_a_fixed_batch_is_filled_up(scene, tmp_path):
    path = export_onnx(WithSoftmax(small_conv()).eval(), tmp_path / "one.onnx", DEEPNESS, batch=1)
    predict_raster(str(path), scene, tmp_path / "a.tif", options=PredictOptions(batch_size=3))
    original = Segmenter(WithSoftmax(small_conv()).eval(), load_foreign(path).spec).eval()
    predict_raster(original, scene, tmp_path / "b.tif")
    assert (read(tmp_path / "a.tif") == read(tmp_path / "b.tif")).mean() > 0.9999


def test_geosegs_own_key_comes_first(tmp_path):
    spec = make_spec(3, mean=120, std=40, tile=TileSpec(64, 16, fixed=True))
    path = export_onnx(small_conv(), tmp_path / "own.onnx", DEEPNESS | {SPEC_KEY: spec.to_json()})
    assert load_segmenter(path).spec == spec


MLM = {
    "mlm:name": "fields",
    "mlm:architecture": "U-Net",
    "mlm:tasks": ["semantic-segmentation"],
    "mlm:input": [
        {
            "name": "rgb",
            "bands": ["red", {"name": "green"}, "blue"],
            "input": {
                "shape": [-1, 3, SIZE, SIZE],
                "dim_order": ["batch", "bands", "height", "width"],
                "data_type": "float32",
            },
            "value_scaling": [
                {"type": "z-score", "mean": 100, "stddev": 50},
                {"type": "min-max", "minimum": 10, "maximum": 210},
                {"type": "scale", "value": 255},
            ],
        }
    ],
    "mlm:output": [
        {
            "classification:classes": [
                {"value": 1, "name": "field", "color_hint": "00ff00"},
                {"value": 2, "name": "edge"},
                {"value": 5, "name": "road"},
                {"value": 7, "name": "rest"},
            ]
        }
    ],
}


def test_a_stac_item_beside_an_onnx_file(scene, tmp_path):
    path = export_onnx(small_conv(), tmp_path / "mlm.onnx", {})
    item = {"type": "Feature", "properties": MLM}
    path.with_suffix(".json").write_text(json.dumps(item))
    spec = load_segmenter(path).spec
    assert [(c.id, c.name) for c in spec.classes] == [
        (1, "field"),
        (2, "edge"),
        (5, "road"),
        (7, "rest"),
    ]
    assert spec.classes[0].color == "#00ff00"
    scaled = [(b.name, b.mean, b.std) for b in spec.bands]
    assert scaled == [("red", 100, 50), ("green", 10, 200), ("blue", 0, 255)]
    predict_raster(str(path), scene, tmp_path / "o.tif")
    assert set(np.unique(read(tmp_path / "o.tif"))) <= {1, 2, 5, 7}


def save_pt2(path, extra=None, *, batch=None):
    dynamic = None if batch else ({0: torch.export.Dim("batch", min=1, max=64)},)
    example = (torch.zeros(batch or 2, 3, SIZE, SIZE),)
    program = torch.export.export(small_conv(), example, dynamic_shapes=dynamic)
    torch.export.save(program, path, extra_files=extra or {})
    return path


@pytest.mark.parametrize("batch", [None, 1])
def test_a_pt2_archive_with_a_record(scene, tmp_path, batch):
    spec = make_spec(3, mean=120, std=40, tile=TileSpec(64, 16, fixed=True))
    path = save_pt2(tmp_path / "m.pt2", {SPEC_KEY: spec.to_json()}, batch=batch)
    options = PredictOptions(batch_size=3)
    predict_raster(str(path), scene, tmp_path / "a.tif", options=options)
    predict_raster(Segmenter(small_conv(), spec).eval(), scene, tmp_path / "b.tif")
    assert (read(tmp_path / "a.tif") == read(tmp_path / "b.tif")).mean() > 0.9999


def test_a_pt2_archive_with_an_mlm_record_in_yaml(tmp_path):
    yaml = pytest.importorskip("yaml")
    path = save_pt2(tmp_path / "m.pt2", {"mlm-metadata": yaml.safe_dump(MLM)})
    assert load_segmenter(path).spec.name == "fields"


def test_scaling_of_older_records(tmp_path):
    old = {k: v for k, v in MLM["mlm:input"][0].items() if k != "value_scaling"}
    statistics = [{"mean": m, "stddev": s} for m, s in ((100, 50), (90, 40), (80, 30))]
    old |= {"norm_type": "z-score", "statistics": statistics}
    path = save_pt2(tmp_path / "m.pt2")
    path.with_suffix(".json").write_text(
        json.dumps({"properties": changed(**{"mlm:input": [old]})})
    )
    bands = load_segmenter(path).spec.bands
    assert [(b.mean, b.std) for b in bands] == [(100, 50), (90, 40), (80, 30)]


def test_a_pt2_with_softmax_answers_probabilities(tmp_path):
    path = tmp_path / "p.pt2"
    example = torch.zeros(1, 3, SIZE, SIZE)
    torch.export.save(torch.export.export(WithSoftmax(small_conv()).eval(), (example,)), path)
    path.with_suffix(".json").write_text(json.dumps({"properties": MLM}))
    assert load_segmenter(path).spec.output == "probabilities"
    assert load_segmenter(save_pt2_with_mlm(tmp_path)).spec.output == "logits"


def save_pt2_with_mlm(folder):
    path = save_pt2(folder / "l.pt2")
    path.with_suffix(".json").write_text(json.dumps({"properties": MLM}))
    return path


def changed(**properties):
    return {**MLM, **properties}


def with_input(**fields):
    return changed(**{"mlm:input": [{**MLM["mlm:input"][0], **fields}]})


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (changed(**{"mlm:tasks": ["object-detection"]}), "task semantic-segmentation"),
        (changed(**{"mlm:input": []}), "expected the property mlm:input"),
        (changed(**{"mlm:output": [{}]}), "expected classification:classes"),
        (with_input(input={"shape": [-1, 3]}), r"\(batch, bands, height, width\)"),
        (with_input(value_scaling=[{"type": "clip"}]), "type 'clip' is not supported"),
        (with_input(value_scaling=[{"type": "z-score"}]), "lacks 'mean'"),
        (with_input(value_scaling=None, norm_type="z-score"), "gives no statistics"),
        (with_input(value_scaling=None, norm_type="l2", statistics=[{}] * 3), "type 'l2' is not"),
        (with_input(value_scaling=[{"type": "scale", "value": 2}] * 2), "for 3 bands; got 2"),
        (
            with_input(value_scaling=None, pre_processing_function={"expression": "a.b:c"}),
            "needs the function 'a.b:c' before it",
        ),
    ],
)
def test_records_that_do_not_say_enough_are_refused(tmp_path, properties, message):
    path = save_pt2(tmp_path / "m.pt2")
    path.with_suffix(".json").write_text(json.dumps({"properties": properties}))
    with pytest.raises(ModelFileError, match=message):
        load_segmenter(path)


def test_models_without_a_record_or_without_sense_are_refused(tmp_path, deepness):
    with pytest.raises(ModelFileError, match="does not say how it is fed. Add Deepness metadata"):
        load_segmenter(save_pt2(tmp_path / "m.pt2"))
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="cannot be read as ONNX"):
        load_segmenter(tmp_path / "x.onnx")
    (tmp_path / "x.pt2").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="cannot be read as a torch.export archive"):
        load_segmenter(tmp_path / "x.pt2")
    with pytest.raises(ModelFileError, match="does not exist"):
        load_segmenter(tmp_path / "y.onnx")
    with pytest.raises(ModelFileError, match="Convert an official one with `geoseg convert`"):
        load_segmenter(tmp_path / "checkpoint.pth")
    wrong = DEEPNESS | {"model_type": json.dumps("Detector")}
    path = export_onnx(small_conv(), tmp_path / "d.onnx", wrong)
    with pytest.raises(ModelFileError, match="expected a Segmentor; .* 'Detector'"):
        load_segmenter(path)


def test_exported_networks_run_as_they_are(deepness, scene, tmp_path):
    with pytest.raises(UsageError, match="exported network .*got --precision bf16"):
        options = PredictOptions(precision="bf16")
        predict_raster(str(deepness), scene, tmp_path / "o.tif", options=options)
    with pytest.raises(UsageError, match="cannot take tiles of 128 px|take tiles of 96"):
        options = PredictOptions(tile_size_px=96)
        predict_raster(str(deepness), scene, tmp_path / "o.tif", options=options)


def test_a_missing_runtime_is_named(deepness, monkeypatch):
    import importlib

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'geoseg\[export\]'"):
        load_foreign(deepness)
