"""Where QGIS's own Python is (the system's, without torch), and geoseg's, which the plugin runs."""

import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.qgis.engines import real_engine

CANDIDATES = ("/usr/bin/python3", "python3")
PLUGIN = ROOT / "qgis_plugin"

# QGIS puts the folder of its plugins on the path; most of this plugin runs without QGIS too.
sys.path.insert(0, str(PLUGIN))


def find_qgis_python():
    for python in CANDIDATES:
        try:
            done = subprocess.run(
                [python, "-c", "import qgis.core"], capture_output=True, timeout=60
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python
    return None


@pytest.fixture(scope="session")
def qgis_python():
    python = find_qgis_python()
    if python is None:
        pytest.skip("needs QGIS: apt install qgis python3-qgis xvfb")
    return python


@pytest.fixture(scope="session")
def engine_python(tmp_path_factory):
    """Return the path of a Python with the real geoseg, as GEOSEG_PYTHON takes it."""
    return str(real_engine(tmp_path_factory.mktemp("engine") / "real"))


@pytest.fixture(scope="session")
def uv_path():
    """Return the path of a uv: installed, or the one that `make test` has fetched."""
    found = shutil.which("uv") or shutil.which("uv", path=str(ROOT / ".tools" / "bin"))
    if found is None:
        pytest.skip("needs uv, which `make test` fetches where it is not installed")
    return found
