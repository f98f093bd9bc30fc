"""The command `train`: its output, its refusals, and that it can be stopped."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from geoseg.checkpoint import read_spec
from geoseg.config.parse import dump_config
from tests.conftest import ROOT
from tests.train.conftest import make_run, small_chips

__all__ = ["make_run", "small_chips"]


@pytest.fixture
def written(make_run):
    """Return a small run and its file."""
    run = make_run(steps=2, val_every_steps=1)
    file = Path(run.out).with_suffix(".yaml")
    file.write_text(dump_config(run), "utf-8")
    return run, file


def test_events(geoseg, written):
    run, file = written
    done = geoseg("train", file, "--progress", "json")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.lines]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "result"]
    start, last = events[0], [e for e in events if e["event"] == "progress"][-1]
    assert start["plan"]["unit"] == last["unit"] == "steps"
    assert (last["done"], last["total"]) == (2, 2)
    assert any(e["event"] == "log" and e["message"].startswith("step 2: miou") for e in events)
    result = events[-1]
    assert result["outputs"] == {"model": str(Path(run.out) / "model.safetensors")}
    assert result["metrics"]["steps"] == 2
    assert read_spec(result["outputs"]["model"]).num_classes == 5


def test_text(geoseg, written):
    run, file = written
    done = geoseg("train", file, "trainer.steps=1")
    assert done.code == 0, done.err
    assert done.lines == [str(Path(run.out) / "model.safetensors")]
    assert "segnext_t: 1 steps of 2 crops of 64 px, 5 classes, 3 images to train" in done.err
    assert geoseg("train", file).code == 2
    assert geoseg("train", file, "--resume", "trainer.steps=2", "--progress", "none").code == 0


def test_the_resolved_run_is_printed(geoseg, written):
    _, file = written
    done = geoseg("train", file, "optim.lr=0.5", "--print-config")
    values = yaml.safe_load(done.out)
    assert values["optim"]["lr"] == 0.5
    assert values["trainer"]["accumulate"] == 1
    assert not Path(values["out"]).exists()


def test_refusals(geoseg, written, tmp_path):
    _, file = written
    assert geoseg("train", tmp_path / "none.yaml").code == 3
    done = geoseg("train", file, "optim.learning_rate=1")
    assert done.code == 2
    assert "unknown key 'optim.learning_rate'. Did you mean" in done.err
    done = geoseg("train", file, "--device", "tpu")
    assert done.code == 2
    assert "expected a device auto, cpu, cuda, cuda:N or mps; got 'tpu'" in done.err
    done = geoseg("train", file, "--device", "cuda:7")
    assert done.code == 4
    assert re.search(r"expected 8 CUDA device\(s\) or more; this machine has \d+", done.err)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_stops_the_run_and_resume_goes_on(geoseg, written, number):
    _, file = written
    words = ["trainer.steps=400", "trainer.val_every_steps=400", "trainer.workers=1"]
    command = [sys.executable, "-m", "geoseg", "train", str(file), *words, "--progress", "json"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"progress"' in line:
            break
    # As a terminal and a scheduler do it: the workers get the signal too.
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert re.search(r"geoseg: stopped after step \d+\. The checkpoint is kept", err)
    assert json.loads(out.splitlines()[-1])["kind"] == "InterruptedRunError"
    assert "Traceback" not in err
    step = int(re.search(r"after step (\d+)", err)[1])
    done = geoseg("train", file, "--resume", f"trainer.steps={step + 1}")
    assert done.code == 0, done.err
