"""SegNeXt equals the official implementation, value by value."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from geoseg.models import create_classifier, create_model, from_official, load_official_weights
from geoseg.models.hamburger import STEPS_EVAL, STEPS_TRAIN, LightHamHead, factorise
from geoseg.models.mscan import MscanBlock, SpatialGate
from geoseg.models.weights import official_layout

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule

CASES = [c for c in rule.load("manifest.json")["cases"] if c["model"].startswith("segnext")]
OPS = rule.load("ops/manifest.json")["ops"]


def test_the_rule_rebuilds_the_recorded_tensors():
    record = rule.load("rule_check.json")
    tensors = {"image": rule.image, "nmf_bases": rule.bases}
    for check in record["tensors"]:
        made = tensors[check["tag"].split(":")[0]](check["tag"]).double()
        assert np.allclose(made.flatten()[:4], check["first4"], atol=1e-6)
        assert float(made.sum()) == pytest.approx(check["sum"], rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["file"].removeprefix("models/")[:-4])
def test_stages_and_logits_equal_the_official_ones(case):
    network = from_official(rule.state_dict(f"{case['model']}_ade20k"))
    assert (network.name, network.num_classes) == (case["model"], 150)
    stored = rule.arrays(case["file"])
    with torch.inference_mode():
        stages = network.encoder(rule.image(case["image"]))
        logits = network.decoder(stages, bases=rule.bases(case["nmf"]["bases"]))
    outputs = {f"stage{i + 1}": stage for i, stage in enumerate(stages)} | {"logits": logits}
    assert set(outputs) == set(case["outputs"])
    for name, record in case["outputs"].items():
        limit = (2e-5 if name == "logits" else 5e-5) * max(1.0, record["std"])
        assert rule.error(outputs[name], stored, name) <= limit, name


@pytest.mark.parametrize("size", "tsbl")
def test_the_classifier_averages_the_official_features(size):
    case = next(c for c in CASES if c["file"] == f"models/segnext_{size}__1x3x64x64.npz")
    stored = rule.arrays(case["file"])
    weights = rule.state_dict(f"mscan_{size}_encoder")
    width = int(stored["stage4__shape"][1])
    weights |= {"head.weight": torch.randn(1000, width), "head.bias": torch.randn(1000)}
    classifier = create_classifier(f"segnext_{size}").eval()
    assert load_official_weights(classifier, weights) == []
    with torch.inference_mode():
        logits = classifier(rule.image(case["image"]))
    assert int(stored["stage4__stride"]) == 1  # complete
    features = torch.from_numpy(stored["stage4__sample"]).view(1, width, -1).mean(dim=2)
    expected = features @ weights["head.weight"].T + weights["head.bias"]
    assert float((logits - expected).abs().max()) < 2e-4 * float(expected.std())


def test_intermediate_modules_equal_the_official_ones():
    case = next(c for c in CASES if "trace" in c)
    network = from_official(rule.state_dict(f"{case['model']}_ade20k"))
    stored = rule.arrays(case["trace"])
    paths = {key.removesuffix("__shape") for key in stored if key.endswith("__shape")}
    # Activations and the factorisation are functions here; what follows them is compared.
    paths = {p for p in paths if not p.endswith((".activate", ".ham"))}
    assert len(paths) >= 20
    found = {}

    def keep(path):
        def hook(_module, _inputs, output):
            found[path] = output

        return hook

    for path in paths:
        name = path.replace("backbone.", "encoder.").replace("decode_head.", "decoder.")
        network.get_submodule(name).register_forward_hook(keep(path))
    with torch.inference_mode():
        features = network.encoder(rule.image(case["image"]))
        network.decoder(features, bases=rule.bases(case["nmf"]["bases"]))
    assert set(found) == paths
    for path, output in found.items():
        if path in {"decode_head.squeeze", "decode_head.align"}:
            output = output.relu()
        if len(stored[f"{path}__shape"]) == 3:  # the official encoder passes (N, H W, C) tokens
            output = output.flatten(2).transpose(1, 2)
        std = float(stored[f"{path}__stats"][1])
        assert rule.error(output, stored, path) <= 5e-5 * max(1.0, std), path


@pytest.mark.parametrize("name", [n for n in OPS if n.startswith("nmf2d")])
def test_factorisation_and_its_gradient(name):
    stored = rule.arrays(f"ops/{name}.npz")
    x = torch.from_numpy(stored["x"]).requires_grad_()
    bases = torch.from_numpy(stored["bases_raw"])
    assert torch.equal(bases, rule.bases(OPS[name]["bases"]))
    _assert_close(factorise(x, bases, STEPS_EVAL), stored["y_eval"])
    trained = factorise(x, bases, STEPS_TRAIN)
    _assert_close(trained, stored["y_train"])
    trained.backward(torch.from_numpy(stored["gy"]))
    _assert_close(x.grad, stored["grad_x_train"], relative=1e-4)


def _filled(module: nn.Module, name: str) -> nn.Module:
    prefix = OPS[name]["prefix"]
    keys = {key: rule.weight(prefix + key, tuple(shape)) for key, shape in OPS[name]["keys"]}
    weights = {
        key.replace("mlp.dwconv.dwconv.", "mlp.dwconv."): torch.from_numpy(np.asarray(value))
        for key, value in keys.items()
    }
    own = {k: v for k, v in module.state_dict().items() if k.endswith(".bases")}
    module.load_state_dict(weights | own)
    return module.eval()


def _check_module(module, inputs, stored, *, tokens=None, **kwargs):
    """Compare a module's output, input gradients and parameter gradient norms."""
    given = []
    for i in range(inputs):
        x = torch.from_numpy(stored[f"x{i}"])
        if tokens:
            x = x.transpose(1, 2).unflatten(2, tokens)
        given.append(x.requires_grad_())
    y = module(given if inputs > 1 else given[0], **kwargs)
    if tokens:
        y = y.flatten(2).transpose(1, 2)
    _assert_close(y, stored["y"])
    y.backward(torch.from_numpy(stored["gy"]))
    for i, x in enumerate(given):
        grad = torch.zeros_like(x) if x.grad is None else x.grad
        grad = grad.flatten(2).transpose(1, 2) if tokens else grad
        _assert_close(grad, stored[f"grad_x{i}"], relative=1e-4)
    norms = {k.removeprefix("gradnorm:"): float(v) for k, v in stored.items() if "gradnorm" in k}
    own = dict(module.named_parameters())
    assert len(norms) == len(own)
    for key, norm in norms.items():
        grad = own[key.replace("mlp.dwconv.dwconv.", "mlp.dwconv.")].grad
        assert norm < 1e-6 or float(grad.norm()) == pytest.approx(norm, rel=1e-3), key


