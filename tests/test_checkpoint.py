"""Model files are whole, self-describing and refused with a sentence when they are not."""

import errno
import json
import struct

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from geoseg import checkpoint
from geoseg.checkpoint import (
    load_model,
    load_network,
    read_spec,
    save_model,
)
from geoseg.errors import DiskFullError, MachineError, ModelFileError
from geoseg.model_files import shipped_models
from geoseg.models import create_classifier, create_model
from geoseg.segmenter import Segmenter
from geoseg.spec import Architecture
from tests.conftest import make_spec


@pytest.fixture
def network():
    torch.manual_seed(0)
    return create_model("segnext_t", num_classes=4).eval()


@pytest.fixture
def spec():
    return make_spec(3, mean=100, std=50, architecture=Architecture("segnext_t"))


def test_save_load_predict_gives_the_same_logits(network, spec, tmp_path):
    path = save_model(tmp_path / "m.safetensors", network, spec)
    values = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    loaded = load_model(path)
    assert loaded.spec == read_spec(path) == spec
    assert len(loaded.sha256) == 64
    with torch.inference_mode():
        assert torch.equal(loaded(values), Segmenter(network, spec).eval()(values))


def test_train_one_step_save_load(network, spec, tmp_path):
    model = Segmenter(network, spec).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    values = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    torch.nn.functional.cross_entropy(model(values), torch.zeros(2, 64, 64).long()).backward()
    optimizer.step()
    save_model(tmp_path / "m.safetensors", network, spec)
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "m.safetensors")(values), model.eval()(values))


def test_half_precision_halves_the_file_and_hardly_moves_the_answer(network, spec, tmp_path):
    whole = save_model(tmp_path / "w.safetensors", network, spec)
    half = save_model(tmp_path / "h.safetensors", network, spec, half=True)
    assert half.stat().st_size < 0.53 * whole.stat().st_size
    values = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        a, b = load_model(whole)(values), load_model(half)(values)
    assert (a - b).abs().max() < 0.02 * a.std()
    assert next(load_model(half).parameters()).dtype == torch.float32


def test_classifiers_load_as_networks_only(tmp_path):
    spec = make_spec(3, 1000, architecture=Architecture("segnext_t"), task="classification")
    path = save_model(tmp_path / "c.safetensors", create_classifier("segnext_t"), spec)
    assert load_network(path)[0].num_classes == 1000
    with pytest.raises(ModelFileError, match="is for classification"):
        load_model(path)


def test_shipped_models_have_short_names():
    shipped = shipped_models()
    assert shipped["demo-buildings-banepa"] == shipped["demo-buildings-banepa-segnext_t"]
    assert load_model("demo-buildings-banepa").spec.warning.startswith("Demonstration model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "another kind of file"),
        (b"PK\x03\x04 not a model, but long enough", "another kind of file"),
        (struct.pack("<Q", 10) + b"{not json}", "a damaged header"),
        (struct.pack("<Q", 2) + b"{}", "without a geoseg record"),
        (struct.pack("<Q", 10**15), "another kind of file"),
    ],
)
def test_what_is_no_model_file_is_refused(tmp_path, content, message):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_spec(path)


def test_other_refusals(network, spec, tmp_path):
    with pytest.raises(ModelFileError, match="does not exist"):
        read_spec(tmp_path / "x.safetensors")
    with pytest.raises(ModelFileError, match=r"no model 'segnxt': .*demo-buildings-banepa"):
        load_model("segnxt")
    with pytest.raises(ModelFileError, match="ends with .safetensors"):
        save_model(tmp_path / "m.pth", network, spec)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"geoseg.spec": spec.to_json()})
    with pytest.raises(ModelFileError, match=r"weights and record disagree in \d+ tensors"):
        load_model(tmp_path / "x.safetensors")
    other = json.loads(spec.to_json())
    other["architecture"]["name"] = "unet"
    save_file({"x": torch.zeros(1)}, tmp_path / "u.safetensors", {"geoseg.spec": json.dumps(other)})
    with pytest.raises(ModelFileError, match="one of the networks segnext_t, .*; got 'unet'"):
        load_model(tmp_path / "u.safetensors")
    path = save_model(tmp_path / "cut.safetensors", network, spec)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match="damaged weights"):
        load_model(path)


@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError, "is full; no model was"),
        (
            SafetensorError("I/O error: No space left (os error: StorageFull)"),
            DiskFullError,
            "full",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), MachineError, "Give another name"),
    ],
    ids=["full", "full by its words", "forbidden"],
)
def test_what_a_disk_refuses_is_said(network, spec, tmp_path, monkeypatch, problem, kind, message):
    def refuse(*_, **__):
        raise problem

    path = tmp_path / "m.safetensors"
    path.write_bytes(b"before")
    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(kind, match=message):
        save_model(path, network, spec)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
