"""The options page in real QGIS: testing and installing an engine, settings, models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.qgis.conftest import PLUGIN
from tests.qgis.engines import fake_engine
from tests.qgis.wheels import write_geoseg

SCRIPT = Path(__file__).parent / "in_qgis" / "options_page.py"
pytestmark = pytest.mark.qgis
DOCTOR = """print('{"geoseg": "0.1.0", "protocol": 1, "packages": {"torch": "2.15.0"}}')"""


@pytest.fixture
def use_page(qgis_python, tmp_path):
    """Return a function that opens the page in QGIS, and gives back what it shows then."""
    profile = tmp_path / "a profile ü"
    home = tmp_path / "home"
    home.mkdir()

    def use(scenario, *, path="", **given):
        environ = {
            **os.environ,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "PATH": f"{path}{os.pathsep}{os.environ['PATH']}" if path else os.environ["PATH"],
            "PYTHONWARNINGS": "error::DeprecationWarning:geoseg_qgis",
        }
        for name in ("GEOSEG_PYTHON", "PYTHONPATH"):
            environ.pop(name, None)
        done = subprocess.run(
            [qgis_python, str(SCRIPT), str(PLUGIN), str(profile), scenario, json.dumps(given)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return use


@pytest.fixture
def wheels(tmp_path):
    write_geoseg(tmp_path / "wheels")
    return str(tmp_path / "wheels")


@pytest.fixture
def uv_folder(uv_path):
    return str(Path(uv_path).parent)


@pytest.fixture
def slow_uv(tmp_path):
    """Return a folder with a program in uv's place that works for a minute."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "uv").write_text(
        f"#!{sys.executable}\nimport sys, time\n"
        "if '--version' in sys.argv: sys.exit(print('uv 0.9.0'))\n"
        "print('uv is at work', flush=True); time.sleep(60)\n"
    )
    (folder / "uv").chmod(0o755)
    return str(folder)


def test_without_an_engine_the_page_says_what_to_do(use_page):
    shown = use_page("press_test")
    assert "in none of them" in shown["found"]
    assert 'press "Install engine"' in shown["log"]
    assert shown["title"] == "geoseg"


def test_the_engine_at_a_path_is_tested(use_page, tmp_path):
    python = str(fake_engine(tmp_path / "engine ü", DOCTOR))
    shown = use_page("press_test", python_path=python)
    assert f"geoseg 0.1.0, Python None: {python}" in shown["log"]
    assert "PyTorch 2.15.0" in shown["log"]
    assert (shown["buttons"], shown["busy"]) == ([True, True], False)
    assert shown["settings"]["python_path"] == ""  # nothing is kept until OK is pressed


def test_an_engine_that_is_too_old_is_named(use_page, tmp_path):
    main = """print('{"geoseg": "0.0.1", "protocol": 1}')"""
    shown = use_page("press_test", python_path=str(fake_engine(tmp_path / "old", main)))
    assert "has 0.0.1 with protocol 1" in shown["log"]


def test_the_real_engine_is_tested(use_page, engine_python):
    shown = use_page("press_test", python_path=engine_python)
    assert "PyTorch" in shown["log"]
    assert "Kernels:" in shown["log"]
    assert "CPU:" in shown["log"]


def test_an_engine_is_installed_after_its_size_was_shown(use_page, wheels, uv_folder):
    shown = use_page("install", offline_folder=wheels, source="geoseg==0.1.0", path=uv_folder)
    assert len(shown["asked"]) == 1
    assert shown["asked"][0].startswith("Nothing is downloaded")
    assert "geoseg 0.1.0 is ready." in shown["log"]
    assert "used from now on" in shown["log"]
    assert shown["folder"] in shown["found"]
    assert "installed in the QGIS profile" in shown["found"]
    later = use_page("press_test", offline_folder=wheels)
    assert "geoseg 0.1.0" in later["log"]


def test_nothing_is_installed_when_the_user_declines(use_page, wheels, uv_folder):
    shown = use_page("decline", offline_folder=wheels, path=uv_folder)
    assert "Nothing was installed." in shown["log"]
    assert not list(Path(shown["folder"]).glob("engine-*"))
    assert (shown["buttons"], shown["busy"]) == ([True, True], False)


def test_a_source_that_is_none_is_named_before_anything_is_asked(use_page, uv_folder):
    shown = use_page("install", source="torch", path=uv_folder)
    assert shown["asked"] == []
    assert "source was expected to be a requirement" in shown["log"]


@pytest.mark.skipif(os.name == "nt", reason="a script in uv's place")
def test_an_installation_is_cancelled(use_page, wheels, slow_uv):
    shown = use_page("cancel", offline_folder=wheels, path=slow_uv)
    assert shown["asked"][1] is False  # the button was there to be pressed
    assert "cancelled" in shown["log"]
    assert not list(Path(shown["folder"]).glob("engine-*"))
    assert (shown["buttons"], shown["busy"]) == ([True, True], False)


@pytest.mark.skipif(os.name == "nt", reason="a script in uv's place")
def test_unloading_the_plugin_ends_an_installation(use_page, wheels, slow_uv):
    shown = use_page("unload", offline_folder=wheels, path=slow_uv)
    assert not list(Path(shown["folder"]).glob("engine-*"))


def test_an_installation_goes_on_when_the_options_are_closed(use_page, wheels, uv_folder):
    shown = use_page("reopen", offline_folder=wheels, path=uv_folder)
    assert shown["asked"][1] == [False, False]  # the new page is busy and shows progress
    assert list(Path(shown["folder"]).glob("engine-*"))
    assert (shown["buttons"], shown["busy"]) == ([True, True], False)


def test_models_are_added_removed_and_kept(use_page):
    assert use_page("models")["models"] == ["/b/zwei ü.onnx", "/c/three.pt2"]
    assert use_page("apply")["models"] == ["/b/zwei ü.onnx", "/c/three.pt2"]


def test_settings_are_kept_and_the_default_source_follows_the_version(use_page):
    given = {"backend": "cpu", "proxy": "http://p:1", "offline_folder": "/w", "python_path": "/p"}
    kept = use_page("apply", **given)["settings"]
    assert kept == {**given, "engine_source": kept["engine_source"]}
    assert kept["engine_source"].startswith("geoseg==")
    assert use_page("apply", source="/a/checkout")["settings"]["engine_source"] == "/a/checkout"


def test_a_path_that_comes_before_the_installed_engine_is_told(
    use_page, wheels, uv_folder, tmp_path
):
    python = str(fake_engine(tmp_path / "other", DOCTOR))
    shown = use_page("install", python_path=python, offline_folder=wheels, path=uv_folder)
    assert "What is named above is still used" in shown["log"]
    assert python in shown["found"]
