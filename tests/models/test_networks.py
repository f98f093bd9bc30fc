"""What every network promises; one suite, one small class per network."""

import pytest
import torch

from geoseg.errors import UsageError
from geoseg.models import MODELS, create_classifier, create_model, list_models
from geoseg.models.hamburger import Hamburger
from geoseg.models.layers import DropPath
from geoseg.published import PARAMETERS as LISTED

PARAMETERS = {  # 150 classes, counted on the official models
    "segnext_t": 4_263_414,
    "segnext_s": 13_932_886,
    "segnext_b": 27_636_310,
    "segnext_l": 48_926_550,
    "segman_t": 6_397_260,
    "segman_s": 29_424_636,
    "segman_b": 51_802_820,
    "segman_l": 92_335_734,
}
ENCODER_PARAMETERS = {
    "segnext_t": 3_903_584,
    "segnext_s": 13_450_176,
    "segnext_b": 26_277_824,
    "segnext_l": 44_636_864,
    "segman_t": 2_281_334,
    "segman_s": 23_955_222,
    "segman_b": 43_419_170,
    "segman_l": 79_301_840,
}


class NetworkSuite:
    name = ""
    smallest_px = 32
    sizes = ((32, 32), (33, 47), (64, 96))
    usual = (64, 64)

    @pytest.fixture(scope="class")
    @classmethod
    def network(cls):
        torch.manual_seed(0)
        return create_model(cls.name, num_classes=5).eval()

    def test_knows_its_name_and_classes(self, network):
        assert (network.name, network.num_classes, network.in_channels) == (self.name, 5, 3)

    def test_parameter_count(self):
        network = create_model(self.name, num_classes=150)
        assert sum(p.numel() for p in network.parameters()) == PARAMETERS[self.name]
        encoder = sum(p.numel() for p in network.encoder.parameters())
        assert encoder == ENCODER_PARAMETERS[self.name]

    def test_listed_parameter_count(self, network):
        of_a_class = network.decoder.conv_seg.weight[0].numel() + 1
        of_five = sum(p.numel() for p in network.parameters())
        assert of_five - 3 * of_a_class == LISTED[self.name]

    @pytest.mark.parametrize("index", range(3))
    def test_shapes_at_any_legal_size(self, network, index):
        size = self.sizes[index]
        image = torch.randn(2, 3, *size)
        with torch.inference_mode():
            stages = network.encoder(image)
            logits = network.decoder(stages)
            full = network(image)
        for i, stage in enumerate(stages):
            assert stage.shape[-2:] == tuple(-(-n // (4 * 2**i)) for n in size)
        assert logits.shape == (2, 5, *stages[1].shape[-2:])
        assert full.shape == (2, 5, *size)
        assert full.dtype == torch.float32

    def test_same_input_same_output(self, network):
        image = torch.randn(1, 3, *self.usual)
        with torch.inference_mode():
            assert torch.equal(network(image), network(image))

    def test_tiles_do_not_depend_on_their_batch(self, network):
        image = torch.randn(3, 3, *self.usual)
        with torch.inference_mode():
            together = network(image)
            alone = torch.cat([network(image[i : i + 1]) for i in range(3)])
        assert torch.allclose(together, alone, atol=1e-4)

    def test_gradients_reach_every_parameter(self):
        network = create_model(self.name, num_classes=3, drop_path=0.0).train()
        network(torch.randn(2, 3, *self.usual)).square().mean().backward()
        without = [n for n, p in network.named_parameters() if p.grad is None]
        assert without == []

    @pytest.mark.parametrize("bands", [1, 4, 13])
    def test_any_number_of_bands(self, bands):
        network = create_model(self.name, in_channels=bands, num_classes=2).eval()
        with torch.inference_mode():
            assert network(torch.randn(1, bands, *self.usual)).shape == (1, 2, *self.usual)

    def test_too_small_an_image_is_refused(self, network):
        with pytest.raises(ValueError, match=f"at least {self.smallest_px} px a side; got 31x40"):
            network(torch.randn(1, 3, 31, 40))

    def test_wrong_bands_are_refused(self, network):
        with pytest.raises(ValueError, match=r"images \(N, 3, H, W\); got \(1, 4, 64, 64\)"):
            network(torch.randn(1, 4, 64, 64))

    def test_runs_in_bf16(self, network):
        image = torch.randn(1, 3, *self.usual)
        other = create_model(self.name, num_classes=5).eval()
        other.load_state_dict(network.state_dict())
        with torch.inference_mode():
            exact = network(image)
            rough = other.to(torch.bfloat16)(image.to(torch.bfloat16))
        assert rough.dtype == torch.float32
        assert (rough - exact).square().mean().sqrt() < 0.1 * exact.std()


class TestSegNeXtT(NetworkSuite):
    name = "segnext_t"


class TestSegNeXtS(NetworkSuite):
    name = "segnext_s"


class TestSegNeXtB(NetworkSuite):
    name = "segnext_b"


@pytest.mark.slow
class TestSegNeXtL(NetworkSuite):
    name = "segnext_l"


class SegManSuite(NetworkSuite):
    smallest_px = 224
    sizes = ((224, 224), (250, 283), (256, 320))
    usual = (224, 224)

    @pytest.mark.parametrize("size", [(224, 240), (225, 256), (192, 256), (216, 224)])
    def test_sizes_that_the_decoder_cannot_fold_are_refused(self, network, size):
        with pytest.raises(ValueError, match=r"multiples of 32 px and at least 224 px a side; got"):
            network(torch.randn(1, 3, *size))

    def test_a_single_image_cannot_be_trained_on(self):
        network = create_model(self.name, num_classes=2).train()
        with pytest.raises(ValueError, match="at least 2 images per process in training.*got 1"):
            network.decoder([torch.randn(1, c, 4, 4) for c in network.encoder.channels])


class TestSegManT(SegManSuite):
    name = "segman_t"


class TestSegManS(SegManSuite):
    name = "segman_s"


@pytest.mark.slow
class TestSegManB(SegManSuite):
    name = "segman_b"


@pytest.mark.slow
class TestSegManL(SegManSuite):
    name = "segman_l"


def test_every_network_has_its_suite():
    families = NetworkSuite.__subclasses__()
    suites = {suite.name for suite in (*families, *SegManSuite.__subclasses__()) if suite.name}
    assert suites == set(MODELS) == set(list_models())


def test_unknown_names_list_close_matches():
    with pytest.raises(UsageError, match=r"unknown model 'segnxt_t'. Did you mean segnext_t"):
        create_model("segnxt_t", num_classes=2)
    with pytest.raises(UsageError, match=r"option of segnext_t 'drop_pth'. Did you mean drop_path"):
        create_model("segnext_t", num_classes=2, drop_pth=0.1)


@pytest.mark.parametrize(
    ("name", "parameters", "side"), [("segnext_t", 4_160_584, 64), ("segman_t", 3_506_014, 224)]
)
def test_classifier(name, parameters, side):
    classifier = create_classifier(name).eval()
    assert sum(p.numel() for p in classifier.parameters()) == parameters
    with torch.inference_mode():
        assert classifier(torch.randn(2, 3, side, side)).shape == (2, 1000)


@pytest.mark.parametrize(("name", "size"), [("segnext_t", (96, 64)), ("segman_t", (224, 256))])
def test_activations_stay_channels_last(monkeypatch, name, size):
    # Fused convolutions call no hooks; tests/models/test_fused.py looks at theirs.
    monkeypatch.setattr("geoseg.models.fused.can_fuse", lambda *_: False)
    network = create_model(name, num_classes=2).eval()
    layouts = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _m, _i, out: layouts.append(
                    out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    with torch.inference_mode():
        network(torch.randn(1, 3, *size))
    assert len(layouts) > 100
    assert all(layouts)


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    kept = drop(torch.ones(4000, 2, 1, 1))
    assert kept.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert kept.mean() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(torch.ones(3, 2, 1, 1)), torch.ones(3, 2, 1, 1))


def test_bases_are_saved_and_random_only_where_asked():
    saved = Hamburger(32, 4)
    assert "bases" in saved.state_dict()
    x = torch.rand(2, 32, 5, 5)
    assert torch.equal(saved.train()(x), saved(x))
    drawn = Hamburger(32, 4, random_bases_in_training=True)
    drawn.load_state_dict(saved.state_dict())
    assert not torch.equal(drawn.train()(x), drawn(x))
    assert torch.equal(drawn.eval()(x), saved.eval()(x))


def test_given_bases_replace_the_saved_ones():
    network = create_model("segnext_t", num_classes=2).eval()
    image, bases = torch.randn(1, 3, 64, 64), torch.rand(1, 256, 16)
    with torch.inference_mode():
        own, given = network(image), network(image, bases=bases)
        scaled = network(image, bases=7 * bases)
    assert not torch.allclose(own, given)
    assert torch.allclose(given, scaled, atol=1e-4)  # normalised inside
