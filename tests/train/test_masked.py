"""Masked-image pre-training: what is hidden, what is scored, and what segmentation starts from."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geoseg.checkpoint import load_model, load_network, read_spec
from geoseg.config.parse import parse_pretrain
from geoseg.config.pretrain import MaskedConfig, MaskingConfig
from geoseg.config.run import ModelConfig
from geoseg.errors import InputError, ModelFileError, UsageError
from geoseg.models import create_model
from geoseg.models.create import EncoderOnly, create_encoder
from geoseg.spec import BandSpec
from geoseg.train.masked import MaskedNetwork, PixelDecoder, draw_hidden
from geoseg.train.pretrain import pretrain
from geoseg.train.start import load_start
from tests.conftest import ROOT, make_spec

DUBAI = Path(__file__).parents[1] / "data" / "dubai"
RECIPE = ROOT / "configs" / "segnext_t_masked.yaml"


def small(out, *more, images=f"{DUBAI}/*.jpg"):
    """Return the recipe with small crops and two steps."""
    return parse_pretrain(
        RECIPE,
        [
            f"out={out}",
            f"data.images={images}",
            "data.val_share=0.25",
            "data.crops_per_epoch=4",
            "masking.crop_px=32",
            "masking.decoder_channels=16",
            "trainer.epochs=2",
            "trainer.val_every_epochs=1",
            "trainer.batch_size=4",
            "trainer.accelerator=cpu",
            "trainer.workers=0",
            "optim.warmup_epochs=0",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return pretrain(small(tmp_path_factory.mktemp("runs") / "run"))


def test_the_file_is_of_the_other_kind():
    assert isinstance(parse_pretrain(RECIPE), MaskedConfig)


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_as_many_whole_squares_of_every_image_are_hidden(share):
    torch.manual_seed(0)
    hidden = draw_hidden((5, 96, 128), MaskingConfig(share=share))
    assert hidden.shape == (5, 96, 128)
    squares = hidden.view(5, 3, 32, 4, 32).transpose(2, 3).flatten(3)  # (N, rows, cols, pixels)
    assert torch.equal(squares.all(dim=3), squares.any(dim=3))
    assert squares.all(dim=3).sum(dim=(1, 2)).tolist() == [round(share * 12)] * 5
    assert len({tuple(h.flatten().tolist()) for h in squares.all(dim=3)}) > 1


def masked_network(bands=3):
    spec = make_spec(bands, 1, mean=100, std=50)
    network = EncoderOnly("segnext_t", create_encoder("segnext_t", bands, drop_path=0.0))
    return MaskedNetwork(network, spec, MaskingConfig(decoder_channels=8)).eval()


def test_the_encoder_sees_nothing_of_hidden_pixels():
    torch.manual_seed(0)
    network = masked_network(2)
    values, valid = torch.rand(1, 2, 64, 64) * 255, torch.ones(1, 64, 64, dtype=torch.bool)
    hidden = torch.zeros(1, 64, 64, dtype=torch.bool)
    hidden[:, :32, 32:] = True
    other = torch.where(hidden[:, None], 255 - values, values)
    with torch.inference_mode():
        guess, target = network(values, valid, hidden)
        guess_of_other, target_of_other = network(other, valid, hidden)
    assert guess.shape == target.shape == (1, 2, 64, 64)
    assert torch.equal(guess, guess_of_other)
    assert torch.allclose(target, (values - 100) / 50, atol=1e-6)
    assert not torch.equal(target, target_of_other)


def test_the_decoder_reads_all_stages():
    decoder = PixelDecoder((4, 5, 6, 7), 8, 3)
    stages = [
        torch.randn(1, c, 32 >> i, 48 >> i).requires_grad_() for i, c in enumerate((4, 5, 6, 7))
    ]
    pixels = decoder(stages)
    assert pixels.shape == (1, 3, 128, 192)
    pixels.sum().backward()
    assert all(float(stage.grad.abs().sum()) > 0 for stage in stages)


def test_a_run_leaves_an_encoder(trained):
    spec = read_spec(trained.model)
    assert (spec.task, spec.classes) == ("pre-training", ())
    assert [band.name for band in spec.bands] == ["red", "green", "blue"]
    assert all(isinstance(b, BandSpec) and 40 < b.mean < 140 and b.std > 10 for b in spec.bands)
    assert set(spec.metrics) == {"val_explained"}
    network, _ = load_network(trained.model)
    assert isinstance(network, EncoderOnly)
    assert not any(key.startswith("decoder") for key in network.state_dict())
    with pytest.raises(ModelFileError, match="is for pre-training. Train a segmentation model"):
        load_model(trained.model)
    written = parse_pretrain(trained.out / "config.yaml")
    assert written.model.in_channels == 3
    assert written.data.mean == tuple(band.mean for band in spec.bands)


def test_the_output_is_where_segmentation_starts(trained):
    network = create_model("segnext_t", num_classes=2)
    load_start(network, ModelConfig("segnext_t", encoder_weights=str(trained.model)))
    kept = load_network(trained.model)[0].encoder.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in network.encoder.state_dict().items())


def test_it_can_go_on_from_another_encoder(trained, tmp_path):
    config = small(
        tmp_path / "run",
        f"model.encoder_weights={trained.model}",
        "trainer.epochs=1",
        "optim.lr=1e-12",
        "optim.min_lr=0",
        "trainer.ema_decay=null",
    )
    kept = load_network(trained.model)[0].state_dict()
    own = load_network(pretrain(config).model)[0].state_dict()
    weight = "encoder.block1.0.attn.proj_1.weight"
    assert torch.allclose(own[weight], kept[weight], atol=1e-6)


def test_hidden_pixels_are_learnt(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):  # one colour each
        values = np.full((3, 64, 64), rng.integers(0, 255, (3, 1, 1)), np.uint8)
        write(tmp_path / "scenes" / f"{i}.tif", values)
    config = small(
        tmp_path / "run",
        *("data.crops_per_epoch=80", "optim.lr=3e-3", "trainer.ema_decay=null"),
        *("masking.crop_px=64", "masking.share=0.5", "masking.jitter=0"),
        images=tmp_path / "scenes",
    )
    assert pretrain(config).metrics["val_explained"] > 0.03  # the mean alone: 0


def write(path, values):
    import rasterio

    from geoseg.raster.gdal import quiet_georeference

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    profile = {"driver": "GTiff", "dtype": values.dtype.name, "count": count}
    with (
        quiet_georeference(),
        rasterio.open(path, "w", height=height, width=width, **profile) as dataset,
    ):
        dataset.write(values)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["masking.patch_px=16"], UsageError, "a multiple of 32.*; got 16 and 32"),
        (["masking.crop_px=40"], UsageError, "crop_px one of patch_px; got 32 and 40"),
        (["masking.share=1.5"], UsageError, "more than 0 and less than 1; got 1.5"),
        (["model.in_channels=5"], UsageError, "model.in_channels: expected 3.*; got 5"),
        (["data.images=nowhere"], InputError, "'nowhere' does not exist"),
        (["data.val_share=0.9"], InputError, r"4 file\(s\) cannot be divided into train and 4 for"),
        (["data.mean=[1, 2]"], InputError, "data.mean: expected 3 values, one per band; got 2"),
        (["data.dtype=uint16"], InputError, "expected uint16 values"),
        (["data.root=x"], UsageError, "unknown key 'data.root'"),
    ],
)
def test_refusals(tmp_path, words, error, message):
    with pytest.raises(error, match=message):
        pretrain(small(tmp_path / "run", *words))


def test_without_held_out_files_there_is_a_model_all_the_same(tmp_path):
    result = pretrain(small(tmp_path / "run", "data.val_share=0", "trainer.epochs=1"))
    assert load_network(result.model)[1].metrics == {}
