"""A child's events, its bad ends, its cancelling, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from geoseg_qgis import child as children
from geoseg_qgis import runner
from geoseg_qgis.client import Cancelled, EngineError, build_command
from geoseg_qgis.engine import Engine

from tests.conftest import ROOT
from tests.qgis.recorder import Recorder

SAY = """
import json, sys, time, os
def say(**event):
    print(json.dumps(event), flush=True)
"""


def script(code, *, streams=True):
    options = ["--progress", "json"] if streams else []
    return [sys.executable, "-c", SAY + textwrap.dedent(code), *options]


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    before = set(threading.enumerate())
    yield
    assert not children.is_any_running()
    left = [t for t in threading.enumerate() if t not in before and t.name == "geoseg"]
    assert left == []


def test_progress_messages_and_the_result_come_through():
    feedback = Recorder()
    result = runner.run(
        script("""
            say(event="start", protocol=1, command="predict", plan={})
            say(event="progress", done=1, total=4, unit="tiles", eta_s=2.5)
            say(event="log", level="warning", message="ü: careful")
            say(event="progress", done=4, total=4, eta_s=None)
            say(event="result", outputs={"class_map": "map.tif"}, seconds=1.0)
        """),
        feedback,
    )
    assert result["outputs"] == {"class_map": "map.tif"}
    assert feedback.progress == [(25.0, 2.5), (100.0, None)]
    assert feedback.logs == [("warning", "ü: careful")]


def test_garbage_between_events_is_passed_over():
    result = runner.run(
        script(r"""
            say(event="start", protocol=1)
            os.write(1, b"\xff\xfe\x00 garbage\r\n{half\n\n[]\nnull\n{\"event\": \"new-kind\"}\n")
            os.write(1, b"x" * 5_000_000 + b"\n")
            os.write(1, b'{"event": "res'); time.sleep(0.3)
            os.write(1, b'ult", "outputs": {"a": "b"}}')   # no line end
        """),
        Recorder(),
    )
    assert result["outputs"] == {"a": "b"}


def test_a_line_without_end_is_cut_and_does_not_fill_memory(monkeypatch):
    monkeypatch.setattr(children, "LONGEST_LINE_BYTES", 1000)
    lines = []
    with pytest.raises(EngineError):
        code = 'os.write(1, b"a" * 300_000); os.write(1, b"\\nb\\n"); sys.exit(1)'
        runner.run_tool(script(code), Recorder(), lines.append, extra={})
    assert [len(line) for line in lines] == [1000, 1]


def test_a_refusal_is_the_engines_own_sentence():
    with pytest.raises(EngineError, match="expects 3 bands") as caught:
        runner.run(
            script("""
                say(event="error", kind="BandMismatchError", message="expects 3 bands; has 1.")
                print("geoseg: expects 3 bands; has 1.", file=sys.stderr)
                sys.exit(3)
            """),
            Recorder(),
        )
    assert (caught.value.kind, caught.value.exit_code) == ("BandMismatchError", 3)


def test_a_crash_shows_the_last_lines_of_stderr():
    with pytest.raises(EngineError, match="RuntimeError: no memory for it") as caught:
        runner.run(script('say(event="start", protocol=1); raise RuntimeError("no memory for it")'),
                   Recorder())  # fmt: skip
    assert (caught.value.kind, caught.value.exit_code) == ("Crash", 1)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_child_is_a_crash_with_its_signal():
    with pytest.raises(EngineError, match="signal 9") as caught:
        runner.run(script("os.kill(os.getpid(), 9)"), Recorder())
    assert caught.value.kind == "Crash"


def test_an_end_without_a_result_is_an_error():
    with pytest.raises(EngineError, match="ended with code 0"):
        runner.run(script('say(event="start", protocol=1)'), Recorder())


def test_a_result_before_a_bad_end_counts_and_the_end_is_told():
    feedback = Recorder()
    code = 'say(event="result", outputs={"class_map": "a"}); sys.stdout.flush(); os._exit(5)'
    assert runner.run(script(code), feedback)["outputs"] == {"class_map": "a"}
    assert feedback.logs == [("warning", "geoseg ended with code 5 after its result.")]


def test_another_protocol_is_refused_and_the_child_ended(monkeypatch):
    monkeypatch.setattr(children, "TERMINATE_GRACE_S", 0.2)
    with pytest.raises(EngineError, match="This plugin speaks protocol 1") as caught:
        runner.run(script('say(event="start", protocol=2); time.sleep(60)'), Recorder())
    assert caught.value.kind == "Protocol"


def test_a_silent_child_is_ended():
    began = time.monotonic()
    with pytest.raises(EngineError, match="silent for 0.5 s") as caught:
        runner.run(script("sys.stdin.read(); time.sleep(0)"), Recorder(), silent_after_s=0.5)
    assert caught.value.kind == "Silent"
    assert time.monotonic() - began < 10


def test_a_quiet_child_is_told_of_and_left_alone(monkeypatch):
    monkeypatch.setattr(runner, "QUIET_NOTICE_S", 0.3)
    feedback = Recorder()
    runner.run(script('time.sleep(1); say(event="result", outputs={})'), feedback)
    assert ("info", "Still running; quiet for 0 min.") in feedback.logs


def test_a_command_without_events_gives_what_it_printed():
    result = runner.run(script('print("map.tif")', streams=False), Recorder())
    assert result == {"outputs": {}, "printed": ["map.tif"]}


def test_a_program_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineError, match="cannot be started") as caught:
        runner.run([str(tmp_path / "no python")], Recorder())
    assert caught.value.kind == "NoEngine"


def test_many_lines_at_the_end_are_all_read():
    feedback = Recorder()
    code = """
        for i in range(3000):
            print(json.dumps({"event": "log", "level": "info", "message": str(i)}))
        say(event="result", outputs={})
    """
    runner.run(script(code), feedback)
    assert [int(message) for _, message in feedback.logs] == list(range(3000))


def test_a_full_stderr_does_not_block_the_child():
    code = 'os.write(2, b"e" * 3_000_000); say(event="result", outputs={})'
    assert runner.run(script(code), Recorder())["outputs"] == {}


def test_cancelling_closes_stdin_and_the_child_tidies_up(tmp_path):
    mark = tmp_path / "tidied"
    feedback = Recorder()
    feedback.cancel_at_log = "at work"
    with pytest.raises(Cancelled):
        runner.run(
            script(f"""
                say(event="log", level="info", message="at work")
                sys.stdin.read()
                open({str(mark)!r}, "w").close()
                say(event="error", kind="InterruptedRunError", message="stopped")
                sys.exit(130)
            """),
            feedback,
        )
    assert mark.exists()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_child_that_does_not_listen_is_terminated_then_killed(monkeypatch):
    monkeypatch.setattr(runner, "STOP_GRACE_S", 0.3)
    monkeypatch.setattr(children, "TERMINATE_GRACE_S", 0.3)
    feedback = Recorder()
    feedback.cancel_at_log = "deaf"
    began = time.monotonic()
    with pytest.raises(Cancelled):
        runner.run(
            script("""
                import signal
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                say(event="log", level="info", message="deaf")
                while True: time.sleep(1)
            """),
            feedback,
        )
    assert time.monotonic() - began < 10


@pytest.mark.skipif(os.name == "nt", reason="process groups")
def test_a_process_left_behind_by_a_crashed_child_is_ended(monkeypatch):
    monkeypatch.setattr(runner, "READER_GRACE_S", 0.3)
    feedback = Recorder()
    with pytest.raises(EngineError):
        runner.run(
            script("""
                import subprocess
                left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
                say(event="log", level="info", message=str(left.pid))
                os._exit(1)
            """),
            feedback,
        )
    assert is_gone(int(feedback.logs[0][1]))


def test_runs_in_several_threads_do_not_disturb_each_other():
    results = {}

    def work(name):
        code = f'time.sleep(0.2); say(event="result", outputs={{"class_map": "{name}"}})'
        results[name] = runner.run(script(code), Recorder())["outputs"]["class_map"]

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {str(i): str(i) for i in range(4)}


def test_a_cancelled_run_ends_although_another_runs():
    """A child must not hold the other's stdin open."""
    first, second = Recorder(), Recorder()
    code = 'say(event="log", level="info", message="up"); sys.stdin.read(); sys.exit(130)'
    other = threading.Thread(target=expect_cancelled, args=(script(code), second))
    second.cancel_at_log = "never"
    other.start()
    while not second.logs:
        time.sleep(0.02)
    first.cancel_at_log = "up"
    began = time.monotonic()
    expect_cancelled(script(code), first)
    assert time.monotonic() - began < 10
    second.cancelled = True
    other.join(20)
    assert not other.is_alive()


