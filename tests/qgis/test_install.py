"""The managed engine: planned, installed from a folder of wheels, replaced whole or not at all."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from geoseg_qgis import install, install_plan, pythons, uv_binary
from geoseg_qgis.client import Cancelled, EngineError
from geoseg_qgis.engine import ask_engine, find_engine
from geoseg_qgis.install import install_engine, plan_install

from tests.conftest import ROOT
from tests.qgis.recorder import Recorder
from tests.qgis.wheels import write_geoseg, write_wheel

FITTING_TAG = {
    "linux": "py3-none-manylinux_2_17_{machine}.manylinux2014_{machine}",
    "darwin": "py3-none-macosx_11_0_{machine}",
    "win32": "py3-none-win_amd64",
}


def uv_tag():
    machine = os.uname().machine if hasattr(os, "uname") else "amd64"
    return FITTING_TAG[sys.platform].format(machine=machine)


@pytest.fixture
def uv(uv_path, monkeypatch):
    """Make sure that the plugin finds uv, wherever the tests have theirs."""
    monkeypatch.setattr(uv_binary, "find_uv", lambda folder: uv_path)
    return uv_path


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv("GEOSEG_PYTHON", raising=False)
    monkeypatch.setattr(install_plan, "find_python", lambda: sys.executable)
    monkeypatch.setattr(uv_binary, "is_reachable", lambda address, proxy: True)
    profile = tmp_path / "profil ü" / "geoseg"
    return SimpleNamespace(
        python_path="",
        engine_source="geoseg==0.1.0",
        backend="cpu",
        offline_folder="",
        proxy="",
        managed_folder=lambda: profile,
    )


@pytest.fixture
def offline(settings, tmp_path, monkeypatch):
    """Have a folder of wheels, and a network that leads nowhere."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    folder = tmp_path / "wheels of ü"
    write_geoseg(folder)
    settings.offline_folder = str(folder)
    return folder


def environments(settings):
    return sorted(path.name for path in settings.managed_folder().glob("engine-*"))


def test_an_engine_is_installed_from_a_folder_without_a_network(uv, settings, offline):
    plan = plan_install(settings)
    assert plan.is_offline
    assert plan.download_bytes == 0
    assert plan.sentence().startswith("Nothing is downloaded")
    feedback = Recorder()
    engine = install_engine(plan, feedback)
    assert engine == find_engine(settings)
    assert engine.source == "managed"
    assert ask_engine(engine, "doctor", ["--json"])["geoseg"] == "0.1.0"
    percents = [percent for percent, _ in feedback.progress]
    assert percents == sorted(percents)
    assert percents[-1] == 100.0
    assert ("info", "geoseg 0.1.0 is ready.") in feedback.logs


def test_a_repeated_installation_replaces_the_engine(uv, settings, offline):
    first = install_engine(plan_install(settings), Recorder())
    write_geoseg(offline, "0.2.0")
    settings.engine_source = "geoseg>=0.2"
    second = install_engine(plan_install(settings), Recorder())
    assert first.python != second.python
    assert find_engine(settings) == second
    assert len(environments(settings)) == 1


def test_an_engine_of_another_protocol_does_not_replace_the_one_there_is(uv, settings, offline):
    good = install_engine(plan_install(settings), Recorder())
    write_geoseg(offline, "9.0.0", protocol=2)
    settings.engine_source = "geoseg==9.0.0"
    with pytest.raises(EngineError, match="speaks protocol 1"):
        install_engine(plan_install(settings), Recorder())
    assert find_engine(settings) == good
    assert len(environments(settings)) == 1


def test_a_failed_installation_shows_what_uv_said_and_changes_nothing(uv, settings, offline):
    settings.engine_source = "geoseg==7.7.7"
    with pytest.raises(EngineError, match="was not installed.*uv said:(?s:.*)7.7.7") as caught:
        install_engine(plan_install(settings), Recorder())
    assert caught.value.kind == "InstallFailed"
    assert environments(settings) == []
    with pytest.raises(EngineError, match="in none of them"):
        find_engine(settings)


