"""Parts are joined to the map of an unbroken run, and a join that is stopped leaves them whole."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

from geoseg.errors import InterruptedRunError, MachineError
from geoseg.listener import Listener
from geoseg.predict import PredictOptions, assemble, predict_raster
from geoseg.predict import run as run_module
from geoseg.raster.apart import START, finish_cog_apart
from geoseg.raster.layer import Layer
from tests.conftest import levels_model

LAYER = Layer("class_map", "uint8", 255)


@pytest.fixture
def scene(make_raster):
    return make_raster(np.random.default_rng(0).integers(0, 4, (900, 700)).astype(np.uint8))


def model():
    return levels_model(4, gsd_m=(0.1, 1.0))


@pytest.fixture
def parts(scene, tmp_path):
    out = tmp_path / "m.tif"
    options = PredictOptions(shard=(1, 1), confidence=tmp_path / "c.tif")
    predict_raster(model(), scene, out, options=options)
    return tmp_path / "m.tif.parts"


class Heard(Listener):
    def __init__(self):
        self.plans, self.progressed = [], []

    def start(self, plan):
        self.plans.append(plan)

    def progress(self, done, total, pixels):
        self.progressed.append((done, total))


class Stops(Heard):
    """Stops at its first check, or once a COG grows."""

    def __init__(self, at_once):
        super().__init__()
        self.at_once = at_once

    def check(self):
        if self.at_once or self.progressed:
            raise InterruptedRunError("stopped")


def test_a_join_that_is_listened_to_makes_the_same_bytes(parts, scene, tmp_path):
    heard = Heard()
    made = assemble(parts, tmp_path / "j.tif", overwrite=False, partial=True, listener=heard)
    whole = PredictOptions(confidence=tmp_path / "wc.tif")
    predict_raster(model(), scene, tmp_path / "w.tif", options=whole)
    assert made.class_map.read_bytes() == (tmp_path / "w.tif").read_bytes()
    assert made.confidence.read_bytes() == (tmp_path / "wc.tif").read_bytes()
    (plan,) = heard.plans
    assert plan["unit"] == "MB"
    assert plan["sentence"] == "j.tif: 700 x 900 px of 1 panels, class_map, confidence"
    done, totals = zip(*heard.progressed, strict=True)
    assert (done[-1], len(set(totals))) == (totals[-1], 1)
    assert max(done[:-1]) < totals[0]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_stopped_join_keeps_the_parts(parts, tmp_path, at_once):
    before = {path.name for path in parts.iterdir()}
    out = tmp_path / "j.tif"
    with pytest.raises(InterruptedRunError):
        assemble(parts, out, overwrite=False, partial=False, listener=Stops(at_once))
    assert not out.exists()
    assert {path.name for path in parts.iterdir() if "lock" not in path.name} >= {
        name for name in before if "lock" not in name
    }
    assert not (parts / "final.class_map.tif").exists()
    assemble(parts, out, overwrite=False, partial=False, listener=Heard())
    assert out.exists()
    assert not parts.exists()


def test_what_goes_wrong_in_the_other_process_is_the_same_error(tmp_path):
    waited = []
    with pytest.raises(MachineError, match="cannot be written: .*no.vrt"):
        finish_cog_apart(
            tmp_path / "no.vrt", tmp_path / "o.tif", LAYER, threads=1, on_wait=waited.append
        )
    assert set(waited) == {0}


def test_a_process_that_dies_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("geoseg.raster.apart.START", "import os; os._exit(9)")
    with pytest.raises(MachineError, match=r"its process ended with code 9. Finished parts are k"):
        finish_cog_apart(
            tmp_path / "no.vrt", tmp_path / "o.tif", LAYER, threads=1, on_wait=lambda _: None
        )


def test_it_ends_with_the_process_that_ordered_it(parts, tmp_path):
    out = tmp_path / "o.tif"
    order = {"vrt": str(parts / "class_map.vrt"), "out": str(out), "threads": 1}
    order |= {"path": sys.path, "layer": {"name": "a", "dtype": "uint8", "nodata": 255}}
    waits = START + "; import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE) as process:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.close()
        assert process.wait(30) == 1


def test_a_large_map_may_be_stopped_while_its_cog_is_made(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "LARGE_PX", 1)

    class StopsInCog(Listener):
        waits = 0

        def check(self):
            if "finish_cog_apart" in {frame.function for frame in inspect.stack(0)}:
                self.waits += 1
                raise InterruptedRunError("stopped")

    out, listener = tmp_path / "m.tif", StopsInCog()
    with pytest.raises(InterruptedRunError):
        predict_raster(model(), scene, out, listener=listener)
    assert listener.waits == 1
    assert not out.exists()
    assert not list((tmp_path / "m.tif.parts").glob("final*"))
    predict_raster(model(), scene, out, options=PredictOptions(resume=True))
    predict_raster(model(), scene, tmp_path / "w.tif")
    assert out.read_bytes() == (tmp_path / "w.tif").read_bytes()
