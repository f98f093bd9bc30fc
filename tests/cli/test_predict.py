"""``geoseg predict``: exit codes, messages, events, and how it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio

from tests.conftest import ROOT


def events(done):
    return [json.loads(line) for line in done.lines]


def test_a_map_in_one_command(geoseg, model, scene, tmp_path):
    out = tmp_path / "map.tif"
    done = geoseg("predict", model, scene, out)
    assert (done.code, done.lines) == (0, [str(out)])
    assert "130 x 150 px" in done.err
    assert out.with_name("map.tif.aux.xml").exists()
    assert out.with_suffix(".qml").exists()
    with rasterio.open(out) as dataset:
        assert dataset.shape == (150, 130)
        tags = dataset.tags()
    assert tags["GEOSEG_MODEL"] == "small"
    assert not any(str(tmp_path) in value for value in tags.values())


def test_all_outputs(geoseg, model, scene, tmp_path):
    names = {"confidence": "c.tif", "probabilities": "p.tif", "quicklook": "q.png"}
    options = [x for k, v in names.items() for x in (f"--{k}", tmp_path / v)]
    done = geoseg("predict", model, scene, tmp_path / "m.tif", *options, "--progress", "json")
    result = events(done)[-1]
    assert result["event"] == "result"
    assert result["outputs"] == {
        "class_map": str(tmp_path / "m.tif"),
        "vector": None,
        **{k: str(tmp_path / v) for k, v in names.items()},
    }
    assert result["pixels"] == 150 * 130
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert dataset.descriptions == ("class 0", "class 1", "class 2")
        probs = dataset.read().astype(int)
    with rasterio.open(tmp_path / "c.tif") as dataset:
        assert np.array_equal(dataset.read(1), probs.max(axis=0))
        assert dataset.scales == (1 / 254,)
    assert np.abs(probs.sum(axis=0) - 254).max() <= 2
    assert (tmp_path / "q.png").read_bytes()[1:4] == b"PNG"


def test_events_are_the_only_thing_on_stdout(geoseg, model, scene, tmp_path):
    done = geoseg("predict", model, scene, tmp_path / "m.tif", "--progress=json")
    found = events(done)
    assert [e["event"] for e in found[:1] + found[-1:]] == ["start", "result"]
    assert found[0]["protocol"] == 1
    assert found[0]["command"] == "predict"
    assert found[0]["plan"]["tiles"] == 9
    last = [e for e in found if e["event"] == "progress"][-1]
    assert (last["done"], last["total"], last["unit"]) == (9, 9, "tiles")
    assert last["eta_s"] == 0
    assert {e["level"] for e in found if e["event"] == "log"} == {"info"}


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message"),
    [
        (["none.tif", "m.tif"], 3, "RasterReadError", "cannot be opened"),
        (["{scene}", "m.txt/"], 0, None, None),
        (["{scene}", "m.tif", "--resume", "--overwrite"], 2, "UsageError", "got both"),
        (["{scene}", "m.tif", "--bands", "1,2"], 3, "BandMismatchError", "--bands names 2"),
        (["{scene}", "m.tif", "--device", "tpu"], 2, "UsageError", "--device auto, cpu"),
        (["{scene}", "m.tif", "--max-memory", "10MB"], 4, "OutOfMemoryError", "0.01 GB"),
        (["{scene}", "m.tif", "--overlap", "64"], 2, "UsageError", "overlap 64 px"),
        (["{scene}", "{scene}", "m.tif"], 2, "UsageError", "give a folder as OUT"),
        (["*.nothing", "m.tif"], 3, "InputError", "no file matches '*.nothing'"),
    ],
)
def test_exit_codes(geoseg, model, scene, tmp_path, monkeypatch, arguments, code, kind, message):
    monkeypatch.chdir(tmp_path)
    arguments = [a.format(scene=scene) for a in arguments]
    done = geoseg("predict", model, *arguments, "--progress", "json")
    assert done.code == code
    if code:
        assert done.err.count("\n") == 1
        assert message in done.err
        assert events(done)[-1]["kind"] == kind
        assert message in events(done)[-1]["message"]
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--gsd", "far"], "expected auto, native or metres per pixel; got 'far'"),
        (["--bounds", "1,2,3"], "expected LEFT,BOTTOM,RIGHT,TOP"),
        (["--bounds", "5,0,1,9"], "expected left < right"),
        (["--bounds", "-inf,-inf,inf,inf"], "expected four finite numbers"),
        (["--bands", "0,1"], "expected band numbers from 1"),
        (["--shard", "3/2"], "expected a share I/N"),
        (["--max-memory", "much"], "expected a size such as 4GB"),
        (["--tile-size", "0"], "0 is not in the range x>=1"),
        (["--precision", "fp8"], "'fp8' is not one of"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_usage_errors(geoseg, model, scene, tmp_path, option, message):
    done = geoseg("predict", model, scene, tmp_path / "m.tif", *option)
    assert done.code == 2
    assert message in done.err


def test_debug_shows_where_an_error_comes_from(geoseg, model, tmp_path):
    done = geoseg("--debug", "predict", model, "none.tif", tmp_path / "m.tif")
    assert done.code == 3
    assert "Traceback" in done.err
    done = geoseg("predict", model, "none.tif", tmp_path / "m.tif", "--debug")
    assert "Traceback" in done.err


def test_a_demonstration_model_says_so(geoseg, scene, tmp_path):
    done = geoseg(
        "predict",
        "demo-buildings-banepa",
        scene,
        tmp_path / "m.tif",
        "--gsd",
        "0.13",
        "--progress",
        "none",
    )
    assert done.code == 0
    assert "warning: Demonstration model: 24 chips of one town in Nepal" in done.err


def test_several_rasters_make_one_map_each(geoseg, model, make_raster, tmp_path):
    for name in ("b", "a"):
        make_raster(np.zeros((3, 70, 80), np.uint8), f"in/{name}.tif")
    done = geoseg("predict", model, tmp_path / "in" / "*.tif", tmp_path / "out", "--progress=none")
    assert done.lines == [str(tmp_path / "out" / "a.tif"), str(tmp_path / "out" / "b.tif")]
    scores = tmp_path / "c.tif"
    done = geoseg(
        "predict", model, tmp_path / "in" / "*.tif", tmp_path / "x", "--confidence", scores
    )
    assert (done.code, "--confidence names one file; got 2 rasters" in done.err) == (2, True)


def test_bounds_as_one_text_or_four_numbers(geoseg, model, scene, tmp_path):
    box = ["500003", "4999970", "500030", "4999991"]
    for i, given in enumerate(
        (["--bounds", *box], ["--bounds", " ".join(box)], [f"--bounds={','.join(box)}"])
    ):
        done = geoseg("predict", model, scene, tmp_path / f"{i}.tif", *given, "--progress=none")
        assert done.code == 0
        with rasterio.open(tmp_path / f"{i}.tif") as dataset:
            assert dataset.shape == (70, 90)


def test_dry_run(geoseg, model, scene, tmp_path):
    done = geoseg("predict", model, scene, tmp_path / "m.tif", "--dry-run")
    assert done.code == 0
    for word in ("9 tiles", "time ", "memory ", "disk ", "panels "):
        assert word in done.out
    assert not (tmp_path / "m.tif").exists()
    done = geoseg("predict", model, scene, tmp_path / "m.tif", "--dry-run", "--progress=json")
    assert events(done)[0]["plan"]["seconds"] > 0


def test_shards_and_assemble(geoseg, model, scene, tmp_path):
    for share in ("1/2", "2/2"):
        done = geoseg("predict", model, scene, tmp_path / "m.tif", "--shard", share)
        assert done.code == 0
        assert not (tmp_path / "m.tif").exists()
    done = geoseg("assemble", tmp_path / "m.tif.parts", tmp_path / "m.tif")
    assert done.lines == [str(tmp_path / "m.tif")]
    assert geoseg("predict", model, scene, tmp_path / "w.tif").code == 0
    assert (tmp_path / "w.tif").read_bytes() == (tmp_path / "m.tif").read_bytes()


def start(model, raster, out, *options, stdin=subprocess.DEVNULL):
    command = [sys.executable, "-m", "geoseg", "predict", model, raster, out, "--progress=json"]
    return subprocess.Popen(
        [*map(str, command), *options],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def long_scene(make_raster):
    return make_raster(np.random.default_rng(0).integers(0, 255, (3, 1600, 1600)).astype(np.uint8))


def wait_for_progress(process):
    for line in process.stdout:
        if json.loads(line)["event"] == "progress":
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("how", ["SIGTERM", "stdin"])  # SIGINT: test_processes.py
def test_a_run_stops_cleanly(model, long_scene, tmp_path, how):
    out = tmp_path / "m.tif"
    stdin = subprocess.PIPE if how == "stdin" else subprocess.DEVNULL
    watch = ["--watch-stdin"] if how == "stdin" else []
    with start(model, long_scene, out, *watch, stdin=stdin) as process:
        wait_for_progress(process)
        asked = time.monotonic()
        if how == "stdin":
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, how))
        rest, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 130
    assert time.monotonic() - asked < 10
    assert json.loads(rest.splitlines()[-1])["kind"] == "InterruptedRunError"
    assert "give --resume to go on" in err
    assert "Traceback" not in err
    assert not out.exists()
    assert (tmp_path / "m.tif.parts" / "class_map.vrt").exists()


def test_a_closed_pipe_is_no_traceback(model, scene, tmp_path):
    with start(model, scene, tmp_path / "m.tif") as process:
        process.stdout.close()
        err = process.stderr.read()
    assert "Traceback" not in err


def test_a_run_under_watch_ends_in_peace(model, scene, tmp_path):
    command = ("--watch-stdin",)
    with start(model, scene, tmp_path / "m.tif", *command, stdin=subprocess.PIPE) as process:
        out, err = process.stdout.read(), process.stderr.read()
        process.wait(60)
        process.stdin.close()
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["event"] == "result"


def test_maps_never_replace_the_rasters_they_are_made_of(geoseg, model, scene):
    before = scene.read_bytes()
    other = scene.with_name("other.tif")
    other.write_bytes(before)
    done = geoseg("predict", model, scene.parent / "*.tif", scene.parent, "--overwrite")
    assert done.code == 2
    assert "would replace an input" in done.err
    assert scene.read_bytes() == other.read_bytes() == before


def test_several_rasters_resume_where_they_stopped(geoseg, model, scene, tmp_path):
    other = scene.with_name("other.tif")
    other.write_bytes(scene.read_bytes())
    out = tmp_path / "maps"
    assert geoseg("predict", model, scene, out).code == 0
    first = (out / scene.name).stat().st_mtime_ns
    done = geoseg("predict", model, scene, other, out, "--resume")
    assert done.code == 0, done.err
    assert f"{out / scene.name} is finished: skipped" in done.err.replace("\n", "")
    assert (out / scene.name).stat().st_mtime_ns == first
    assert (out / "other.tif").exists()


def test_a_share_claims_no_files(geoseg, model, scene, tmp_path):
    confidence = tmp_path / "c.tif"
    options = ["--shard", "1/2", "--confidence", confidence, "--progress", "json"]
    done = geoseg("predict", model, scene, tmp_path / "m.tif", *options)
    assert set(events(done)[-1]["outputs"].values()) == {None}


def test_an_output_folder_that_cannot_be_made_is_found_before_the_first_tile(
    geoseg, model, scene, tmp_path
):
    (tmp_path / "file").write_text("")
    confidence = tmp_path / "file" / "sub" / "c.tif"
    done = geoseg("predict", model, scene, tmp_path / "m.tif", "--confidence", confidence)
    assert done.code == 4
    assert "cannot be written" in done.err
    assert not (tmp_path / "m.tif.parts").exists()


def test_a_target_that_is_no_map_is_a_sentence(geoseg, model, scene, tmp_path):
    other = scene.with_name("other.tif")
    other.write_bytes(scene.read_bytes())
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / scene.name).write_text("mine")
    done = geoseg("predict", model, scene, other, tmp_path / "maps", "--resume")
    assert done.code == 3
    assert "cannot be opened" in done.err
    assert (tmp_path / "maps" / scene.name).read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("m.png",), "expected a .tif file or a folder as OUT; got"),
        (("m.tif", "--quicklook", "look.jpg"), "expected a .png file for the quicklook; got"),
    ],
)
def test_a_file_of_another_kind_is_refused(geoseg, model, scene, tmp_path, words, message):
    out, *more = words
    done = geoseg("predict", model, scene, tmp_path / out, *more)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / out).exists()


def test_half_precision_on_a_cpu_is_warned_of(geoseg, model, scene, tmp_path):
    done = geoseg(
        "predict", model, scene, tmp_path / "m.tif", "--precision", "fp16", "--device", "cpu"
    )
    assert done.code == 0
    assert "fp16 on a CPU takes many times as long" in done.err