def expect_cancelled(command, feedback):
    with pytest.raises(Cancelled):
        runner.run(command, feedback)


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from geoseg_qgis import runner
class Feedback:
    def is_cancelled(self): return False
    def set_progress(self, percent, remaining_s): pass
    def log(self, level, message): print(message, flush=True)
code = '''
import json, os, sys
print(json.dumps({"event": "log", "level": "info", "message": str(os.getpid())}), flush=True)
os.read(0, 1)
'''
how = sys.argv[2]
if how == "quit":
    import threading
    threading.Thread(target=runner.run, args=([sys.executable, "-c", code], Feedback()),
                     daemon=True).start()
    sys.stdin.readline()
else:
    runner.run([sys.executable, "-c", code], Feedback())
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", ["killed", "quit"])
def test_no_child_outlives_its_parent(how):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT / "qgis_plugin"), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert not is_gone(pid, wait_s=0)
        if how == "killed":
            parent.send_signal(signal.SIGKILL)
        else:
            parent.stdin.close()
        parent.wait(20)
        assert is_gone(pid)


def is_gone(pid, *, wait_s=10.0):
    """Return whether a process has ended; one without a living parent may stay as a zombie."""
    until = time.monotonic() + wait_s
    while True:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
        )
        if state.stdout.strip()[:1] in {"", "Z"}:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)


