"""Pythons that the plugin's tests talk to: the real geoseg, and stand-ins that misbehave."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

from tests.conftest import ROOT


def make_environment(folder: Path, *, python: str = sys.executable) -> Path:
    """Return the Python of a new environment without packages."""
    subprocess.run(
        [python, "-m", "venv", "--without-pip", str(folder)], check=True, capture_output=True
    )
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def site_packages(python: Path) -> Path:
    """Return the folder where an environment of `make_environment` keeps its packages."""
    base = python.parent.parent
    if os.name == "nt":
        return base / "Lib" / "site-packages"
    return next((base / "lib").glob("python3*")) / "site-packages"


def real_engine(folder: Path) -> Path:
    """Return a Python that has geoseg, without any variable's help.

    Where geoseg is installed that is the tests' own. Where the tests reach the source tree by
    PYTHONPATH, it is an environment whose path file names the tree and the packages of the tests:
    the interpreter still sees a variable that should not have come through.
    """
    try:
        importlib.metadata.version("geoseg")
    except importlib.metadata.PackageNotFoundError:
        python = make_environment(folder)
        packages = sysconfig.get_path("purelib")
        lines = [f"import site; site.addsitedir({packages!r})", str(ROOT)]
        (site_packages(python) / "tree.pth").write_text("\n".join(lines) + "\n", "utf-8")
        return python
    return Path(sys.executable)


def fake_engine(folder: Path, main: str) -> Path:
    """Return a Python whose ``-m geoseg`` runs the given code."""
    python = make_environment(folder)
    package = site_packages(python) / "geoseg"
    package.mkdir()
    (package / "__main__.py").write_text(textwrap.dedent(main), "utf-8")
    return python
