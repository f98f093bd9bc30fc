"""The run files: complete, strict, buildable, and the published ones as published."""

import dataclasses
import functools
import re
import typing

import pytest
import torch
import yaml
from torch import nn

from geoseg.config import parse
from geoseg.config.run import RunConfig
from geoseg.data.published import PUBLISHED
from geoseg.errors import UsageError
from geoseg.models import create_model
from tests.conftest import ROOT

FOLDER = ROOT / "configs"
EVERY = sorted(FOLDER.glob("*.yaml"))
RUNS = [path for path in EVERY if not re.search(r"_(imagenet|masked)\.yaml$", path.name)]
BY_NAME = {path.stem: path for path in RUNS}

SIZES = [f"{family}_{size}" for family in ("segman", "segnext") for size in "tsbl"]
# From shared/spec/models.md 5 and 6, which was read off the authors' code; written anew here.
SETS = {  # crop, samples a step, classes, base size, SegNeXt's and SegMAN's steps
    "ade20k": (512, 16, 150, (2048, 512), 160_000, 160_000),
    "cityscapes": (1024, 8, 19, (2048, 1024), 160_000, 160_000),
    "coco_stuff": (512, 16, 171, (2048, 512), 80_000, 160_000),
}
PER_GPU = {
    "ade20k": {"segman": (4, 4, 4, 4), "segnext": (8, 8, 4, 4)},
    "cityscapes": {"segman": (2, 2, 2, 2), "segnext": (4, 4, 2, 2)},
    "coco_stuff": {"segman": (4, 4, 4, 4), "segnext": (8, 8, 4, 4)},
}
DROP_PATH = {  # t, s, b; SegMAN-L's is not published
    ("segman", "ade20k"): (0, 0.15, 0.25),
    ("segman", "cityscapes"): (0, 0.2, 0.25),
    ("segman", "coco_stuff"): (0, 0.2, 0.2),
}
WIDTHS = {"t": (128, 192), "s": (144, 288), "b": (180, 320), "l": (224, 432)}
FORK = {  # classes, share of the training set, from ImageNet
    "landcoverai_weighted": (5, 1.0, True),
    "landcoverai_eighth": (5, 0.125, True),
    "landcoverai_eighth_scratch": (5, 0.125, False),
    "voc": (21, 1.0, True),
    "voc_eighth": (21, 0.125, True),
    "voc_eighth_scratch": (21, 0.125, False),
}
PAPER_OPTIM = {
    "lr": 6e-5,
    "betas": (0.9, 0.999),
    "weight_decay": 0.01,
    "decoder_lr_factor": 10,
    "encoder_lr_factor": 1,
    "no_decay": "norm",
    "schedule": "poly",
    "power": 1,
    "min_lr": 0,
    "warmup_steps": 1500,
    "warmup_ratio": 1e-6,
    "clip_norm": None,
}


parse_config = functools.cache(parse.parse_config)


