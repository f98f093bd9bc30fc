"""Nothing of QGIS's own environment reaches geoseg's process."""

import json
import os
import subprocess
import sys

import pytest
from geoseg_qgis.client import build_command
from geoseg_qgis.engine import Engine, ask_engine
from geoseg_qgis.environment import POSIX_PATH, child_environment, process_options

POISON = (
    *("PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "PYTHONSTARTUP", "PYTHONUSERBASE"),
    *("PROJ_LIB", "PROJ_DATA", "GDAL_DATA", "GDAL_DRIVER_PATH", "PATH", "LD_LIBRARY_PATH"),
    *("LD_PRELOAD", "DYLD_LIBRARY_PATH", "QT_PLUGIN_PATH", "QGIS_PREFIX_PATH", "VIRTUAL_ENV"),
    "__PYVENV_LAUNCHER__",
)


@pytest.fixture
def poisoned(monkeypatch, tmp_path):
    """Point every variable that does harm at a folder that does it."""
    modules = tmp_path / "poison"
    modules.mkdir()
    for name in ("geoseg", "torch", "numpy", "site", "json"):
        (modules / f"{name}.py").write_text("raise ImportError('poisoned')\n")
    for name in POISON:
        if name != "LD_PRELOAD":
            monkeypatch.setenv(name, str(modules))
    return modules


@pytest.mark.parametrize("name", POISON)
@pytest.mark.parametrize("windows", [False, True])
def test_what_qgis_sets_for_itself_is_not_passed_on(name, windows):
    kept = child_environment({name: "poison", "SYSTEMROOT": "C:\\Windows"}, windows=windows)
    assert "poison" not in kept.values()


@pytest.mark.parametrize(
    "name", ["HOME", "LANG", "LC_ALL", "HTTPS_PROXY", "no_proxy", "CUDA_VISIBLE_DEVICES", "TMPDIR"]
)
def test_what_the_user_needs_is_passed_on(name):
    assert child_environment({name: "x"}, windows=False)[name] == "x"


def test_windows_finds_its_own_libraries_and_nothing_else():
    kept = child_environment({"SystemRoot": "D:\\Win", "Path": "C:\\OSGeo4W\\bin"}, windows=True)
    assert kept["PATH"] == "D:\\Win\\System32;D:\\Win;D:\\Win\\System32\\Wbem"
    assert kept["SystemRoot"] == "D:\\Win"
    assert "Path" not in kept


def test_the_path_is_that_of_a_plain_machine():
    assert child_environment({"PATH": "/poison"}, windows=False)["PATH"] == POSIX_PATH


def test_nothing_is_taken_from_the_current_folder(tmp_path, engine_python):
    (tmp_path / "geoseg.py").write_text("print('from here')\n")
    line = [engine_python, "-c", "import geoseg; print(geoseg.__file__)"]
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, check=True, **process_options()
    )
    assert str(tmp_path) not in done.stdout


def test_the_fixture_engine_is_harmed_by_a_variable_that_comes_through(engine_python, poisoned):
    """Else the next test would prove nothing."""
    line = build_command(Engine(engine_python, "setting"), "models", ["--json"])
    harmed = {**child_environment(os.environ), "PYTHONPATH": str(poisoned)}
    done = subprocess.run(line, capture_output=True, text=True, env=harmed)
    assert done.returncode != 0
    assert "poisoned" in done.stderr


def test_the_real_engine_answers_in_a_poisoned_environment(engine_python, poisoned):
    record = ask_engine(Engine(engine_python, "setting"), "doctor", ["--json"], timeout_s=300)
    assert record["protocol"] == 1
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))


def test_proj_and_gdal_of_the_engine_find_their_own_data(engine_python, poisoned, tmp_path):
    code = (
        "import json, rasterio; from rasterio.crs import CRS; from rasterio.warp import transform\n"
        "x = transform(CRS.from_epsg(4326), CRS.from_epsg(32633), [15.0], [50.0])[0][0]\n"
        "print(json.dumps(x))"
    )
    line = [engine_python, "-X", "utf8", "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=True, **process_options())
    assert json.loads(done.stdout) == pytest.approx(500000.0, abs=0.01)
