"""A shipped model is taught on a real chip, and predicts it."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image

from geoseg.checkpoint import load_network, read_spec, save_model
from geoseg.cli.main import main
from geoseg.config import PredictOptions
from geoseg.errors import (
    DtypeMismatchError,
    InterruptedRunError,
    ModelFileError,
    OutputExistsError,
    UsageError,
)
from geoseg.listener import Listener
from geoseg.models.create import EncoderOnly, create_encoder
from geoseg.predict import predict_raster
from geoseg.spec import Architecture
from geoseg.train.finetune import finetune
from geoseg.train.finetune_plan import FinetuneOptions
from tests.conftest import ROOT, make_spec

MODEL = "demo-buildings-banepa"
QUICK = {"steps": 2, "batch_size": 2, "crop_px": 64, "device": "cpu"}


@pytest.fixture
def scene(make_raster):
    """A chip of Dubai as a GeoTIFF of 0.3 m pixels."""
    image = np.asarray(Image.open(ROOT / "tests/data/dubai/0.jpg").convert("RGB"))
    return make_raster(np.ascontiguousarray(image.transpose(2, 0, 1)), "scene.tif")


@pytest.fixture
def drawn(scene):
    """Eight squares in two rows, with names."""
    with rasterio.open(scene) as dataset:
        left, top = dataset.bounds.left, dataset.bounds.top
    squares = [
        shapely.box(left + 12 * i + 2, top - 20 * j - 12, left + 12 * i + 8, top - 20 * j - 4)
        for j in range(2)
        for i in range(4)
    ]
    frame = geopandas.GeoDataFrame(
        {"kind": ["building"] * 4 + ["background"] * 4}, geometry=squares, crs="EPSG:32633"
    )
    path = scene.with_name("drawn.gpkg")
    frame.to_file(path)
    return path


def test_a_taught_model_predicts_with_nothing_else(scene, drawn, tmp_path):
    out = tmp_path / "mine.safetensors"
    options = FinetuneOptions(class_field="kind", **QUICK)
    result = finetune(MODEL, scene, drawn, out, options=options)
    assert (result.model, result.held_out) == (out, 2)
    assert 0 <= result.before["accuracy"] <= 1
    assert 0 <= result.after["accuracy"] <= 1
    spec, shipped = read_spec(out), load_network_of(MODEL)[1]
    assert spec.name == "mine"
    assert spec.bands == shipped.bands
    assert spec.classes == shipped.classes
    assert spec.gsd_m == pytest.approx((0.09, 0.375), abs=1e-3)  # 0.3 m of this raster and more
    assert spec.recipe.startswith("geoseg finetune from demo-buildings-banepa-segnext_t")
    assert not (tmp_path / "mine.safetensors.run").exists()
    made = predict_raster(out, scene, tmp_path / "map.tif", options=PredictOptions(device="cpu"))
    with rasterio.open(made.outputs.class_map) as dataset:
        assert set(np.unique(dataset.read(1))) <= {0, 1}


def load_network_of(name):
    from geoseg.model_files import find_model

    return load_network(find_model(name))


def test_new_classes_keep_what_is_known_of_old_ones(scene, drawn, tmp_path):
    frame = geopandas.read_file(drawn)
    frame["kind"] = frame["kind"].replace("background", "pool")
    frame.to_file(drawn)
    options = FinetuneOptions(class_field="kind", encoder="frozen", hold_out=0, **QUICK)
    result = finetune(MODEL, scene, drawn, tmp_path / "m.safetensors", options=options)
    assert [c.name for c in result.classes] == ["building", "pool"]
    assert (result.before, result.after) == (None, None)
    taught, spec = load_network(result.model)
    before, _ = load_network_of(MODEL)
    weights, old = taught.state_dict(), before.state_dict()
    frozen = [k for k in weights if k.startswith("encoder.")]
    assert frozen
    assert all((weights[k] == old[k]).all() for k in frozen)
    rows = weights["decoder.conv_seg.weight"], old["decoder.conv_seg.weight"]
    assert float((rows[0][0] - rows[1][1]).abs().max()) < 0.05  # two steps away from "building"
    assert spec.num_classes == 2


def test_a_label_raster_teaches_too(scene, make_raster, tmp_path):
    labels = np.full((224, 224), 255, np.uint8)
    labels[:112, :100], labels[:112, 100:] = 0, 1
    ids = make_raster(labels, "ids.tif", nodata=255)
    options = FinetuneOptions(hold_out=0, **QUICK)
    result = finetune(MODEL, scene, ids, tmp_path / "m.safetensors", options=options)
    assert result.held_out == 0
    assert read_spec(result.model).num_classes == 2


class Stops(Listener):
    def __init__(self, after):
        self.after = after
        self.done = 0

    def progress(self, done, total, pixels):
        self.done = done

    def check(self):
        if self.done >= self.after:
            raise InterruptedRunError("stopped (test)")


@pytest.mark.parametrize("after", [0, 1])
def test_a_stopped_run_leaves_no_model_and_is_resumed(scene, drawn, tmp_path, after):
    out = tmp_path / "m.safetensors"
    quick = QUICK | {"steps": 3}
    options = FinetuneOptions(class_field="kind", **quick)
    with pytest.raises(InterruptedRunError):
        finetune(MODEL, scene, drawn, out, options=options, listener=Stops(after))
    assert not out.exists()
    with pytest.raises(OutputExistsError, match="holds a stopped run. Give --resume"):
        finetune(MODEL, scene, drawn, out, options=options)
    resumed = FinetuneOptions(class_field="kind", resume=True, **quick)
    assert finetune(MODEL, scene, drawn, out, options=resumed).model == out


def test_wrong_input_is_refused_before_anything_is_written(scene, drawn, make_raster, tmp_path):
    options = FinetuneOptions(class_field="kind", **QUICK)
    with pytest.raises(UsageError, match="ends with .safetensors; got 'm.pt'"):
        finetune(MODEL, scene, drawn, tmp_path / "m.pt", options=options)
    deep = make_raster(np.zeros((3, 64, 64), np.uint16), "deep.tif")
    with pytest.raises(DtypeMismatchError):
        finetune(MODEL, deep, drawn, tmp_path / "m.safetensors", options=options)
    assert not (tmp_path / "m.safetensors.run").exists()
    finetune_again = FinetuneOptions(resume=True, **QUICK)
    with pytest.raises(UsageError, match="nothing to resume"):
        finetune(MODEL, scene, drawn, tmp_path / "n.safetensors", options=finetune_again)


def test_the_command_prints_scores_and_the_file(scene, drawn, tmp_path, capsys):
    out = tmp_path / "m.safetensors"
    words = ["finetune", MODEL, str(scene), str(drawn), str(out), "--class-field", "kind"]
    words += ["--steps", "1", "--batch-size", "2", "--crop-size", "64", "--device", "cpu"]
    with pytest.raises(SystemExit) as left:
        main([*words, "--progress", "json"])
    assert left.value.code == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next(line["plan"]["unit"] for line in lines if line["event"] == "start") == "steps"
    assert lines[-1]["event"] == "result"
    assert lines[-1]["outputs"] == {"model": str(out)}
    assert lines[-1]["held_out_polygons"] == 2
    said = [line["message"] for line in lines if line["event"] == "log"]
    assert any("held-out polygons right" in message for message in said)


def test_what_cannot_be_taught_is_refused(scene, drawn, tmp_path):
    both = FinetuneOptions(class_field="kind", resume=True, overwrite=True, **QUICK)
    with pytest.raises(UsageError, match="--resume goes on .* --overwrite discards"):
        finetune(MODEL, scene, drawn, tmp_path / "m.safetensors", options=both)
    spec = make_spec(3, 0, architecture=Architecture("segnext_t"), task="pre-training")
    encoder = EncoderOnly("segnext_t", create_encoder("segnext_t"))
    path = save_model(tmp_path / "e.safetensors", encoder, spec)
    with pytest.raises(ModelFileError, match="is for pre-training: it makes no maps"):
        finetune(path, scene, drawn, tmp_path / "m.safetensors")
