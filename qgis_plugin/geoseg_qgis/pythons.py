"""Finds a Python of this machine that geoseg runs on; QGIS's own is mostly too old."""

from __future__ import annotations

import os
import shutil
import subprocess  # nosec B404  # the plugin's purpose: geoseg runs in its own process
import sys
from collections.abc import Iterator
from pathlib import Path

from geoseg_qgis.environment import process_options

OLDEST, NEWEST = (3, 12), (3, 14)
PROBE_TIMEOUT_S = 20.0
# A shim can exist and fail, and stands for another Python in another folder: what it runs is taken.
# For the 32 bits of some Windows machines there are no packages.
PROBE = (
    "import sys, venv; v = sys.version_info; "
    "print(v[0], v[1], sys.maxsize > 2**32, sys.executable, sep='|')"
)


def find_python() -> str | None:
    """Return the first Python from `OLDEST` to `NEWEST` that works, or None."""
    return next(filter(None, map(_probe, _candidates())), None)


def _candidates() -> Iterator[str]:
    minors = range(OLDEST[1], NEWEST[1] + 1)
    seen = set()
    for path in (*_on_path(minors), *_in_usual_places(minors)):
        if path not in seen and not _is_of_qgis(path):
            seen.add(path)
            yield path


def _on_path(minors: range) -> Iterator[str]:
    for name in (*(f"python3.{minor}" for minor in minors), "python3", "python"):
        if found := shutil.which(name):
            yield found


def _in_usual_places(minors: range) -> Iterator[str]:
    folders = ["/usr/local/bin", "/opt/homebrew/bin", "/usr/bin"]
    for minor in minors:
        for folder in folders:
            yield f"{folder}/python3.{minor}"
        pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        yield from map(str, sorted(pyenv.glob(f"versions/3.{minor}*/bin/python"), reverse=True))
        for root in (os.environ.get("LOCALAPPDATA"), os.environ.get("PROGRAMFILES")):
            for below in ("Programs/Python", "") if root else ():
                yield str(Path(root or "", below, f"Python3{minor}", "python.exe"))


def _is_of_qgis(path: str) -> bool:
    """Return whether a Python is QGIS's own, which on Windows and macOS changes with QGIS."""
    return sys.prefix != "/usr" and Path(sys.prefix) in Path(path).parents


def _probe(python: str) -> str | None:
    """Return the path of the Python that ``python`` runs, if geoseg runs on it."""
    if not Path(python).is_file():
        return None
    try:
        done = subprocess.run(  # nosec B603  # a list, no shell
            [python, "-I", "-X", "utf8", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
            **process_options(),
        )
        major, minor, is_64_bit, path = done.stdout.decode("utf-8").strip().split("|")
        is_fit = OLDEST <= (int(major), int(minor)) <= NEWEST and is_64_bit == "True"
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return path if is_fit else None
