"""Official checkpoints become models that know how they are fed."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geoseg.checkpoint import load_model, load_network, read_spec
from geoseg.convert import class_color, convert_official, load_checkpoint
from geoseg.errors import ModelFileError
from geoseg.models import create_model
from geoseg.spec import Architecture, ClassSpec

sys.path.insert(0, str(Path(__file__).parent / "golden"))
import rule

FIRST = "backbone.patch_embed1.proj.0.weight"


@pytest.fixture(scope="module")
def weights():
    return rule.state_dict("segnext_t_ade20k", num_classes=3)


def saved(tmp_path, content):
    path = tmp_path / "official.pth"
    torch.save(content, path)
    return path


def test_a_segmentor_with_its_own_classes(weights, tmp_path):
    meta = {"CLASSES": ("a", "b", "c"), "PALETTE": [[0, 0, 0], [255, 0, 16], [1, 2, 3]]}
    path = saved(tmp_path, {"state_dict": weights, "meta": meta, "optimizer": {"lr": 0.1}})
    spec = convert_official(path, tmp_path / "m.safetensors")
    assert read_spec(tmp_path / "m.safetensors") == spec
    assert [(c.id, c.name, c.color) for c in spec.classes] == [
        (0, "a", "#000000"),
        (1, "b", "#ff0010"),
        (2, "c", "#010203"),
    ]
    assert spec.bands[0].mean == 123.675
    model = load_model(tmp_path / "m.safetensors")
    key = "decode_head.conv_seg.weight"
    assert torch.equal(model.network.decoder.conv_seg.weight, weights[key])


def test_segman_carries_its_sizes_and_options(tmp_path):
    weights = rule.state_dict("segman_t_ade20k", num_classes=3)
    for key in list(weights):  # a decoder of another width, as the Cityscapes file of size S has
        if key.startswith("decode_head."):
            del weights[key]
    network = create_model("segman_t", num_classes=3, decoder_channels=24)
    head = {f"decode_head.{k}": v for k, v in network.decoder.state_dict().items()}
    path = saved(tmp_path, {"state_dict": weights | head, "meta": {"CLASSES": ("a", "b", "c")}})
    spec = convert_official(path, tmp_path / "m.safetensors")
    assert spec.architecture == Architecture("segman_t", {"decoder_channels": 24})
    assert (spec.tile.multiple_px, spec.tile.min_px) == (32, 224)
    model = load_model(tmp_path / "m.safetensors")
    with torch.inference_mode():
        assert model(torch.full((1, 3, 200, 230), 127.0)).shape == (1, 3, 200, 230)


def test_an_imagenet_file_of_segman(tmp_path):
    file = {"state_dict_ema": rule.state_dict("segman_t_imagenet"), "epoch": 309}
    spec = convert_official(saved(tmp_path, file), tmp_path / "m.safetensors")
    assert (spec.task, spec.num_classes) == ("classification", 1000)
    network, _ = load_network(tmp_path / "m.safetensors")
    assert network.name == "segman_t"


def test_classes_of_the_1x_files(weights, tmp_path):
    meta = {"dataset_meta": {"classes": ["x", "y", "z"], "palette": None}}
    spec = convert_official(
        saved(tmp_path, {"state_dict": weights, "meta": meta}), tmp_path / "m.safetensors"
    )
    assert [c.name for c in spec.classes] == ["x", "y", "z"]


def test_given_classes_and_numbers(weights, tmp_path):
    path = saved(tmp_path, weights)
    spec = convert_official(path, tmp_path / "m.safetensors", half=True)
    assert [c.name for c in spec.classes] == ["class 0", "class 1", "class 2"]
    named = [ClassSpec(i, n, "#000000") for i, n in enumerate("pqr")]
    spec = convert_official(path, tmp_path / "n.safetensors", classes=named)
    assert [c.name for c in spec.classes] == ["p", "q", "r"]
    with pytest.raises(ModelFileError, match="has 3 classes; the class list has 2"):
        convert_official(path, tmp_path / "o.safetensors", classes=named[:2])


def test_an_imagenet_encoder_is_kept_as_a_classifier(tmp_path):
    encoder = rule.state_dict("mscan_t_encoder")
    head = {"head.weight": torch.randn(1000, 256), "head.bias": torch.zeros(1000)}
    path = saved(tmp_path, {"state_dict": encoder | head})
    spec = convert_official(path, tmp_path / "e.safetensors")
    assert spec.task == "classification"
    network, _ = load_network(tmp_path / "e.safetensors")
    assert torch.equal(network.head.weight, head["head.weight"])


def test_what_published_files_hold_beside_tensors_is_read(weights, tmp_path):
    content = {
        "state_dict": weights,
        "args": argparse.Namespace(lr=0.1),
        "metric": np.float64(76.2),
        "epoch": 3,
    }
    checkpoint = load_checkpoint(saved(tmp_path, content))
    assert checkpoint["args"].lr == 0.1
    assert checkpoint["metric"] == 76.2


class Evil:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_nothing_else_is_unpickled(weights, tmp_path, capsys):
    path = saved(tmp_path, {"state_dict": weights, "x": Evil()})
    with pytest.raises(ModelFileError, match="objects .* that could run code") as caught:
        load_checkpoint(path)
    assert "weights_only" not in str(caught.value)  # torch's advice to switch the safety off
    assert capsys.readouterr().out == ""


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(ModelFileError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ModelFileError, match="text.pth"):
        load_checkpoint(tmp_path / "text.pth")
    with pytest.raises(ModelFileError, match="expected a dict; got Tensor"):
        load_checkpoint(saved(tmp_path, torch.zeros(3)))


def test_colors_differ():
    colors = [class_color(i) for i in range(150)]
    assert len(set(colors)) == 150
    assert colors[:4] == ["#000000", "#800000", "#008000", "#808000"]


def test_an_encoder_without_a_head_gets_none(tmp_path, caplog):
    encoder = rule.state_dict("mscan_t_encoder")
    other = {f"backbone.{k}": v for k, v in encoder.items()} | {"head.fc.weight": torch.ones(10, 9)}
    for i, content in enumerate((encoder, other)):
        path = saved(tmp_path, {"state_dict": content})
        spec = convert_official(path, tmp_path / f"{i}.safetensors")
        assert (spec.task, spec.classes) == ("pre-training", ())
        network, _ = load_network(tmp_path / f"{i}.safetensors")
        key = "patch_embed1.proj.0.weight"
        assert torch.equal(network.encoder.state_dict()[key], encoder[key])
    assert "left out" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("decode_head.conv_seg.weight"), "its decode head lacks that layer"),
        (
            lambda w: w.update({FIRST: torch.zeros(16, 4, 3, 3)}),
            "takes 4 bands, and the statistics",
        ),
        (lambda w: w.update({"decode_head.conv_seg.weight": torch.ones(())}), "fewer dimensions"),
        (lambda w: w.update({FIRST: torch.ones(16)}), "fewer dimensions"),
        (lambda w: w.pop(FIRST), "lacks the first convolution"),
    ],
    ids=["no last layer", "four bands", "scalar", "vector", "no first layer"],
)
def test_other_checkpoints_are_refused(weights, tmp_path, change, message):
    changed = dict(weights)
    change(changed)
    with pytest.raises(ModelFileError, match=message):
        convert_official(saved(tmp_path, changed), tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()
