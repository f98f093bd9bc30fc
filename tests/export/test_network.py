"""What a file computes, and what its record says of it."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from geoseg.errors import ModelFileError, UsageError
from geoseg.export.network import Served, exported_spec, plan_feeding
from geoseg.models import create_model
from geoseg.segmenter import Segmenter
from geoseg.spec import BandSpec, TileSpec
from tests.conftest import make_spec, small_conv

BANDS = (BandSpec("a", 40.0, 8.0, scale=0.5, offset=3.0), BandSpec("b", -2.0, 0.5))


def two_bands(**fields):
    return dataclasses.replace(make_spec(2, 4, **fields), bands=BANDS)


def test_what_is_fed_becomes_the_standardised_values():
    values = np.random.default_rng(0).integers(0, 255, (1, 2, 8, 8)).astype(np.uint8)
    for spec in (two_bands(), two_bands(dtype="uint16")):
        wanted = Segmenter(nn.Identity(), spec).preprocess(torch.from_numpy(values)).numpy()
        feeding = plan_feeding(spec)
        assert feeding.divisor == (255 if spec.dtype == "uint8" else 1)
        fed = values / feeding.divisor
        column = (2, 1, 1)
        made = fed * np.reshape(feeding.gain, column) + np.reshape(feeding.bias, column)
        np.testing.assert_allclose(made, wanted, atol=1e-5)
        gain, bias = feeding.from_standardised()
        back = made * np.reshape(gain, column) + np.reshape(bias, column)
        np.testing.assert_allclose(back, fed, atol=1e-9)


def test_a_file_answers_the_probabilities_of_its_model():
    spec = two_bands(temperature=2.0)
    segmenter = Segmenter(small_conv(2), spec).eval()
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (2, 2, 64, 64)))
    served = Served(segmenter, exported_spec(spec, None))
    wanted = torch.softmax(segmenter(values) / 2.0, dim=1)
    torch.testing.assert_close(served(values / 255), wanted, atol=1e-6, rtol=0)


def test_one_channel_is_the_second_of_two_classes():
    spec = make_spec(2, 2)
    segmenter = Segmenter(small_conv(2, 1), spec).eval()
    values = torch.rand(1, 2, 64, 64) * 255
    answer = Served(segmenter, exported_spec(spec, None))(values / 255)
    torch.testing.assert_close(answer, torch.softmax(segmenter(values), dim=1))


def test_the_record_of_a_file_fixes_the_tile_and_takes_the_temperature():
    spec = make_spec(temperature=2.0, tile=TileSpec(512, 128, min_px=32))
    made = exported_spec(spec, 256)
    assert made.tile == TileSpec(256, 64, min_px=32, fixed=True)
    assert (made.output, made.temperature, made.bands) == ("probabilities", 1.0, spec.bands)
    assert exported_spec(spec, None).tile.size_px == 512


@pytest.mark.parametrize(("size", "instead"), [(200, 224), (250, 256), (-5, 512)])
def test_tiles_that_a_network_cannot_take_are_refused(size, instead):
    spec = make_spec(name="s", tile=TileSpec(512, 128, min_px=224, multiple_px=32))
    message = f"cannot take tiles of {size} px.*224 px and multiples of 32 px. .*size {instead}\\."
    with pytest.raises(UsageError, match=message):
        exported_spec(spec, size)


def test_a_network_with_a_softmax_is_refused():
    spec = make_spec(output="probabilities")
    with pytest.raises(ModelFileError, match="this one answers probabilities. Take the softmax"):
        Served(Segmenter(small_conv(), spec), spec)


def test_the_model_itself_is_left_as_it_is():
    network = create_model("segman_t", num_classes=4).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    spec = make_spec(tile=TileSpec(256, 64, min_px=224, multiple_px=32))
    served = Served(Segmenter(network, spec).eval(), exported_spec(spec, None))
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in before.items()
    }
    # The global position bias is worked out for the tile: 8 x 8 pixels at 1/32.
    assert any(p.shape[-1] == 64 for k, p in served.named_parameters() if "rpb.1" in k)