def missing_keys(kind, values, where=""):
    """Yield the keys of a dataclass that a section leaves to their defaults."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name not in values:
            yield where + field.name
            continue
        choices = typing.get_args(hints[field.name]) or (hints[field.name],)
        part = next((c for c in choices if dataclasses.is_dataclass(c)), None)
        if part is not None and isinstance(values[field.name], dict):
            yield from missing_keys(part, values[field.name], f"{where}{field.name}.")


def test_the_run_files_are_those_of_the_papers_the_fork_and_ours():
    published = {f"{model}_{data}" for model in SIZES for data in SETS}
    fork = {f"segnext_l_{tail}" for tail in FORK}
    ours = {"segnext_t_landcoverai", "segman_s_landcoverai"}
    ours |= {
        f"{model}_{data}" for model in ("segnext_t", "segman_t") for data in ("dubai", "banepa")
    }
    assert published | fork | ours <= set(BY_NAME)


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_editors_are_told_the_schema(path):
    first, second = path.read_text("utf-8").splitlines()[:2]
    name = "schema.json" if path in RUNS else "schema_pretrain.json"
    assert first == f"# yaml-language-server: $schema={name}"
    assert second.startswith("# ")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_value_is_written_out(path):
    assert list(missing_keys(RunConfig, yaml.safe_load(path.read_text("utf-8")))) == []


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_file_parses_and_agrees_with_itself(path):
    config = parse_config(path)
    assert config.out == f"runs/{path.stem}"
    assert path.stem.startswith(f"{config.model.name}_")
    data, trainer, augment = config.data, config.trainer, config.augment
    if data.kind in PUBLISHED:
        assert config.model.num_classes == len(PUBLISHED[data.kind].classes)
        assert data.root
        assert data.train is None
    else:
        assert data.classes is not None
        assert config.model.num_classes == len(data.classes)
        assert data.train is not None
        assert data.val is not None
    assert 0 < config.optim.warmup_steps < trainer.steps / 5
    assert trainer.steps % trainer.val_every_steps == 0
    assert trainer.steps / trainer.val_every_steps >= 4
    assert augment.crop_px % 32 == 0
    assert augment.crop_px >= 224
    assert augment.photometric == (augment.kind == "paper")
    if config.evaluation.mode == "slide":
        assert config.evaluation.stride_px < config.evaluation.crop_px == augment.crop_px
    weights = config.loss.class_weights
    assert weights is None or len(weights) == config.model.num_classes
    assert config.card.licence
    assert config.card.credits


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_model_of_a_run_file_is_built(path, monkeypatch):
    model = parse_config(path).model
    for layer in (nn.Conv2d, nn.Linear, nn.BatchNorm2d):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: None)  # nothing to draw
    with torch.device("meta"):
        network = create_model(
            model.name,
            in_channels=model.in_channels,
            num_classes=model.num_classes,
            **model.options,
        )
    assert network.num_classes == model.num_classes
    if "decoder_channels" in model.options:
        assert network.decoder.conv_seg.in_channels == model.options["decoder_channels"]


@pytest.mark.parametrize("data", SETS)
@pytest.mark.parametrize("model", SIZES)
def test_published_runs_are_as_published(model, data):
    config = parse_config(BY_NAME[f"{model}_{data}"])
    family, size = model.split("_")
    crop, total, classes, base, segnext_steps, segman_steps = SETS[data]
    trainer = config.trainer
    assert config.data.kind == data
    assert config.data.reduce_zero_label == (data == "ade20k")
    assert config.model.num_classes == classes
    assert trainer.steps == (segnext_steps if family == "segnext" else segman_steps)
    assert trainer.batch_size == PER_GPU[data][family]["tsbl".index(size)]
    assert trainer.batch_size * trainer.devices * trainer.accumulate == total
    assert trainer.val_every_steps == (4000 if model == "segman_t" else 8000)
    assert (trainer.precision, trainer.ema_decay, trainer.sync_batch_norm) == ("fp32", None, True)
    check_paper_recipe(config, crop, base)
    slides = data == "cityscapes" and model != "segman_l"
    assert config.evaluation.mode == ("slide" if slides else "whole")
    if slides:
        assert config.evaluation.stride_px == 768
    if family == "segnext":
        assert config.model.options["drop_path"] == (0.3 if size == "l" else 0.1)
        assert config.model.encoder_weights == f"weights/mscan_{size}.pth"
        return
    if size != "l":
        assert config.model.options["drop_path"] == DROP_PATH[family, data]["tsb".index(size)]
    widths = (152, 288) if (size, data) == ("s", "cityscapes") else WIDTHS[size]
    options = config.model.options
    assert (options["decoder_channels"], options["projection_channels"]) == widths
    assert config.model.encoder_weights == f"weights/SegMAN_Encoder_{size}.pth.tar"


@pytest.mark.parametrize("tail", FORK)
def test_the_forks_runs_are_as_its_logs_say(tail):
    config = parse_config(BY_NAME[f"segnext_l_{tail}"])
    classes, share, pretrained = FORK[tail]
    trainer = config.trainer
    assert config.model.num_classes == classes
    assert (config.data.subset, config.data.subset_seed) == (share, 123)
    assert config.data.val_halves == (classes == 21)
    assert (config.model.encoder_weights is not None) == pretrained
    assert (trainer.steps, trainer.batch_size, trainer.devices) == (40_000, 1, 1)
    assert trainer.val_every_steps == 5000
    weights = (0.5, 1, 1, 1, 1) if classes == 5 else None
    assert config.loss.class_weights == weights
    assert config.model.options["drop_path"] == 0.3
    check_paper_recipe(config, 512, (2048, 512))
    assert config.evaluation.mode == "whole"


def check_paper_recipe(config, crop_px, base_size_px):
    """Check what all runs of the papers share."""
    augment, loss = config.augment, config.loss
    assert dataclasses.asdict(config.optim) == PAPER_OPTIM
    assert (augment.kind, augment.crop_px, augment.scale) == ("paper", crop_px, (0.5, 2))
    assert augment.base_size_px == base_size_px
    assert (augment.cat_max_ratio, augment.flip, augment.photometric) == (0.75, 0.5, True)
    assert (loss.cross_entropy, loss.averaging) == (1, "all")
    assert (loss.dice, loss.focal, loss.lovasz, loss.label_smoothing) == (0, 0, 0, 0)
    assert config.data.mean == (123.675, 116.28, 103.53)
    assert config.data.std == (58.395, 57.12, 57.375)
    assert config.evaluation.base_size_px == base_size_px
    assert config.evaluation.multiple_px == 32
    assert (config.evaluation.ratios, config.evaluation.flip) == ((1.0,), False)
    assert config.model.options["dropout"] == 0.1


@pytest.mark.parametrize("model", ["segnext_t", "segman_s"])
def test_our_landcover_run_avoids_what_made_the_forks_unsteady(model):
    config = parse_config(BY_NAME[f"{model}_landcoverai"])
    assert config.trainer.batch_size == 16
    assert config.trainer.ema_decay == 0.999
    assert config.loss.class_weights is None
    assert config.data.subset == 1
    assert config.augment.kind == "remote_sensing"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        *((f"trainer.{name}=0", "at least 1") for name in ("steps", "batch_size", "accumulate")),
        *((f"trainer.{name}=-1", "at least") for name in ("steps", "workers", "val_every_steps")),
        ("trainer.patience=0", "at least 1"),
        ("trainer.ema_decay=2", "at least 0 and below 1"),
        *((f"optim.lr={value}", "above 0") for value in ("0", "-1", ".nan", ".inf")),
        ("evaluation.stride_px=0", "at least 1"),
        ("seed=-1", "at least 0"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(words, wanted):
    key = words.partition("=")[0]
    with pytest.raises(UsageError, match=rf"expected {key} to be {wanted}.*; got "):
        parse.parse_config(ROOT / "configs" / "segnext_t_dubai.yaml", [words])