@pytest.mark.parametrize("moment", ["begin", "end"])
def test_a_cancelled_installation_leaves_nothing(uv, settings, offline, moment):
    feedback = Recorder()
    feedback.cancelled = moment == "begin"
    feedback.cancel_at_log = "Checking it: geoseg doctor ..."
    with pytest.raises(Cancelled, match="nothing was changed"):
        install_engine(plan_install(settings), feedback)
    assert environments(settings) == []
    assert not (settings.managed_folder() / "current").exists()


def test_a_folder_that_cannot_be_written_is_named(uv, settings, offline):
    plan = plan_install(settings)
    settings.managed_folder().parent.mkdir()
    settings.managed_folder().write_text("a file where the folder should be")
    with pytest.raises(EngineError, match="profil ü.*cannot be written") as caught:
        install_engine(plan, Recorder())
    assert caught.value.kind == "NoFolder"


@pytest.mark.parametrize("kind", ["wheel", "folder"])
def test_a_wheel_or_its_folder_is_a_source(uv, settings, offline, tmp_path, kind):
    wheel = write_geoseg(tmp_path / "built here", "0.3.0")
    settings.engine_source = str(wheel if kind == "wheel" else wheel.parent)
    engine = install_engine(plan_install(settings), Recorder())
    assert ask_engine(engine, "doctor", [])["geoseg"] == "0.3.0"


@pytest.mark.parametrize(
    ("source", "requirement"),
    [
        ("geoseg==0.1.0", "geoseg[train,export]==0.1.0"),
        ("geoseg", "geoseg[train,export]"),
        ("geoseg[all]>=0.1", "geoseg[all]>=0.1"),
        (
            "geoseg @ https://example.org/geoseg-0.1.0.whl",
            "geoseg[train,export] @ https://example.org/geoseg-0.1.0.whl",
        ),
    ],
)
def test_a_requirement_gets_the_extras_that_the_algorithms_need(uv, settings, source, requirement):
    settings.engine_source = source
    assert plan_install(settings).requirement == requirement


def test_a_checkout_is_a_source(uv, settings):
    settings.engine_source = str(ROOT)
    assert plan_install(settings).requirement == f"geoseg[train,export] @ {ROOT.as_uri()}"


@pytest.mark.parametrize("source", ["torch==2.10", "geosegment", "no/such/folder", "/"])
def test_a_source_that_is_none_is_named(uv, settings, source):
    settings.engine_source = source
    with pytest.raises(EngineError, match="source was expected to be a requirement"):
        plan_install(settings)


def test_a_folder_without_wheels_is_refused_before_anything_is_done(settings, tmp_path):
    settings.offline_folder = str(tmp_path)
    with pytest.raises(EngineError, match="A folder with wheels was expected"):
        plan_install(settings)


def test_without_network_uv_and_python_must_be_there(settings, offline, monkeypatch):
    monkeypatch.setattr(uv_binary, "find_uv", lambda folder: None)
    monkeypatch.setattr(install_plan, "find_python", lambda: None)
    with pytest.raises(EngineError, match=r"a wheel of uv .* and a Python from 3\.12 to 3\.14"):
        plan_install(settings)


@pytest.mark.parametrize(("backend", "low", "high"), [("cpu", 0.4e9, 0.7e9), ("auto", 3e9, 4e9)])
def test_the_size_is_shown_first(uv, settings, monkeypatch, backend, low, high):
    monkeypatch.setattr(install_plan, "has_cuda", lambda: True)
    settings.backend = backend
    monkeypatch.setattr(install_plan.shutil, "disk_usage", lambda path: Usage(free=10**12))
    plan = plan_install(settings)
    assert low < plan.download_bytes < high
    assert plan.sentence().startswith(f"About {plan.download_bytes / 1e9:.1f} GB are downloaded")


def test_where_pytorchs_index_is_out_of_reach_the_size_and_the_sentence_say_so(
    uv, settings, monkeypatch
):
    monkeypatch.setattr(uv_binary, "is_reachable", lambda address, proxy: False)
    monkeypatch.setattr(install_plan.sys, "platform", "linux")
    monkeypatch.setattr(install_plan.shutil, "disk_usage", lambda path: Usage(free=10**12))
    plan = plan_install(settings)
    assert plan.download_bytes > 3e9
    assert "the package registry's PyTorch (https://download.pytorch.org" in plan.sentence()


