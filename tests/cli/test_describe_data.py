"""``geoseg describe`` of data sets."""

import json
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.data.chip_files import PLAIN, halves, write_pairs

SECTION = """
kind: folder
train: {{images: {0}/images, labels: {0}/masks}}
val: {{images: {0}/images, labels: {0}/masks}}
classes:
- {{id: 0, name: other}}
- {{id: 1, name: house, color: "#FF0000"}}
"""


@pytest.fixture
def root(make_raster, tmp_path):
    write_pairs(make_raster)
    return tmp_path / "set"


def test_a_data_section_is_described(geoseg, root, tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text(SECTION.format(root))
    done = geoseg("describe", file)
    assert done.code == 0, done.err
    assert "3 band(s) (red, green, blue), uint8" in done.out
    assert "1  #FF0000 house   50.00 %  50.00 %" in done.out
    assert "problem: leak: 2 images of val are also in train, first 'a' = 'a'." in done.out
    assert "  mean:     [" in done.out
    record = json.loads(geoseg("describe", file, "--json").out)
    assert record["kind"] == "data"
    assert record["splits"][0]["counts"] == [80, 80]
    assert len(record["problems"]) == 2


def test_a_run_file_is_described_by_its_data(geoseg, root, tmp_path):
    section = SECTION.format(root).strip().replace("\n", "\n  ")
    file = tmp_path / "run.yml"
    file.write_text(f"out: runs/x\nmodel: {{name: segnext_t}}\ndata:\n  {section}\n")
    assert "(folder)" in geoseg("describe", file).out
    file.write_text(f"out: runs/x\nmodel: {{name: segnext_t}}\ndata:\n  {section}\nodd: 1\n")
    done = geoseg("describe", file)
    assert done.code == 3
    assert "unknown key 'odd'" in done.err


def test_a_folder_is_described_and_its_classes_found(geoseg, root):
    done = geoseg("describe", root)
    assert done.code == 0, done.err
    assert "class 1   50.00 %" in done.out
    assert "no problems found" in done.out


def test_labels_of_single_classes_are_noted(geoseg, root, make_raster):
    make_raster(halves(1, 1), "set/masks/a.png", driver="PNG", **PLAIN)
    assert "note: train: 1 samples hold a single class" in geoseg("describe", root).out


def test_what_cannot_be_read_at_all_is_an_error(geoseg, tmp_path):
    assert geoseg("describe", tmp_path).code == 3
    assert geoseg("describe", tmp_path / "nothing.yaml").code == 3
    file = tmp_path / "data.yaml"
    file.write_text("kind: ade20k\nroot: nowhere\n")
    done = geoseg("describe", file)
    assert done.code == 3
    assert "Get it from http://sceneparsing.csail.mit.edu" in done.err
    assert "samples of" not in done.err + done.out
    file.write_text("kind: folder\nclases: []\n")
    assert "unknown key 'clases'. Did you mean classes" in geoseg("describe", file).err


def test_progress_is_one_json_object_a_line(geoseg, root, model):
    plain = json.loads(geoseg("describe", root, "--json").out)
    done = geoseg("describe", root, "--progress", "json")
    events = [json.loads(line) for line in done.lines]
    assert (done.code, done.err) == (0, "")
    assert (events[0]["event"], events[0]["command"]) == ("start", "describe")
    assert events[-2] | {"eta_s": 0} == {
        "event": "progress",
        "done": 2,
        "total": 2,
        "unit": "samples",
        "eta_s": 0,
    }
    assert (events[-1]["event"], events[-1]["outputs"]) == ("result", {})
    assert events[-1]["description"] == plain
    (only,) = [json.loads(line) for line in geoseg("describe", model, "--progress=json").lines]
    assert (only["event"], only["description"]["kind"]) == ("result", "model")


def test_progress_does_not_change_what_is_printed(geoseg, root):
    auto, none = (geoseg("describe", root, "--progress", kind) for kind in ("auto", "none"))
    assert auto.out == none.out
    assert "samples of train" in auto.err
    assert none.err == ""


@pytest.mark.parametrize(
    ("workers", "how"), [(0, signal.SIGTERM), (2, signal.SIGINT), (2, "stdin")]
)
def test_a_stopped_run_says_so(root, workers, how):
    for i in range(2000):
        for name in ("images", "masks"):
            (root / name / f"more_{i}.png").symlink_to(root / name / "a.png")
    command = [sys.executable, "-m", "geoseg", "describe", str(root), "--progress", "json"]
    with subprocess.Popen(
        [*command, "--watch-stdin", f"--workers={workers}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        events = (json.loads(line) for line in process.stdout)
        assert next(e for e in events if e["event"] == "progress")["total"] == 2002
        process.stdin.close() if how == "stdin" else process.send_signal(how)
        last = list(events)[-1]
        said = process.stderr.read()
    assert process.returncode == 130
    assert last["kind"] == "InterruptedRunError"
    assert said == f"geoseg: {last['message']}\n"
    assert last["message"].startswith("stopped. A data set is described once all of it is read")


def test_options_of_rasters_are_refused(geoseg, root):
    done = geoseg("describe", root, "--bands", "1")
    assert done.code == 2
    assert "--model and --bands need a raster" in done.err
    done = geoseg("describe", root, "--json", "--progress", "json")
    assert done.code == 2
    assert "--json and --progress json both write to stdout" in done.err
