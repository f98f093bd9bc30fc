"""SegMAN equals the official implementation, value by value."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from geoseg.models import create_classifier, create_model, from_official, load_official_weights
from geoseg.models.segman_decoder import SegManDecoder
from geoseg.models.segman_encoder import GlobalMixer, LocalMixer
from geoseg.models.segman_layers import SegManBlock
from geoseg.models.segman_position import Rotary, resize_bias
from geoseg.models.weights import official_layout
from geoseg.ops.neighborhood_attention import rope_angles
from geoseg.ops.reference import rotate

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule

CASES = [c for c in rule.load("manifest.json")["cases"] if c["model"].startswith("segman")]
OPS = rule.load("ops/manifest.json")["ops"]
# Segmentors whose key list is not named <model>_ade20k.
KEYS = {"segman_s_cityscapes_ch152": "segman_s_cityscapes_ch152"}


def cases(kind):
    """Return the cases of whole segmentors, or those of a kind that the model's name ends with."""
    special = ("_encoder", "_imagenet")
    chosen = [
        c
        for c in CASES
        if (c["model"].endswith(kind) if kind else not c["model"].endswith(special))
    ]
    return [pytest.param(c, id=c["file"].removeprefix("models/")[:-4]) for c in chosen]


def check(outputs, case):
    stored = rule.arrays(case["file"])
    assert set(outputs) == set(case["outputs"])
    for name, record in case["outputs"].items():
        limit = (2e-5 if name == "logits" else 5e-5) * max(1.0, record["std"])
        assert rule.error(outputs[name], stored, name) <= limit, name


def named(stages):
    return {f"stage{i + 1}": stage for i, stage in enumerate(stages)}


def test_the_rule_rebuilds_the_recorded_weights():
    for check in rule.load("rule_check.json")["weights"]:
        made = rule.weight(check["key"].removeprefix("backbone."), tuple(check["shape"]))
        assert np.allclose(made.flatten()[:4], check["first4"], atol=1e-6)
        assert float((made.astype(float) ** 2).sum()) == pytest.approx(check["sumsq"], rel=1e-5)


@pytest.mark.parametrize("case", cases(""))
def test_stages_and_logits_equal_the_official_ones(case):
    keys = KEYS.get(case["model"], f"{case['model']}_ade20k")
    network = from_official(rule.state_dict(keys))
    assert network.name == case["model"][: len("segman_t")]
    assert network.num_classes == (19 if "cityscapes" in keys else 150)
    with torch.inference_mode():
        stages = network.encoder(rule.image(case["image"]))
        logits = network.decoder(stages)
    check(named(stages) | {"logits": logits}, case)


@pytest.mark.parametrize("case", cases("_encoder"))
def test_the_encoder_takes_sizes_that_the_decoder_does_not(case):
    encoder = create_model("segman_t", num_classes=2).encoder.eval()
    assert load_official_weights(encoder, rule.state_dict("segman_t_encoder")) == []
    with torch.inference_mode():
        check(named(encoder(rule.image(case["image"]))), case)


@pytest.mark.parametrize("case", cases("_imagenet"))
def test_classifiers_equal_the_official_ones(case):
    classifier = create_classifier(case["model"].removesuffix("_imagenet")).eval()
    assert load_official_weights(classifier, {"state_dict": rule.state_dict(case["model"])}) == []
    with torch.inference_mode():
        check({"logits": classifier(rule.image(case["image"]))}, case)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=c["model"], marks=[pytest.mark.slow] if c["model"] != "segman_t" else [])
        for c in CASES
        if "trace" in c
    ],
)
def test_intermediate_modules_equal_the_official_ones(case):
    network = from_official(rule.state_dict(f"{case['model']}_ade20k"))
    stored = rule.arrays(case["trace"])
    paths = {key.removesuffix("__shape") for key in stored if key.endswith("__shape")}
    # ReLU is a function here; what it follows is compared. A dropped path is called twice.
    paths = {p for p in paths if not p.endswith((".activate", ".drop_path"))}
    assert len(paths) > 80
    found = {}

    def keep(path):
        def hook(_module, _inputs, output):
            found[path] = output

        return hook

    for path in paths:
        name = path.replace("backbone.", "encoder.").replace("decode_head.", "decoder.")
        network.get_submodule(name).register_forward_hook(keep(path))
    # With gradients: fused convolutions, which call no hooks, need none.
    network.decoder(network.encoder(rule.image(case["image"])))
    assert set(found) == paths
    for path, output in found.items():
        if path.endswith(".proj") and "linear" in path:  # pixels, (N, H, W, P) here
            output = output.flatten(1, 2)
        if path.endswith(".ssm"):
            output = output.flatten(2)
        std = float(stored[f"{path}__stats"][1])
        assert rule.error(output, stored, path) <= 5e-5 * max(1.0, std), path