def test_an_address_is_reachable_or_not(index_of_uv):
    wheel, listed = index_of_uv
    with serving(wheel.parent, listed) as index:
        assert uv_binary.is_reachable(index)
        assert not uv_binary.is_reachable(index + "missing")
    assert not uv_binary.is_reachable(index)


Usage = namedtuple("Usage", ["free"])


def test_a_disk_that_is_too_full_is_refused_before_anything_is_done(uv, settings, monkeypatch):
    monkeypatch.setattr(install_plan.shutil, "disk_usage", lambda path: Usage(free=10**8))
    with pytest.raises(EngineError, match=r"GB of disk are needed .* 0\.1 GB are free") as caught:
        plan_install(settings)
    assert caught.value.kind == "DiskFull"
    assert not settings.managed_folder().exists()


def test_uv_is_told_the_backend_the_proxy_and_nothing_of_qgis(settings, tmp_path, monkeypatch):
    told = tmp_path / "told"
    # A stand-in for uv: writes down what it is given, then makes a plain environment.
    code = (
        f"#!{sys.executable}\nimport json, os, subprocess, sys\n"
        f"open({str(told)!r}, 'a').write(json.dumps([sys.argv[1:], dict(os.environ)]) + '\\n')\n"
        "if sys.argv[1] == 'venv':\n"
        "    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', sys.argv[-1]])\n"
        "else:\n"
        "    sys.exit(print('error: no such package') or 2)\n"
    )
    stand_in = tmp_path / "uv"
    stand_in.write_text(code)
    stand_in.chmod(0o755)
    monkeypatch.setattr(uv_binary, "find_uv", lambda folder: str(stand_in))
    monkeypatch.setenv("PYTHONPATH", "/poison")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mirror.example.org/simple")
    settings.backend, settings.proxy = "auto", "http://proxy.example.org:3128"
    with pytest.raises(EngineError, match=r"uv said:\nerror: no such package \(code 2\)"):
        install_engine(plan_install(settings), Recorder())
    venv, install = [json.loads(line) for line in told.read_text().splitlines()]
    assert venv[0][:2] == ["venv", "--no-project"]
    assert install[0][-3:] == ["--torch-backend", "auto", "geoseg[train,export]==0.1.0"]
    for _, environ in (venv, install):
        assert "PYTHONPATH" not in environ
        assert environ["HTTPS_PROXY"] == "http://proxy.example.org:3128"
        assert environ["UV_DEFAULT_INDEX"] == "https://mirror.example.org/simple"
        assert environ["UV_PYTHON_INSTALL_DIR"] == str(settings.managed_folder() / "python")


def test_progress_follows_the_sizes_of_the_downloads():
    feedback = Recorder()
    teller = install._Teller(feedback, 10.0, 90.0)
    for line in [
        "Using Python 3.12.1",
        "Resolved 80 packages in 1.2s",
        "Downloading torch (175.0MiB)",
        "Downloading numpy (25.0MiB)",
        " Downloaded numpy",
        " Downloaded torch",
        "",
    ]:
        teller(line)
    assert [percent for percent, _ in feedback.progress] == [10.0, 10.0, 20.0, 90.0]
    assert ("info", "Resolved 80 packages in 1.2s") in feedback.logs


def test_a_python_that_is_found_runs_and_is_new_enough():
    python = pythons.find_python()
    assert python is not None
    version = subprocess.run([python, "--version"], capture_output=True, text=True).stdout
    assert (3, 12) <= tuple(map(int, version.split()[1].split(".")[:2])) <= (3, 14)
    assert "shims" not in python


def test_a_program_named_python_that_fails_is_passed_over(tmp_path, monkeypatch):
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 1\n")
    shim.chmod(0o755)
    monkeypatch.setattr(pythons, "_candidates", lambda: iter([str(shim), sys.executable]))
    assert pythons.find_python() == sys.executable


def uv_wheel(folder, version="0.9.0", content="#!/bin/sh\necho uv 0.9.0\n", tag=""):
    member = f"uv-{version}.data/scripts/{uv_binary.NAME}"
    return write_wheel(folder, "uv", version, {member: content}, tag=tag or uv_tag())


