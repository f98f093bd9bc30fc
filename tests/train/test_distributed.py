"""Two processes on a CPU (gloo) are one process with twice the batch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geoseg.config.parse import dump_config
from geoseg.config.run import LossConfig, ModelConfig, OptimConfig
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
