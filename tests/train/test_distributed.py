"""Two processes on a CPU (gloo) are one process with twice the batch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geoseg.checkpoint import load_network, read_spec
from geoseg.config.parse import dump_config, parse_pretrain
from geoseg.config.run import LossConfig, ModelConfig, OptimConfig
from geoseg.data.class_folders import class_folder_split
from geoseg.train.record import read_rows
from tests.conftest import ROOT


def run_command(run, *words):
    """Train by the command line, as a user would."""
    file = Path(run.out).with_suffix(".yaml")
    file.write_text(dump_config(run), "utf-8")
    command = [sys.executable, "-m", "geoseg", "train", str(file), *words, "--progress", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(make_run):
    options = {"drop_path": 0.0, "dropout": 0.0}
    run = make_run(
        "one",
        model=ModelConfig("segnext_t", options=options),
        # Ignored pixels are not the same number in both halves.
        loss=LossConfig(averaging="valid"),
        optim=OptimConfig(lr=1e-3, warmup_steps=1),
        batch_size=4,
        steps=3,
        val_every_steps=3,
        ema_decay=0.5,
        freeze_batch_norm=True,
    )
    run = replace(run, data=replace(run.data, mean=None, std=None))
    run_command(run)
    two = replace(
        run,
        out=str(Path(run.out).with_name("two")),
        trainer=replace(run.trainer, batch_size=2, devices=2),
    )
    done = run_command(two)
    # The second process is silent, and nothing but events comes from the first.
    assert all(line.startswith('{"event": ') for line in done.stdout.splitlines())
    assert done.stdout.count('"event": "result"') == 1
    states = [torch.load(Path(r.out) / "last.ckpt", weights_only=True) for r in (run, two)]
    a, b = (state["state_dict"] for state in states)
    assert a.keys() == b.keys()
    for key, value in a.items():
        # A step of AdamW is as large as the rate, 1e-3, however small the gradient.
        assert torch.allclose(value.double(), b[key].double(), rtol=1e-4, atol=2e-5), key
    rows = [read_rows(Path(r.out) / "metrics.csv") for r in (run, two)]
    for first, second in zip(*rows, strict=True):
        for name in ("val_miou", "val_accuracy"):
            if name in first:
                assert float(first[name]) == pytest.approx(float(second[name]), abs=2e-4)


@pytest.fixture
def pictures(tmp_path):
    """Return class folders of noise whose brightness is the class, but for one validated."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (6, 6)), ("val", (3, 2))):
        for k, count in enumerate(counts):
            folder = tmp_path / "pictures" / split / f"n{k}"
            folder.mkdir(parents=True)
            for i in range(count):
                bright = 1 - k if (split, i) == ("val", 2) else k
                values = rng.normal(60 + 120 * bright, 40, (40, 40, 3)).clip(0, 255)
                Image.fromarray(values.astype(np.uint8)).save(folder / f"{i}.JPEG")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_two_processes_pretrain_a_classifier(pictures, tmp_path):
    out = tmp_path / "run"
    words = [
        *(str(ROOT / "configs" / "segnext_t_imagenet.yaml"), f"out={out}", f"data.root={pictures}"),
        *("model.num_classes=null", "augment.crop_px=32", "augment.mix=0", "optim.lr=1e-3"),
        *("optim.warmup_epochs=0", "trainer.epochs=4", "trainer.cooldown_epochs=0"),
        *("trainer.batch_size=3", "trainer.devices=2", "trainer.accelerator=cpu"),
        *("trainer.precision=fp32", "trainer.workers=0", "trainer.log_every_steps=1"),
    ]
    command = [sys.executable, "-m", "geoseg", "pretrain", *words, "--progress", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"event": "result"') == 1
    assert "4+0 epochs of 2 steps of 6 crops" in read_spec(out / "model.safetensors").recipe
    assert torch.load(out / "last.ckpt", weights_only=True)["global_step"] == 8
    # Every image is counted once, whichever process saw it.
    config = parse_pretrain(out / "config.yaml")
    val = class_folder_split(config.data, "val", config.augment).dataset
    network, _ = load_network(out / "model.safetensors")
    network.eval()
    with torch.inference_mode():
        hits = [int(network(s["image"][None]).argmax()) == int(s["label"]) for s in val]
    assert len(hits) == 5
    assert 0 < sum(hits) < 5  # or the share would be the same of any number
    scores = [float(r["val_top1"]) for r in read_rows(out / "metrics.csv") if "val_top1" in r]
    assert max(scores) == pytest.approx(sum(hits) / 5)