def test_uv_is_taken_out_of_the_folder_of_wheels(tmp_path):
    uv_wheel(tmp_path / "wheels", "0.10.0", "new")
    uv_wheel(tmp_path / "wheels", "0.9.0", "old")
    uv_wheel(tmp_path / "wheels", "0.11.0", "other", tag="py3-none-manylinux_2_17_riscv64")
    wheel = uv_binary.wheel_in(tmp_path / "wheels")
    program = uv_binary.unpack(wheel, tmp_path / "tools")
    assert Path(program).read_text("utf-8") == "new"
    assert os.access(program, os.X_OK)


@pytest.mark.skipif(os.name == "nt", reason="a script in uv's place")
@pytest.mark.parametrize(("version", "is_taken"), [("0.9.0", True), ("0.4.9", False)])
def test_a_uv_that_is_too_old_is_not_taken(tmp_path, monkeypatch, version, is_taken):
    monkeypatch.setattr(uv_binary.shutil, "which", lambda name: None)
    monkeypatch.setattr(uv_binary.Path, "home", lambda: tmp_path / "home")
    program = uv_binary.unpack(
        uv_wheel(tmp_path, content=f"#!/bin/sh\necho uv {version}\n"), tmp_path / "tools"
    )
    assert uv_binary.find_uv(tmp_path / "tools") == (program if is_taken else None)


@contextmanager
def serving(folder, listed):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self):
            if self.path != "/simple/uv/":
                super().do_GET()
                return
            body = json.dumps({"files": listed(self.server.server_port)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple/uv/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(index, feedback=None):
    feedback = feedback or Recorder()
    told = []
    wheel = uv_binary.fetch_wheel(
        feedback.is_cancelled, lambda done, total: told.append((done, total)), index=index
    )
    return wheel, told


@pytest.fixture
def index_of_uv(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    wheel = uv_wheel(tmp_path / "served")

    def listed(port, digest=""):
        digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
        url = f"http://127.0.0.1:{port}/{wheel.name}"
        other = {"filename": "uv-9.0.0-py3-none-any.txt", "url": url, "hashes": {}}
        yanked = {"filename": wheel.name.replace("0.9.0", "1.0.0"), "url": "", "yanked": True}
        return [
            other,
            yanked,
            {"filename": wheel.name, "url": url, "hashes": {"sha256": digest}},
        ]

    return wheel, listed


def test_uv_is_fetched_and_its_checksum_compared(index_of_uv):
    wheel, listed = index_of_uv
    with serving(wheel.parent, listed) as index:
        content, told = fetch(index)
    assert content == wheel.read_bytes()
    assert told[-1] == (len(content), len(content))


def test_a_uv_with_another_checksum_is_refused(index_of_uv):
    wheel, listed = index_of_uv
    with (
        serving(wheel.parent, lambda port: listed(port, "0" * 64)) as index,
        pytest.raises(EngineError, match="another checksum"),
    ):
        fetch(index)


def test_fetching_uv_can_be_cancelled(index_of_uv):
    wheel, listed = index_of_uv
    feedback = Recorder()
    feedback.cancelled = True
    with serving(wheel.parent, listed) as index, pytest.raises(Cancelled):
        fetch(index, feedback)


def test_a_machine_that_uv_is_not_made_for_is_named(tmp_path, index_of_uv):
    with (
        serving(tmp_path, lambda port: []) as index,
        pytest.raises(EngineError, match="there is none. Install uv yourself"),
    ):
        fetch(index)


@pytest.mark.parametrize(
    "index", ["http://127.0.0.1:9/simple/uv/", "file:///etc/hosts", "ftp://x/"]
)
def test_an_address_that_gives_nothing_is_named(index_of_uv, index):
    with pytest.raises(EngineError, match="could not be fetched|https address was expected"):
        fetch(index)


@pytest.mark.slow
@pytest.mark.network
def test_the_wheel_of_this_tree_is_installed_and_checked(uv, settings, tmp_path):
    """The whole engine, torch and all: what a user's click does."""
    wheels = tmp_path / "built"
    build = [uv, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir"]
    subprocess.run([*build, str(wheels), str(ROOT)], check=True)
    settings.engine_source = str(wheels)
    engine = install_engine(plan_install(settings), Recorder())
    assert find_engine(settings) == engine
    record = ask_engine(engine, "doctor", ["--json"], timeout_s=300)
    assert record["packages"]["lightning"]
    assert ask_engine(engine, "models", ["--json"], timeout_s=300)["shipped"]
