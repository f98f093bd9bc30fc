"""Where QGIS's own Python is, which is the system's, without torch."""

import subprocess

import pytest

CANDIDATES = ("/usr/bin/python3", "python3")


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
        pytest.skip("needs QGIS (apt install qgis python3-qgis)")
    return python
