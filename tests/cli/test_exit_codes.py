"""Each kind of failure: its exit code, one sentence on stderr, nothing on stdout, no traceback."""

import json
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest

from tests.cli.process import environment, finish, is_sentence, run, start
from tests.conftest import ROOT


def test_failures_of_each_kind(model, scene, make_raster, tmp_path):
    ids = make_raster(np.zeros((20, 20), np.uint8), "ids.tif")
    (tmp_path / "file").write_text("")
    out = tmp_path / "m.tif"
    failures = [
        # usage
        (("predict", model, scene, tmp_path / "m.png"), 2, "expected a .tif file or a folder"),
        (("vectorize", ids, tmp_path / "v.kml"), 2, "ends with .gpkg"),
        # input
        (("predict", model, scene, out, "--bands", "1,2"), 3, "--bands names 2"),
        (("vectorize", tmp_path / "none.tif", tmp_path / "v.gpkg"), 3, "cannot be opened"),
        # machine
        (("predict", model, scene, out, "--max-memory", "10MB"), 4, "--max-memory allows 0.01 GB"),
        (("vectorize", ids, tmp_path / "file" / "v.gpkg"), 4, "cannot be written"),
    ]
    processes = [start(*words, "--progress", "none") for words, _, _ in failures]
    ended = list(map(finish, processes))
    for (found, said, err), (words, code, message) in zip(ended, failures, strict=True):
        assert (found, said) == (code, ""), (words, err)
        assert is_sentence(err), (words, err)
        assert message in err
    assert {path.name for path in tmp_path.iterdir()} == {"file", "ids.tif", scene.name}


@pytest.mark.parametrize("words", [("predict", "--tile-size", "0"), ("no-such-command",)])
def test_a_command_line_that_makes_no_sense(words, tmp_path):
    code, said, err = run(*words, cwd=tmp_path)
    assert (code, said) == (2, "")
    assert err.startswith("Usage: geoseg")
    assert err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in err


JSON = ("--progress", "json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict", "--tile-sise", "64", *JSON), "No such option"),  # before --progress is parsed
        (("predict", "m", "r", "o.tif", "--tta", "all", "--progress=json"), "'all' is not one of"),
        *(
            ((command, *JSON), "Missing argument")
            for command in ("predict", "assemble", "vectorize", "train", "finetune", "pretrain")
        ),
        (("evaluate", *JSON), "Missing argument"),
        (("describe", *JSON), "Missing argument"),
        (("demo", "--no-such", *JSON), "No such option"),
        (("no-such-command", *JSON), "No such command"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_an_event_too(geoseg, words, message):
    done = geoseg(*words)
    assert done.code == 2
    (event,) = map(json.loads, done.lines)
    assert (event["event"], event["kind"]) == ("error", "UsageError")
    assert message in event["message"]
    assert event["message"] in done.err


def test_ctrl_c_while_it_still_loads(model, scene, tmp_path):
    process = start("predict", model, scene, tmp_path / "m.tif", "--progress", "none")
    time.sleep(1)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, said, err = finish(process)
    assert (code, said) == (130, "")
    assert time.monotonic() - asked < 10
    assert is_sentence(err.lstrip("\n"))  # what the terminal shows for Ctrl-C ends there
    assert not (tmp_path / "m.tif").exists()


def test_ctrl_c_before_the_command_line_is_there(tmp_path):
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    module, _, function = entry["geoseg"].partition(":")
    ways = [
        f"from {module} import {function}; {function}()",  # as the script does
        "runpy.run_module('geoseg', run_name='__main__')",
    ]
    for way in ways:
        code = (
            "import runpy, signal, sys\n"
            # As Python begins; a job in the background inherits that it is ignored.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "class CtrlC:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'rich.console': signal.raise_signal(signal.SIGINT)\n"
            "sys.meta_path.insert(0, CtrlC())\n"
            f"sys.argv[1:] = ['predict', 'm', 'r', 'o.tif', '--progress', 'json']\n{way}"
        )
        words = [sys.executable, "-c", code]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 130, done.stderr
        assert is_sentence(done.stderr)
        assert json.loads(done.stdout)["kind"] == "KeyboardInterrupt"
        assert done.stderr == f"geoseg: {json.loads(done.stdout)['message']}\n"
