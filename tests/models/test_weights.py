"""Official files load whole or not at all, in every layout they come in."""

import sys
from pathlib import Path

import pytest
import torch

from geoseg.errors import WeightsMismatchError
from geoseg.models import (
    create_classifier,
    create_model,
    from_official,
    load_official_weights,
)
from geoseg.models.weights import (
    adapt_bands,
    network_name,
    network_options,
    official_layout,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule

SIZES = "tsbl"
NAMES = [f"{family}_{size}" for family in ("segnext", "segman") for size in SIZES]


@pytest.fixture(scope="module")
def tiny_segman():
    return rule.state_dict("segman_t_ade20k")


def new_naming(weights):
    """Return a 0.x state dict under the names of the OpenMMLab 1.x re-release."""
    return {k.replace(".mlp.dwconv.dwconv.", ".mlp.dwconv."): v for k, v in weights.items()}


@pytest.fixture(scope="module")
def tiny():
    return rule.state_dict("segnext_t_ade20k")


@pytest.mark.parametrize("name", NAMES)
def test_key_lists_and_shapes_are_the_official_ones(name):
    official = {k: tuple(s) for k, s, _, _ in rule.load(f"keys/{name}_ade20k.json")}
    with torch.device("meta"):
        network = create_model(name, num_classes=150)
    renamed = official_layout({k: torch.empty(s) for k, s in official.items()})
    ours = {k: v.shape for k, v in network.state_dict().items() if not k.endswith(".bases")}
    assert {k: tuple(v.shape) for k, v in renamed.items()} == {k: tuple(s) for k, s in ours.items()}


@pytest.mark.parametrize("name", NAMES)
def test_name_and_classes_are_read_from_shapes(name):
    keys = rule.load(f"keys/{name}_ade20k.json")
    network = from_official({k: torch.zeros(s) for k, s, _, _ in keys})
    assert (network.name, network.num_classes) == (name, 150)
    assert not network.training


@pytest.mark.parametrize("size", SIZES)
def test_classifiers_and_encoders_of_segman_have_the_official_keys(size):
    for kind in ("imagenet", "encoder"):
        keys = rule.load(f"keys/segman_{size}_{kind}.json")
        official = official_layout({k: torch.empty(s, device="meta") for k, s, _, _ in keys})
        with torch.device("meta"):
            ours = create_classifier(f"segman_{size}").state_dict()
        if kind == "encoder":
            ours = {k: v for k, v in ours.items() if k.startswith("encoder.")}
        assert {k: v.shape for k, v in official.items()} == {k: v.shape for k, v in ours.items()}


def test_widths_of_segmans_decoder_are_read_from_shapes():
    keys = rule.load("keys/segman_s_cityscapes_ch152.json")
    weights = {k: torch.zeros(s) for k, s, _, _ in keys}
    network = from_official(weights)
    assert (network.name, network.num_classes) == ("segman_s", 19)
    assert (network.decoder.channels, network.decoder.projection) == (152, 288)
    assert network_options(official_layout(weights)) == {"decoder_channels": 152}


def test_the_second_large_segman_is_told_by_its_third_stage():
    with torch.device("meta"):
        other = create_model("segman_l", num_classes=150, stage3_of_448=True)
    # Counted on the second published configuration.
    assert sum(p.numel() for p in other.encoder.parameters()) == 79_294_700
    weights = other.state_dict()
    assert network_name(weights) == "segman_l"
    assert network_options(weights) == {"stage3_of_448": True}


def test_a_150_way_head_on_fewer_classes_loads_as_it_is(tiny_segman):
    # The published Cityscapes configuration of SegMAN-T says 150 classes.
    assert from_official(tiny_segman).num_classes == 150
    with pytest.raises(WeightsMismatchError, match=r"conv_seg.*expects shape \(19, 128, 1, 1\)"):
        load_official_weights(create_model("segman_t", num_classes=19), tiny_segman)


def test_segmans_imagenet_files_fill_encoders_segmentors_and_classifiers():
    official = rule.state_dict("segman_t_imagenet")
    old = {k: torch.zeros_like(v) for k, v in official.items()}
    file = {"epoch": 300, "arch": "x", "state_dict": old, "state_dict_ema": official}
    network = create_model("segman_t", in_channels=4, num_classes=7)
    unused = load_official_weights(network, file)
    assert {key.split(".")[0] for key in unused} == {"classifier"}
    given = official["patch_embed.0.weight"]
    assert torch.allclose(network.encoder.patch_embed[0].weight[:, 3], given[:, 0] * 0.75)
    bias = "layers.6.blocks.1.token_mixer.rpb.1"
    assert torch.equal(network.encoder.state_dict()[bias], official[bias])
    classifier = create_classifier("segman_t")
    assert load_official_weights(classifier, file) == []
    assert torch.equal(classifier.classifier[4].bias, official["classifier.4.bias"])


def test_other_rotary_angles_are_loaded_and_said(tiny_segman, caplog):
    network = create_model("segman_t", num_classes=150)
    load_official_weights(network, tiny_segman)
    assert not caplog.records
    key = "layers.2.rope.angle"
    other = tiny_segman[f"backbone.{key}"] * 1.5
    load_official_weights(network, tiny_segman | {f"backbone.{key}": other})
    assert torch.equal(network.encoder.state_dict()[key], other)
    assert "encoder.layers.2.rope.angle differs" in caplog.text
    unpaired = tiny_segman | {f"backbone.{key}": torch.arange(16.0)}
    with pytest.raises(WeightsMismatchError, match="expected each angle twice in a row"):
        load_official_weights(network, unpaired)


def test_both_namings_and_all_wrappers_give_the_same_network(tiny):
    reference = from_official(tiny).state_dict()
    for layout in (
        new_naming(tiny),
        {"state_dict": tiny, "meta": {"epoch": 3}},
        {"model": tiny},
        {"state_dict_ema": tiny, "state_dict": {"x": torch.zeros(1)}},
        {f"module.{k}": v for k, v in tiny.items()},
    ):
        made = from_official(layout).state_dict()
        assert all(torch.equal(made[k], v) for k, v in reference.items())


def test_encoder_files_fill_encoders_segmentors_and_classifiers():
    encoder = rule.state_dict("mscan_t_encoder")
    head = {"head.weight": torch.randn(1000, 256), "head.bias": torch.randn(1000)}
    network = create_model("segnext_t", num_classes=7)
    before = network.decoder.conv_seg.weight.clone()
    assert load_official_weights(network, encoder | head) == ["head.bias", "head.weight"]
    stored = encoder["patch_embed1.proj.0.weight"]
    assert torch.equal(network.encoder.patch_embed1.proj[0].weight, stored)
    assert torch.equal(network.decoder.conv_seg.weight, before)
    assert load_official_weights(network.encoder, encoder) == []
    classifier = create_classifier("segnext_t")
    assert load_official_weights(classifier, {"state_dict": encoder | head}) == []
    assert torch.equal(classifier.head.bias, head["head.bias"])


def test_bases_of_a_checkpoint_are_taken(tiny):
    bases = torch.rand(1, 256, 16)
    network = from_official(tiny | {"decode_head.hamburger.ham.bases": bases})
    assert torch.equal(network.decoder.hamburger.bases, bases)


def test_unused_keys_are_returned(tiny):
    network = create_model("segnext_t", num_classes=150)
    extra = {"auxiliary_head.conv.weight": torch.zeros(1)}
    assert load_official_weights(network, tiny | extra) == ["auxiliary_head.conv.weight"]


def test_a_missing_key_is_named(tiny):
    broken = {k: v for k, v in tiny.items() if k != "backbone.norm2.bias"}
    with pytest.raises(WeightsMismatchError, match=r"lacks 1 of the keys .*'encoder.norm2.bias'"):
        load_official_weights(create_model("segnext_t", num_classes=150), broken)


def test_another_size_or_class_count_is_named(tiny):
    with pytest.raises(WeightsMismatchError, match="checkpoint"):
        load_official_weights(create_model("segnext_s", num_classes=150), tiny)
    with pytest.raises(WeightsMismatchError, match=r"conv_seg.*expects shape \(3, 256, 1, 1\)"):
        load_official_weights(create_model("segnext_t", num_classes=3), tiny)


def test_what_is_no_checkpoint_is_refused(tiny):
    with pytest.raises(WeightsMismatchError, match="expected a state dict of tensors"):
        from_official({"epoch": 3})
    with pytest.raises(WeightsMismatchError, match="expected a checkpoint of segnext_t"):
        from_official({"layer.weight": torch.zeros(3)})
    encoder = {k: v for k, v in tiny.items() if k.startswith("backbone.")}
    with pytest.raises(WeightsMismatchError, match="only an encoder of segnext_t"):
        from_official(encoder)


def test_more_bands_repeat_and_rescale_the_first_convolution(tiny):
    network = create_model("segnext_t", in_channels=4, num_classes=150)
    load_official_weights(network, tiny)
    given = tiny["backbone.patch_embed1.proj.0.weight"]
    made = network.encoder.patch_embed1.proj[0].weight
    assert torch.allclose(made[:, 3], given[:, 0] * 0.75)
    assert torch.allclose(made[:, :3], given * 0.75)


@pytest.mark.parametrize("bands", [1, 2, 3, 5, 13])
def test_equal_bands_give_the_response_they_gave(bands):
    weight = torch.ones(8, 3, 3, 3)
    adapted = adapt_bands(weight, bands)
    assert adapted.shape == (8, bands, 3, 3)
    assert torch.allclose(adapted.sum(dim=1), weight.sum(dim=1))


def test_half_an_encoder_fills_no_encoder():
    weights = rule.state_dict("mscan_t_encoder")
    encoder = create_model("segnext_t", num_classes=2).encoder
    without_last = {k: v for k, v in weights.items() if not k.startswith(("block4", "norm4"))}
    for broken in (without_last, {"conv1.weight": torch.zeros(64, 3, 7, 7)}):
        with pytest.raises(WeightsMismatchError, match="checkpoint lacks"):
            load_official_weights(encoder, broken)
