"""A network behind its record: padding to legal sizes, precision, kinds of answers."""

import logging

import pytest
import torch
from torch import nn

from geoseg.errors import ModelFileError
from geoseg.segmenter import Segmenter, legal_side, pad_to_legal, say_padded
from geoseg.spec import TileSpec
from tests.conftest import make_spec, small_conv


class Sizes(nn.Module):
    """Notes the sizes that it sees; its answer is its input."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[-2:]))
        return x


@pytest.mark.parametrize(
    ("size", "padded"),
    [((64, 96), (64, 96)), ((65, 33), (96, 64)), ((5, 700), (64, 704)), ((1, 1), (64, 64))],
)
def test_illegal_sizes_are_padded_and_cropped(size, padded):
    network = Sizes()
    model = Segmenter(network, make_spec(3, 3, tile=TileSpec(64, 0, multiple_px=32, min_px=64)))
    values = torch.randint(0, 255, (1, 3, *size), dtype=torch.uint8)
    assert torch.equal(model(values), values.float())
    assert network.seen == [padded]


def test_padding_reflects_at_the_bottom_and_right():
    network = Sizes()
    network.forward = lambda x: network.seen.append(x) or x
    model = Segmenter(network, make_spec(1, 1, tile=TileSpec(8, 0, multiple_px=4, min_px=4)))
    model(torch.arange(15.0).view(1, 1, 3, 5))
    row = network.seen[0][0, 0, 0].tolist()
    assert row == [0, 1, 2, 3, 4, 3, 2, 1]


def test_padding_is_said_once_for_each_size(caplog):
    caplog.set_level(logging.INFO, "geoseg.segmenter")
    tile = TileSpec(multiple_px=32, min_px=224)
    say_padded.cache_clear()
    for _ in range(2):
        assert pad_to_legal(torch.zeros(1, 1, 200, 250), tile).shape == (1, 1, 224, 256)
    assert pad_to_legal(torch.zeros(1, 1, 224, 256), tile).shape == (1, 1, 224, 256)
    assert [r.getMessage()[:51] for r in caplog.records] == [
        "images of 200x250 px are padded to 224x256 at the b"
    ]


def test_legal_sides():
    assert legal_side(10, TileSpec(512, 0, multiple_px=32, min_px=224)) == 224
    assert legal_side(225, TileSpec(512, 0, multiple_px=32, min_px=224)) == 256
    assert legal_side(100, TileSpec(512, 0, fixed=True)) == 512
    assert legal_side(600, TileSpec(512, 0, fixed=True)) == 512


def test_a_network_of_one_size_refuses_larger_images():
    model = Segmenter(Sizes(), make_spec(3, 3, tile=TileSpec(64, 0, fixed=True)))
    with pytest.raises(ValueError, match="at most 64 px a side, .*got 65 x 10. Cut it into tiles"):
        model(torch.zeros(1, 3, 65, 10))


def test_precision_casts_the_network_and_widens_the_answer():
    model = Segmenter(small_conv(), make_spec(3)).eval()
    values = torch.randint(0, 3, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        exact = model(values)
        rough = model.to_precision("bf16")(values)
    assert rough.dtype == torch.float32
    assert model.network[0].weight.dtype == torch.bfloat16
    assert 0 < (rough - exact).abs().max() < 0.1


def test_probabilities_become_logits_that_give_them_back():
    probs = torch.tensor([0.7, 0.2, 0.1, 0.0]).view(1, 4, 1, 1).expand(1, 4, 4, 4)
    spec = make_spec(3, 4, output="probabilities", tile=TileSpec(4, 0, min_px=1))
    model = Segmenter(nn.Module(), spec)
    model.network.forward = lambda _x: probs
    assert torch.allclose(model(torch.zeros(1, 3, 4, 4)).softmax(1), probs, atol=1e-6)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_one_channel_is_the_second_of_two_classes(output):
    value = torch.tensor(0.8) if output == "probabilities" else torch.logit(torch.tensor(0.8))
    spec = make_spec(3, 2, output=output, tile=TileSpec(4, 0, min_px=1))
    model = Segmenter(nn.Module(), spec)
    model.network.forward = lambda x: value.expand(len(x), 1, 4, 4)
    made = model(torch.zeros(2, 3, 4, 4)).softmax(1)
    assert torch.allclose(made[:, 1], torch.full((2, 4, 4), 0.8), atol=1e-6)


def test_a_classifier_is_no_segmenter():
    with pytest.raises(ModelFileError, match="'small' is for classification"):
        Segmenter(nn.Identity(), make_spec(3, task="classification"))


def test_another_raster_scaling_shares_the_network():
    model = Segmenter(small_conv(), make_spec(3)).eval()
    other = model.for_scaling([(2.0, 1.0), None, None])
    assert other.network is model.network
    assert other.preprocess.gain.tolist() == [2.0, 1.0, 1.0]
    assert not other.training
