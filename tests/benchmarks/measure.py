"""What every benchmark shares: the machine's name, medians, one child process per figure."""

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from geoseg.cli.doctor import doctor_record


def machine() -> str:
    """Return one line on what the figures were measured with."""
    record = doctor_record()
    cpu, packages = record["devices"]["cpu"], record["packages"]
    return (
        f"{_cpu_model()}, {cpu['threads']} threads, {cpu['simd']}, bf16 by {cpu['bf16']}; "
        f"kernels {record['kernels']['cpu']['instruction_set']}; Python {record['python']}, "
        f"torch {packages['torch']}, GDAL {record['gdal']}"
    )


def in_child(module: str, arguments: Sequence[str]) -> dict[str, float]:
    """Run a module in a process of its own, so that peaks of memory are its own.

    Returns:
        The JSON object that is the last line of its standard output.
    """
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        return f"{names[0]} ({len(names)} cores)"
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