def test_block():
    stored = rule.arrays("ops/mscan_block_9x11.npz")
    block = _filled(MscanBlock(16, 4, 0.0), "mscan_block_9x11")
    _check_module(block, 1, stored, tokens=(9, 11))


def test_spatial_gate():
    stored = rule.arrays("ops/mscan_attention_module_9x11.npz")
    _check_module(_filled(SpatialGate(8), "mscan_attention_module_9x11"), 1, stored)


def test_decoder():
    stored = rule.arrays("ops/lightham_head_7x10.npz")
    head = _filled(LightHamHead((12, 16, 20), 64, 7, rank=8, channels=32), "lightham_head_7x10")
    bases = torch.from_numpy(stored["bases_raw"]) if "bases_raw" in stored else None
    if bases is None:
        bases = rule.bases(OPS["lightham_head_7x10"].get("bases", "nmf_bases:2x64x8"))
    _check_module(head, 4, stored, bases=bases)


def test_training_step():
    case = next(c for c in rule.load("train/manifest.json")["cases"] if c["model"] == "segnext_t")
    network = create_model(case["model"], num_classes=150, drop_path=0.0, dropout=0.0)
    load_official_weights(network, rule.state_dict(f"{case['model']}_ade20k"))
    network.train()
    target = rule.labels(case["labels"])
    tag = case.get("nmf", {}).get("bases", "nmf_bases:2x256x16")
    logits = network(rule.image(case["image"]), bases=rule.bases(tag))
    losses = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    loss = losses.sum() / losses.numel()
    loss.backward()
    valid = (target != 255).sum()
    assert float(loss.detach()) == pytest.approx(case["loss_mmseg_default"], rel=1e-5)
    assert float(losses.detach().sum() / valid) == pytest.approx(
        case["loss_avg_non_ignore"], rel=1e-5
    )
    _check_gradients(network, case)
    own = network.state_dict()
    for key, (mean, std) in case["bn_buffers_mean_std_after"].items():
        buffer = own[next(iter(official_layout({key: torch.zeros(1)})))].double()
        assert float(buffer.mean()) == pytest.approx(mean, rel=1e-4, abs=1e-5), key
        if buffer.ndim:
            assert float(buffer.std()) == pytest.approx(std, rel=1e-3, abs=1e-5), key


def _check_gradients(network, case):
    parameters = dict(network.named_parameters())
    checked = 0
    for key, (norm, _, _) in case["grads_norm_sum_absmax"].items():
        ours = next(iter(official_layout({key: torch.zeros(1)})))
        if norm >= 1e-6:
            assert float(parameters[ours].grad.norm()) == pytest.approx(norm, rel=1e-3), key
            checked += 1
    assert checked > 200
    assert len(case["grads_norm_sum_absmax"]) == len(parameters)


def _assert_close(made, stored, *, relative=1e-5):
    limit = 1e-5 + relative * float(np.abs(stored).max())
    assert float(np.abs(made.detach().numpy() - stored).max()) <= limit