@pytest.mark.parametrize("name", [n for n in OPS if n.startswith("rope")])
def test_rotation(name):
    stored = rule.arrays(f"ops/{name}.npz")
    rotary = Rotary(OPS[name]["head_dim"])
    assert torch.equal(rotary.angle, torch.from_numpy(stored["angle"]))
    x = torch.from_numpy(stored["x"]).movedim(1, 3)  # (N, H, W, heads, d)
    sin, cos = rope_angles(rotary(*x.shape[1:3]))
    for made, key in ((sin, "sin"), (cos, "cos")):
        # Stored per channel; here per pair of channels.
        assert np.abs(made.repeat_interleave(2, -1).numpy() - stored[key]).max() <= 1e-6
    assert np.abs(rotate(x, sin, cos).movedim(3, 1).numpy() - stored["y"]).max() <= 1e-6


@pytest.mark.parametrize("name", [n for n in OPS if n.startswith("global_bias")])
def test_the_global_bias_is_resized_as_an_image(name):
    stored = rule.arrays(f"ops/{name}.npz")
    made = resize_bias(torch.from_numpy(stored["rpb"]), OPS[name]["L"])
    assert_close(made, stored["y"])


def filled(module, name):
    prefix = OPS[name]["prefix"]
    weights = {
        key: torch.from_numpy(np.asarray(rule.weight(prefix + key, tuple(shape))))
        for key, shape in OPS[name]["keys"]
    }
    module.load_state_dict(weights)
    return module.eval()


def check_module(module, inputs, name, *given):
    """Compare a module's output, input gradients and parameter gradient norms."""
    stored = rule.arrays(f"ops/{name}.npz")
    xs = [torch.from_numpy(stored[f"x{i}"]).requires_grad_() for i in range(inputs)]
    y = module(xs if inputs > 1 else xs[0], *given)
    assert_close(y, stored["y"])
    y.backward(torch.from_numpy(stored["gy"]))
    for i, x in enumerate(xs):
        grad = torch.zeros_like(x) if x.grad is None else x.grad
        assert_close(grad, stored[f"grad_x{i}"], relative=1e-4)
    norms = {k.removeprefix("gradnorm:"): float(v) for k, v in stored.items() if "gradnorm" in k}
    own = dict(module.named_parameters())
    assert set(norms) == set(own)
    for key, norm in norms.items():
        assert norm < 1e-6 or float(own[key].grad.norm()) == pytest.approx(norm, rel=1e-3), key


@pytest.mark.parametrize("name", [n for n in OPS if n.startswith("segman_block")])
def test_block(name):
    mixer = LocalMixer if "local" in name else GlobalMixer
    block = SegManBlock(24, mixer(24, 2, 7), 81, layer_scale="_ls_" in name)
    height, width = map(int, name.split("_")[-1].split("x"))
    check_module(filled(block, name), 1, name, Rotary(12)(height, width))


def test_decoder():
    decoder = SegManDecoder((12, 16, 20), 16, 24, num_classes=7)
    check_module(filled(decoder, "segman_decoder_8x12"), 4, "segman_decoder_8x12")


def test_training_step():
    case = next(c for c in rule.load("train/manifest.json")["cases"] if c["model"] == "segman_t")
    network = create_model("segman_t", num_classes=19, drop_path=0.0, dropout=0.0)
    load_official_weights(network, rule.state_dict("segman_t_ade20k", num_classes=19))
    network.train()
    target = rule.labels(case["labels"])
    losses = F.cross_entropy(
        network(rule.image(case["image"])), target, ignore_index=255, reduction="none"
    )
    loss = losses.sum() / losses.numel()
    loss.backward()
    valid = (target != 255).sum()
    assert float(loss.detach()) == pytest.approx(case["loss_mmseg_default"], rel=1e-5)
    average = float(losses.detach().sum() / valid)
    assert average == pytest.approx(case["loss_avg_non_ignore"], rel=1e-5)
    parameters, buffers = dict(network.named_parameters()), dict(network.named_buffers())
    norms = {renamed(k): v[0] for k, v in case["grads_norm_sum_absmax"].items()}
    assert set(norms) == set(parameters)
    for key, norm in norms.items():
        grad = parameters[key].grad
        assert norm < 1e-6 or float(grad.norm()) == pytest.approx(norm, rel=1e-3), key
    for key, (mean, std) in case["bn_buffers_mean_std_after"].items():
        buffer = buffers[renamed(key)].double()
        assert float(buffer.mean()) == pytest.approx(mean, rel=1e-4, abs=1e-5), key
        if buffer.ndim:
            assert float(buffer.std()) == pytest.approx(std, rel=1e-3, abs=1e-5), key


def renamed(key):
    return next(iter(official_layout({key: torch.zeros(1)})))


def assert_close(made, stored, *, relative=1e-5):
    limit = 1e-5 + relative * float(np.abs(stored).max())
    assert float(np.abs(made.detach().numpy() - stored).max()) <= limit