class CancelAtFirstTile(Recorder):
    def set_progress(self, percent, remaining_s):
        super().set_progress(percent, remaining_s)
        self.cancelled = self.cancelled or 0 < percent < 100


def test_the_real_engine_runs_is_cancelled_and_resumed(engine_python, tmp_path, make_raster):
    """One map in two runs, through a folder with a space and a letter beyond ASCII."""
    values = np.random.default_rng(0).integers(0, 255, (3, 320, 320), np.uint8)
    scene = make_raster(values, "a map ü/scene.tif")
    out = scene.with_name("map.tif")
    engine = Engine(engine_python, "setting")
    options = ["--tile-size", "128", "--overlap", "32", "--device", "cpu", "--gsd", "native"]
    arguments = ["demo-buildings-banepa", str(scene), str(out), *options]
    with pytest.raises(Cancelled):
        runner.run(build_command(engine, "predict", arguments), CancelAtFirstTile())
    assert not out.exists()
    assert out.with_name("map.tif.parts").is_dir()
    feedback = Recorder()
    result = runner.run(build_command(engine, "predict", [*arguments, "--resume"]), feedback)
    assert result["outputs"]["class_map"] == str(out)
    assert out.exists()
    assert feedback.progress[-1][0] == 100.0
    assert not out.with_name("map.tif.parts").exists()


def test_the_real_engine_refuses_with_a_sentence(engine_python, tmp_path):
    engine = Engine(engine_python, "setting")
    missing = str(tmp_path / "missing.tif")
    command = build_command(engine, "predict", ["demo-buildings-banepa", missing, "out.tif"])
    with pytest.raises(EngineError, match="cannot be opened") as caught:
        runner.run(command, Recorder())
    assert (caught.value.kind, caught.value.exit_code) == ("RasterReadError", 3)
