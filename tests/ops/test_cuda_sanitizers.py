"""No kernel reads past an array, and no thread of a block writes what another one uses meanwhile.

What only a device would show otherwise, and there perhaps. Both sanitizers were seen to find a
reading past the border and a missing barrier.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.emulator import COMPILER, PROGRAMS, SANITIZERS

# Keeps addresses where ThreadSanitizer expects them.
SETARCH = shutil.which("setarch")


def runtimes(sanitizer):
    """Return the libraries that have to be there before Python, or skip."""
    if COMPILER is None or SETARCH is None:
        pytest.skip("kernels were not sanitized: no g++ or no setarch")
    if subprocess.run([SETARCH, "-R", "true"], check=False, capture_output=True).returncode:
        pytest.skip("kernels were not sanitized: setarch may not be used")
    names = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}[sanitizer]
    asked = [[COMPILER, f"-print-file-name={name}"] for name in names]
    paths = [subprocess.run(a, check=True, capture_output=True, text=True).stdout for a in asked]
    if not all(Path(path.strip()).is_absolute() for path in paths):
        pytest.skip(f"kernels were not sanitized: no {' or '.join(names)}")
    return " ".join(path.strip() for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_a_sanitizer_finds_nothing(sanitizer, program, tmp_path):
    log = tmp_path / "log"
    options = {"ASAN_OPTIONS": f"detect_leaks=0:log_path={log}", "TSAN_OPTIONS": f"log_path={log}"}
    run = subprocess.run(
        [SETARCH, "-R", sys.executable, "-m", "tests.ops.emulator.sanitized", program, sanitizer],
        env={**os.environ, **options, "LD_PRELOAD": runtimes(sanitizer), "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    found = "".join(path.read_text()[:3000] for path in tmp_path.glob("log*"))
    assert run.returncode == 0, found + run.stderr[-3000:]
    assert found == ""
