"""The command in a process of its own, as a user runs it."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT

PATIENCE_S = 120


def command(*words):
    """Return the command line of ``geoseg WORDS``."""
    return [sys.executable, "-m", "geoseg", *map(str, words)]


def environment():
    """Return an environment in which this checkout is found from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start(*words, before=(), **options):
    """Start ``geoseg WORDS``, by the program ``before``; its stdout and stderr are read as text."""
    return subprocess.Popen(
        [*before, *command(*words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        **options,
    )


def finish(process):
    """Wait for a process; return its exit code, stdout and stderr."""
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    return process.returncode, out, err


def run(*words, **options):
    """Run ``geoseg WORDS``; return its exit code, stdout and stderr."""
    return finish(start(*words, **options))


def wait_for(process, folder: Path, pattern: str) -> Path:
    """Return the first file in ``folder`` of that name, once the process has made it."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and process.poll() is None:
        found = next(iter(folder.glob(pattern)), None)
        if found is not None:
            return found
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"no {pattern} in {folder}: {process.communicate()}")


def is_sentence(text: str) -> bool:
    """Return whether stderr is one line that ends as a sentence does."""
    return text.startswith("geoseg: ") and text.endswith(".\n") and text.count("\n") == 1
