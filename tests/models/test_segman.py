"""SegMAN's own parts: what stays exact, what is kept, and what it starts from."""

import copy
import pickle

import pytest
import torch
from torch import nn

from geoseg.models import create_model
from geoseg.models import segman_position as position
from geoseg.models.layers import KeepsFloat32
from geoseg.models.segman_encoder import GlobalMixer
from geoseg.models.segman_layers import LayerScale, Ss2d
from geoseg.models.segman_position import Rotary, resize_bias


@pytest.fixture
def mixer():
    torch.manual_seed(0)
    mixer = GlobalMixer(24, 2, 7).eval()
    nn.init.normal_(mixer.rpb[1])
    return mixer


def run(mixer, size=(7, 9)):
    torch.manual_seed(1)
    x = torch.randn(1, 24, *size)
    return mixer(x, Rotary(12)(*size))


def fresh(mixer, size=(7, 9)):
    """Return the answer of a mixer that has nothing kept."""
    other = GlobalMixer(24, 2, 7).eval()
    other.load_state_dict(mixer.state_dict())
    return run(other, size)


def kept(mixer):
    return mixer.resized_bias._kept


@torch.no_grad()
def test_the_resized_bias_is_kept_until_the_size_changes(mixer):
    first = run(mixer)
    bias = kept(mixer).bias
    assert torch.equal(run(mixer), first)
    assert kept(mixer).bias is bias
    assert torch.equal(run(mixer, (8, 8)), fresh(mixer, (8, 8)))
    assert kept(mixer).bias.shape == (2, 64, 64)


def other_weights(mixer):
    mixer.load_state_dict({k: v + 0.5 for k, v in mixer.state_dict().items()})


def a_training_step(mixer):
    optimiser = torch.optim.SGD(mixer.parameters(), lr=10.0)
    with torch.enable_grad():
        run(mixer.train()).square().sum().backward()
    optimiser.step()
    mixer.eval()


def a_step_in_eval_mode(mixer):
    with torch.no_grad():
        mixer.rpb[1].add_(1.0)


def new_memory(mixer):
    mixer.rpb[1].data = torch.randn(2, 49, 49)


def a_new_parameter(mixer):
    mixer.rpb[1] = nn.Parameter(torch.randn(2, 49, 49))


def a_write_that_counts_no_version(mixer):
    """Averages of weights are often kept so."""
    mixer.rpb[1].data.mul_(0.5).add_(0.1)


def other_type_and_back(mixer):
    mixer.to(torch.bfloat16).to(torch.float32)


@pytest.mark.parametrize(
    "change",
    [
        other_weights,
        a_training_step,
        a_step_in_eval_mode,
        new_memory,
        a_new_parameter,
        a_write_that_counts_no_version,
        other_type_and_back,
    ],
)
def test_a_kept_bias_is_never_stale(mixer, change):
    with torch.no_grad():
        before = run(mixer)
        assert kept(mixer) is not None
    change(mixer)
    with torch.no_grad():
        after = run(mixer)
        assert not torch.equal(after, before)
        assert torch.equal(after, fresh(mixer))


def test_nothing_is_kept_with_gradients_or_of_inference_tensors(mixer):
    run(mixer).sum().backward()
    assert kept(mixer) is None
    assert mixer.rpb[1].grad is not None
    with torch.inference_mode():
        run(GlobalMixer(24, 2, 7).eval())


def test_what_is_kept_is_neither_saved_nor_copied(mixer):
    keys = set(mixer.state_dict())
    with torch.no_grad():
        before = run(mixer)
        assert set(mixer.state_dict()) == keys
        for other in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
            assert kept(other) is None
            assert torch.equal(run(other), before)


@torch.no_grad()
def test_a_large_bias_is_not_kept(mixer, monkeypatch):
    monkeypatch.setattr(position, "KEPT_BYTES", 1000)
    run(mixer)
    assert kept(mixer) is None


def test_at_224_px_the_bias_is_itself():
    bias = torch.randn(2, 49, 49)
    assert resize_bias(bias, 49) is bias


def test_angles_and_scan_parameters_stay_in_float32():
    network = create_model("segman_t", num_classes=2)
    exact = {k: v.clone() for k, v in network.state_dict().items()}
    network.to(torch.bfloat16)
    own = [m for m in network.modules() if isinstance(m, KeepsFloat32)]
    assert len(own) == 4 + 8 + 1  # stages, blocks of the first three, and the decoder's
    for key, value in network.state_dict().items():
        if key.endswith(("angle", "A_logs", "Ds", "dt_projs_bias", "dt_projs_weight")):
            assert value.dtype == torch.float32, key
            assert torch.equal(value, exact[key]), key
    assert network.encoder.patch_embed[0].weight.dtype == torch.bfloat16
    assert network.double().encoder.layers[0].rope.angle.dtype == torch.float64


def test_a_cast_after_a_backward_pass():
    scan = Ss2d(16)
    scan(torch.randn(1, 16, 3, 4)).sum().backward()
    scan.half()
    assert scan.A_logs.dtype == torch.float32
    assert scan.A_logs.grad is None


@torch.no_grad()
def test_initial_values():
    torch.manual_seed(0)
    network = create_model("segman_b", num_classes=2)
    block = network.encoder.layers[2].blocks[0]
    scan = block.token_mixer.ssm
    assert torch.equal(scan.A_logs, torch.zeros(640, 1))
    assert torch.equal(scan.Ds, torch.ones(640))
    steps = nn.functional.softplus(scan.dt_projs_bias)
    assert 1e-3 * 0.99 <= float(steps.min()) < 2e-3
    assert 0.05 < float(steps.max()) <= 0.1 * 1.01
    assert float(scan.dt_projs_weight.abs().max()) <= 10**-0.5
    assert float(block.token_mixer.qkv.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert not block.token_mixer.rpb[0].any()
    assert torch.equal(block.layer_scale1.weight, torch.full((160, 1, 1, 1), 1e-6))
    assert float(network.decoder.conv_seg.weight.std()) == pytest.approx(0.01, rel=0.2)
    fused = network.decoder.linear_fuse.conv.weight
    assert float(fused.std()) == pytest.approx((2 / 180) ** 0.5, rel=0.05)


def test_layer_scale_is_a_depthwise_1x1():
    scale = LayerScale(6)
    nn.init.normal_(scale.weight)
    nn.init.normal_(scale.bias)
    x = torch.randn(2, 6, 5, 4).to(memory_format=torch.channels_last)
    expected = nn.functional.conv2d(x, scale.weight, scale.bias, groups=6)
    assert torch.allclose(scale(x), expected, atol=1e-6)
    assert scale(x).is_contiguous(memory_format=torch.channels_last)


def test_drop_path_rates_rise_over_all_blocks():
    network = create_model("segman_s", num_classes=2, drop_path=0.17)
    stages = [network.encoder.layers[i] for i in (0, 2, 4, 6)]
    rates = [block.drop_path.rate for stage in stages for block in stage.blocks]
    assert rates == pytest.approx([0.01 * i for i in range(18)])
    assert network.decoder.vssm.drop_path.rate == 0.0
