"""ImageNet pre-training: the recipe's numbers, one run, and what segmentation starts from."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geoseg.checkpoint import load_model, load_network, read_spec, save_model
from geoseg.config.parse import parse_pretrain
from geoseg.config.pretrain import ImageNetAugmentConfig, PretrainConfig
from geoseg.config.run import ModelConfig
from geoseg.data.class_folders import SeedGenerators, class_folder_split
from geoseg.errors import InputError, InterruptedRunError, ModelFileError, UsageError
from geoseg.listener import Listener
from geoseg.models import create_classifier, create_model
from geoseg.train.pretrain import pretrain
from geoseg.train.pretrain_build import find_pace
from geoseg.train.pretrain_optimizer import build_adamw, epoch_rates, peak_lr
from geoseg.train.pretrain_task import BatchAugment
from geoseg.train.start import load_start
from tests.conftest import ROOT, make_spec

CLASSES = ("n01", "n02", "n03")
SEGMAN = {"crop": 0.9, "clip": 5.0, "ema": 0.99984, "min_lr": 1e-5, "sync": True}
SEGNEXT = {"batch": 128, "drop": 0.1, "crop": 0.9, "clip": None, "ema": None}
SEGNEXT |= {"min_lr": 1e-6, "sync": False}
# models.md sections 6.2 and 6.3; SegMAN-L and what DeiT leaves open are marked as guesses there.
RECIPES = {
    "segman_t": SEGMAN | {"batch": 512, "drop": 0.0, "precision": "fp32"},
    "segman_s": SEGMAN | {"batch": 256, "drop": 0.15, "precision": "fp16"},
    "segman_b": SEGMAN | {"batch": 256, "drop": 0.3, "precision": "fp16", "crop": 0.95},
    "segman_l": SEGMAN | {"batch": 256, "drop": 0.3, "precision": "fp16", "crop": 0.95},
    "segnext_t": SEGNEXT | {"precision": "fp32"},
    "segnext_s": SEGNEXT | {"precision": "fp32"},
    "segnext_b": SEGNEXT | {"precision": "fp32"},
    "segnext_l": SEGNEXT | {"precision": "fp32", "drop": 0.2},
}


def recipe(name):
    return ROOT / "configs" / f"{name}_imagenet.yaml"


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_values(name):
    asked = RECIPES[name]
    config = parse_pretrain(recipe(name))
    assert isinstance(config, PretrainConfig)
    model, augment, optim, trainer = config.model, config.augment, config.optim, config.trainer
    assert (model.name, model.num_classes, model.options) == (
        name,
        1000,
        {"drop_path": asked["drop"]},
    )
    assert (trainer.epochs, trainer.cooldown_epochs, trainer.devices) == (300, 10, 8)
    assert (trainer.batch_size, trainer.precision) == (asked["batch"], asked["precision"])
    assert (trainer.ema_decay, trainer.sync_batch_norm) == (asked["ema"], asked["sync"])
    assert peak_lr(optim, 8 * asked["batch"]) == pytest.approx(1e-3 * 8 * asked["batch"] / 1024)
    assert (optim.warmup_epochs, optim.warmup_lr, optim.min_lr) == (5, 1e-6, asked["min_lr"])
    assert (optim.betas, optim.eps, optim.weight_decay) == ((0.9, 0.999), 1e-8, 0.05)
    assert optim.clip_norm == asked["clip"]
    assert augment == ImageNetAugmentConfig(
        crop_px=224,
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=0.5,
        rand_augment="rand-m9-mstd0.5-inc1",
        interpolation="random",
        erase=0.25,
        erase_mode="pixel",
        erase_count=1,
        mixup=0.8,
        cutmix=1.0,
        mix=1.0,
        mix_switch=0.5,
        label_smoothing=0.1,
        val_crop_share=asked["crop"],
        val_interpolation="bicubic",
    )
    assert config.seed == 42
    create_classifier(name, 2, **model.options)


@pytest.mark.parametrize("name", [*(f"{n}_imagenet" for n in RECIPES), "segnext_t_masked"])
def test_the_files_leave_no_value_out(name):
    import yaml

    from geoseg.config.parse import dump_config

    path = ROOT / "configs" / f"{name}.yaml"
    given, whole = (
        yaml.safe_load(path.read_text()),
        yaml.safe_load(dump_config(parse_pretrain(path))),
    )
    keys = lambda v: {k: keys(w) for k, w in v.items()} if isinstance(v, dict) else None  # noqa: E731
    assert keys(given) == keys(whole)


def test_the_effective_rates_are_the_papers():
    found = {n: peak_lr(parse_pretrain(recipe(n)).optim, 8 * RECIPES[n]["batch"]) for n in RECIPES}
    assert found["segman_t"] == pytest.approx(4e-3)
    assert found["segman_s"] == found["segman_b"] == pytest.approx(2e-3)
    assert found["segnext_t"] == pytest.approx(1e-3)


def test_rates_by_epoch():
    config = parse_pretrain(recipe("segman_s"))
    rates = epoch_rates(config.optim, config.trainer, 2048)
    assert len(rates) == 310
    assert rates[:5] == pytest.approx([1e-6 + e / 5 * (2e-3 - 1e-6) for e in range(5)])
    cosine = [1e-5 + (2e-3 - 1e-5) * (1 + math.cos(math.pi * e / 300)) / 2 for e in range(5, 300)]
    assert rates[5:300] == pytest.approx(cosine)
    assert rates[300:] == pytest.approx([1e-5] * 10)


def test_an_absolute_rate_replaces_the_rule():
    config = parse_pretrain(recipe("segman_s"), ["optim.lr=0.5"])
    assert max(epoch_rates(config.optim, config.trainer, 2048)) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("name", ["segman_b", "segnext_t"])
def test_what_decays(name):
    network = create_classifier(name, 10)
    names = {id(p): n for n, p in network.named_parameters()}
    optim = parse_pretrain(recipe(name)).optim
    groups = build_adamw(network, optim, 1e-3).param_groups
    by_name = {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}
    assert set(by_name) == {n for n, _ in network.named_parameters()}
    for key, parameter in network.named_parameters():
        exempt = parameter.ndim == 1 or key.endswith(".bias")
        assert by_name[key] == (0.0 if exempt else 0.05), key
    special = ("A_logs", "dt_projs_bias", "rpb.0", "layer_scale1.weight")
    if name == "segman_b":  # 2-D and 4-D here, so that they decay
        for end in special:
            assert {v for k, v in by_name.items() if k.endswith(end)} == {0.05}, end


def test_epochs_are_whole_steps():
    config = parse_pretrain(recipe("segman_t"))
    pace = find_pace(config, 1_281_167, 8)
    assert (pace.samples_per_step, pace.steps_per_epoch, pace.steps) == (4096, 312, 312 * 310)
    accumulated = replace(config, trainer=replace(config.trainer, accumulate=2))
    assert find_pace(accumulated, 1_281_167, 4) == pace
    assert find_pace(config, 10, 8).steps_per_epoch == 1


def test_mixed_targets_sum_to_one():
    augment = BatchAugment(ImageNetAugmentConfig(), 7)
    for step in range(20):
        SeedGenerators(0)(step)
        images, targets = augment(torch.ones(4, 3, 16, 16), torch.tensor([0, 1, 2, 6]))
        assert targets.sum(dim=1) == pytest.approx(torch.ones(4).numpy(), abs=1e-6)
        assert float(targets.min()) == pytest.approx(0.1 / 7)  # smoothing
        assert images.shape == (4, 3, 16, 16)


def test_draws_of_a_batch_follow_from_the_seed():
    augment = BatchAugment(ImageNetAugmentConfig(erase=1.0), 7)

    def run(position):
        SeedGenerators(0)(position)
        generator = torch.Generator().manual_seed(1)
        return augment(torch.rand(4, 3, 16, 16, generator=generator), torch.tensor([0, 1, 2, 6]))

    once, again, other = run(3), run(3), run(4)
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])
    assert not torch.equal(once[0], other[0])


def test_without_mixing_labels_are_smoothed():
    augment = BatchAugment(ImageNetAugmentConfig(mixup=0, cutmix=0, erase=0), 5)
    images, targets = augment(torch.ones(1, 3, 8, 8), torch.tensor([2]))
    assert torch.equal(images, torch.ones(1, 3, 8, 8))
    assert targets[0].tolist() == pytest.approx([0.02, 0.02, 0.92, 0.02, 0.02])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return class folders of noise whose brightness is the class."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for k, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                values = rng.normal(60 + 60 * k, 20, (48, 56, 3)).clip(0, 255)
                Image.fromarray(values.astype(np.uint8)).save(folder / f"{name}_{i}.JPEG")
    return root


def small(root, out, *more, name="segnext_t", crop_px=32):
    """Return the recipe of a network, two steps long."""
    return parse_pretrain(
        recipe(name),
        [
            f"out={out}",
            f"data.root={root}",
            "model.num_classes=null",
            f"augment.crop_px={crop_px}",
            "trainer.epochs=1",
            "trainer.cooldown_epochs=1",
            "trainer.batch_size=8",
            "trainer.devices=1",
            "trainer.accelerator=cpu",
            "trainer.precision=fp32",
            "trainer.workers=0",
            "trainer.ema_decay=0.9",
            "trainer.log_every_steps=1",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    return pretrain(small(pictures, tmp_path_factory.mktemp("runs") / "run"))


def test_a_run_leaves_a_classifier(trained):
    names = {"model.safetensors", "last.ckpt", "metrics.csv", "config.yaml"}
    assert names <= {p.name for p in trained.out.iterdir()}
    spec = read_spec(trained.model)
    assert (spec.task, spec.architecture.name) == ("classification", "segnext_t")
    assert tuple(c.name for c in spec.classes) == CLASSES
    assert spec.bands[0].mean == 123.675
    assert set(spec.metrics) == {"val_top1", "val_top5"}
    assert spec.metrics["val_top5"] == 1.0  # of three classes
    assert "geoseg pretrain (classification); 1+1 epochs of 1 steps of 8 crops" in spec.recipe
    with pytest.raises(ModelFileError, match="is for classification. Train a segmentation model"):
        load_model(trained.model)
    written = parse_pretrain(trained.out / "config.yaml")
    assert written.model.num_classes == 3


def test_the_output_is_where_segmentation_starts(trained):
    stored, _ = load_network(trained.model)
    network = create_model("segnext_t", in_channels=4, num_classes=2)
    model = ModelConfig("segnext_t", encoder_weights=str(trained.model))
    assert "kernels of 3 bands" in load_start(network, model)
    own, kept = network.encoder.state_dict(), stored.encoder.state_dict()
    first = "patch_embed1.proj.0.weight"
    assert torch.allclose(own[first][:, 3], kept[first][:, 0] * 0.75)
    assert all(torch.equal(own[key], kept[key]) for key in kept if key != first)


def test_a_resumed_run_is_the_same_run(pictures, tmp_path):
    more = ("trainer.epochs=2", "trainer.cooldown_epochs=0", "trainer.batch_size=4")

    class StopAt(Listener):
        def __init__(self, step):
            self.step = step
            self.done = 0

        def progress(self, done, total, pixels):
            self.done = done

        def check(self):
            if self.done == self.step:
                raise InterruptedRunError("asked to")

    whole = pretrain(small(pictures, tmp_path / "whole", *more))
    config = small(pictures, tmp_path / "parts", *more)
    with pytest.raises(InterruptedRunError, match="stopped after step 4. The checkpoint is kept"):
        pretrain(config, listener=StopAt(4))
    parts = pretrain(config, resume=True)
    assert parts.metrics == whole.metrics
    last = [torch.load(r.out / "last.ckpt", weights_only=True) for r in (whole, parts)]
    assert last[0]["global_step"] == last[1]["global_step"] == 6
    for key, value in last[0]["state_dict"].items():
        assert torch.equal(value, last[1]["state_dict"][key]), key
    csv = [(r.out / "metrics.csv").read_text().splitlines() for r in (whole, parts)]
    assert [row.split(",")[:3] for row in csv[0]] == [row.split(",")[:3] for row in csv[1]]


@pytest.mark.slow
def test_two_steps_of_segman(pictures, tmp_path):
    config = small(pictures, tmp_path / "run", name="segman_t", crop_px=224)
    result = pretrain(config)
    assert result.metrics["steps"] == 2
    network = create_model("segman_t", num_classes=2)
    load_start(network, ModelConfig("segman_t", encoder_weights=str(result.model)))
    kept = load_network(result.model)[0].encoder.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in network.encoder.state_dict().items())


def test_a_command_counts_steps(pictures, tmp_path, capsys):
    import json

    from geoseg.cli import main

    words = [
        *(f"out={tmp_path / 'run'}", f"data.root={pictures}", "model.num_classes=3"),
        *("augment.crop_px=32", "trainer.epochs=1", "trainer.cooldown_epochs=0"),
        *("trainer.batch_size=8", "trainer.devices=1", "trainer.workers=0"),
    ]
    with pytest.raises(SystemExit) as left:
        main(["pretrain", str(recipe("segnext_t")), *words, "--device=cpu", "--progress", "json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert left.value.code == 0
    assert lines[0]["plan"]["steps"] == 1
    assert {line["unit"] for line in lines if line["event"] == "progress"} == {"steps"}
    assert Path(lines[-1]["outputs"]["model"]).exists()


def test_validation_takes_the_centre(pictures):
    config = parse_pretrain(recipe("segman_b"), [f"data.root={pictures}"])
    split = class_folder_split(config.data, "val", replace(config.augment, crop_px=38))
    sample = split.dataset[0]
    assert sample["image"].shape == (3, 38, 38)
    assert int(sample["label"]) == 0
    # 48 x 56 px become 40 x 47 px, of which the middle is taken, standardised.
    with Image.open(sample["name"]) as picture:
        resized = np.asarray(picture.convert("RGB").resize((46, 40), Image.Resampling.BICUBIC))
    mean, std = np.array(config.data.mean), np.array(config.data.std)
    expected = (resized[1:39, 4:42] - mean) / std
    assert np.abs(sample["image"].permute(1, 2, 0).numpy() - expected).max() < 0.02


@pytest.mark.parametrize(
    ("spoil", "words", "error", "message"),
    [
        ("val", (), InputError, r"expected a folder '.*val' with one folder .* https://image-net"),
        ("class", (), InputError, r"same class folders in train and val; 1 are .* 'n03'"),
        ("empty", (), InputError, r"Found no valid file for the classes n03.*ILSVRC2012_img_train"),
        ("", ("model.num_classes=1000",), UsageError, r"expected 3, as there are .*; got 1000"),
        ("", ("trainer.batch_size=7",), UsageError, r"expected an even number.*; got 7"),
        ("", ("model.options={drop_pth: 0.1}",), UsageError, r"option of segnext_t 'drop_pth'"),
        ("broken", (), InputError, r"'.*n01_0.JPEG': expected a picture; it cannot be read"),
    ],
)
def test_refusals(pictures, tmp_path, spoil, words, error, message):
    import shutil

    root = tmp_path / "imagenet"
    shutil.copytree(pictures, root)
    if spoil == "val":
        shutil.rmtree(root / "val")
    elif spoil == "class":
        shutil.rmtree(root / "val" / "n03")
    elif spoil == "empty":
        for path in (root / "train" / "n03").iterdir():
            path.unlink()
    elif spoil == "broken":
        for i in range(5):
            (root / "train" / "n01" / f"n01_{i}.JPEG").write_bytes(b"no picture")
        message = message.replace("n01_0", r"n01_\d")
    with pytest.raises(error, match=message):
        pretrain(small(root, tmp_path / "run", *words))


def test_a_mistaken_key_names_the_near_ones(tmp_path):
    with pytest.raises(UsageError, match=r"unknown key 'trainer.epoch'. Did you mean epochs"):
        parse_pretrain(recipe("segman_t"), ["trainer.epoch=3"])


def test_encoder_options_are_kept_in_the_file(tmp_path):
    with pytest.raises(UsageError, match="Did you mean drop_path"):
        create_classifier("segman_t", 2, droppath=0.1)
    torch.manual_seed(0)
    spec = make_spec(3, 2, task="classification")
    spec = replace(
        spec, architecture=replace(spec.architecture, name="segman_t", options={"drop_path": 0.3})
    )
    classifier = create_classifier("segman_t", 2, drop_path=0.3)
    path = save_model(tmp_path / "m.safetensors", classifier, spec)
    rates = lambda n: [m.rate for m in n.modules() if type(m).__name__ == "DropPath"]  # noqa: E731
    assert rates(load_network(path)[0]) == rates(classifier)
    assert max(rates(classifier)) == pytest.approx(0.3)
