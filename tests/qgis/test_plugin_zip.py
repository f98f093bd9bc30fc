"""The zip for the QGIS repository: what is in it, what is refused, and that QGIS takes it."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.qgis.conftest import PLUGIN

SCRIPT = PLUGIN / "build_plugin.py"


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build_plugin", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(tmp_path):
    """Return a copy of the plugin that a test may spoil."""
    copy = tmp_path / "geoseg_qgis"
    shutil.copytree(PLUGIN / "geoseg_qgis", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def edit_metadata(package, old, new):
    path = package / "metadata.txt"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_the_plugin_has_no_fault(build):
    assert list(build.find_faults(PLUGIN / "geoseg_qgis")) == []


def test_the_zip_holds_the_plugin_and_nothing_else(build, package, tmp_path):
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "client.cpython-311.pyc").write_bytes(b"\0")
    (package / ".hidden").write_text("")
    path = build.write_zip(package, tmp_path / "out")
    assert path.name == f"geoseg_qgis-{build.read_metadata(package)['version']}.zip"
    assert path.stat().st_size < build.LARGEST_ZIP_BYTES
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = {entry.filename for entry in entries}
    assert {"geoseg_qgis/metadata.txt", "geoseg_qgis/LICENSE", "geoseg_qgis/__init__.py"} <= names
    assert not [name for name in names if "pyc" in name or "/." in name]
    assert {name.split("/")[0] for name in names} == {"geoseg_qgis"}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}


def test_the_same_sources_give_the_same_bytes(build, package, tmp_path):
    first = build.write_zip(package, tmp_path / "a").read_bytes()
    for path in package.rglob("*.py"):
        path.touch()
    assert build.write_zip(package, tmp_path / "b").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("kernel.so", "", "kernel.so: expected one of"),
        ("run.exe", "", "run.exe: expected one of"),
        ("a.py", "import torch\n", "a.py:1: torch is imported"),
        ("a.py", "def f():\n    from geoseg import raster\n", "a.py:2: geoseg is imported"),
        ("a.py", "from PyQt5.QtCore import Qt\n", "a.py:1: PyQt5.QtCore is imported"),
        ("a.py", "match x:\n    case 1: pass\n", "a.py:2: not Python 3.9"),
        ("LICENSE", "MIT\n", "LICENSE: expected the text of the GNU"),
    ],
)
def test_what_the_repository_or_an_old_qgis_refuses_is_named(build, package, name, content, said):
    (package / name).write_text(content)
    assert [fault for fault in build.find_faults(package) if said in fault]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tracker=", "trackers=", "expected tracker; not there"),
        ("version=0.", "version=7.", "the engine's that the plugin installs"),
        ("icon=resources/", "icon=nowhere/", "there is no such file"),
        ("name=geoseg", "name=geoseg Plugin", "without the word plugin"),
        ("server=False", "server=False\nsupportsQt6=True", "supportsQt6 is deprecated"),
    ],
)
def test_a_fault_of_the_metadata_is_named(build, package, old, new, said):
    edit_metadata(package, old, new)
    assert [fault for fault in build.find_faults(package) if said in fault]


def test_a_release_needs_addresses_of_the_project(build, package, capsys):
    edit_metadata(package, "homepage=https://", "homepage=https://example.org/")
    assert [f for f in build.find_faults(package, release=True) if "homepage" in f]
    assert not [f for f in build.find_faults(package) if "homepage" in f]
    assert "to be set before a release" in capsys.readouterr().out


def test_the_linters_of_the_repository_find_nothing(build):
    said, skipped = build.run_tools(PLUGIN / "geoseg_qgis")
    assert said == []
    if skipped:
        pytest.skip(f"not run: {', '.join(skipped)} (uv sync --group lint)")


def test_the_script_writes_the_zip_and_says_where(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.zip")
    assert str(path) in done.stdout


@pytest.mark.qgis
def test_qgis_loads_the_plugin_from_the_zip(build, package, qgis_python, tmp_path):
    with zipfile.ZipFile(build.write_zip(package, tmp_path / "out")) as archive:
        archive.extractall(tmp_path / "plugins")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'plugins')!r})\n"
        "import geoseg_qgis, geoseg_qgis.options_page\n"
        "geoseg_qgis.classFactory(None)\n"
        "print(geoseg_qgis.__file__, {'torch', 'geoseg', 'rasterio'} & set(sys.modules))"
    )
    environ = {"QT_QPA_PLATFORM": "offscreen", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([qgis_python, "-c", code], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "plugins/geoseg_qgis/__init__.py"), "set()"]
