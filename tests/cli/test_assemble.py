"""``geoseg assemble``: what it prints, its events, and how it is stopped."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from geoseg.predict import PredictOptions, predict_raster
from tests.conftest import ROOT, levels_model

SIZE_PX = 2500


@pytest.fixture
def parts(make_raster, tmp_path):
    """Parts of noise, which takes seconds to compress."""
    noise = np.random.default_rng(0).integers(0, 250, (SIZE_PX, SIZE_PX)).astype(np.uint8)
    options = PredictOptions(shard=(1, 1), gsd="native", tile_size_px=512)
    predict_raster(levels_model(4), make_raster(noise), tmp_path / "m.tif", options=options)
    return tmp_path / "m.tif.parts"


@pytest.fixture
def small_parts(make_raster, tmp_path):
    options = PredictOptions(shard=(1, 1), gsd="native")
    raster = make_raster(np.zeros((60, 70), np.uint8))
    predict_raster(levels_model(4), raster, tmp_path / "m.tif", options=options)
    return tmp_path / "m.tif.parts"


def test_stdout_holds_the_files(geoseg, small_parts, tmp_path):
    out = tmp_path / "m.tif"
    for kind in ("auto", "none"):
        arguments = ("assemble", small_parts, out, "--partial", "--overwrite")
        done = geoseg(*arguments, "--progress", kind)
        assert (done.code, done.lines) == (0, [str(out)]), done.err


def test_progress_is_one_json_object_a_line(geoseg, small_parts, tmp_path):
    out = tmp_path / "m.tif"
    done = geoseg("assemble", small_parts, out, "--progress", "json")
    events = [json.loads(line) for line in done.lines]
    assert (done.code, done.err) == (0, "")
    assert (events[0]["event"], events[0]["command"]) == ("start", "assemble")
    assert (events[0]["protocol"], events[0]["plan"]["unit"]) == (1, "MB")
    last = events[-2]
    assert (last["event"], last["done"], last["unit"]) == ("progress", last["total"], "MB")
    assert events[-1]["outputs"] == {
        "class_map": str(out),
        "confidence": None,
        "probabilities": None,
    }
    done = geoseg("assemble", small_parts, out, "--progress", "json")
    assert (done.code, json.loads(done.lines[-1])["kind"]) == (3, "PartsMismatchError")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "stdin"])
def test_a_stopped_run_keeps_the_parts(parts, tmp_path, how):
    out = tmp_path / "m.tif"
    command = [sys.executable, "-m", "geoseg", "assemble", parts, out]
    with subprocess.Popen(
        [*map(str, command), "--progress=json", "--watch-stdin"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        events = (json.loads(line) for line in process.stdout)
        assert next(events)["event"] == "start"
        process.stdin.close() if how == "stdin" else process.send_signal(how)
        last = list(events)[-1]
        said = process.stderr.read()
    assert (process.returncode, last["kind"]) == (130, "InterruptedRunError")
    assert said == (
        "geoseg: stopped. The parts are kept: run `geoseg assemble` again to finish the map.\n"
    )
    assert not out.exists()
    assert list(parts.glob("final.*")) == []
    assert list(parts.glob("panel-*.class_map.tif"))
