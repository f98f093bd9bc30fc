"""What "Install engine" would do: from where, onto which Python, and how large. Without QGIS."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg_qgis import uv_binary
from geoseg_qgis.client import EngineError
from geoseg_qgis.pythons import NEWEST, OLDEST, find_python

if TYPE_CHECKING:
    from geoseg_qgis.settings import Settings

# Teaching needs `train`, ONNX models need `export`.
EXTRAS = "train,export"
# Where PyTorch's builds for one device lie; some networks do not let it through.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu/"
MB, GB = 10**6, 10**9
UV_BYTES, PYTHON_BYTES = 25 * MB, 35 * MB
# Downloaded, and then on disk.
LIBRARIES = (300 * MB, 1.1 * GB)
CPU_TORCH = (200 * MB, 0.9 * GB)
CUDA_TORCH = (3 * GB, 5.3 * GB)
# Wheels unpack to about this many times their size.
UNPACKED = 3


@dataclass(frozen=True)
class InstallPlan:
    """What "Install engine" will do; `sentence` says it to the user.

    ``uv`` and ``python`` are None where they will be fetched; ``download_bytes`` is an estimate.
    """

    source: str
    requirement: str
    wheel_folders: tuple[str, ...]
    folder: Path
    uv: str | None
    python: str | None
    backend: str
    is_offline: bool
    has_torch_index: bool
    proxy: str
    download_bytes: int
    disk_bytes: int

    def sentence(self) -> str:
        """Return the plan in a few words, size first."""
        size = f"About {self.download_bytes / GB:.1f} GB are downloaded"
        if self.is_offline:
            size = "Nothing is downloaded"
        torch = "PyTorch for the CPU"
        if self.backend != "cpu":
            torch = "PyTorch with CUDA" if has_cuda() else "PyTorch that fits this machine"
        if self.is_offline:
            torch = "PyTorch from the folder"
        elif not self.has_torch_index:
            torch = f"the package registry's PyTorch ({TORCH_INDEX} cannot be reached)"
        python = self.python or f"a Python {NEWEST[0]}.{NEWEST[1]} that uv fetches"
        return (
            f"{size}; {self.disk_bytes / GB:.1f} GB of disk are used in {str(self.folder)!r}. "
            f"Installed are {self.requirement} with {torch}, on {python}."
        )


def plan_install(settings: Settings) -> InstallPlan:
    """Return what an installation with these settings does; only looks, changes nothing.

    Raises:
        EngineError: the source or the offline folder is not there, or the disk is too full.
    """
    folder = settings.managed_folder()
    offline = _offline_folder(settings.offline_folder)
    requirement, wheels = _requirement(settings.engine_source)
    uv, python = uv_binary.find_uv(folder / "tools"), find_python()
    if offline is not None:
        wheels = (*wheels, str(offline))
        _check_offline(offline, uv, python)
    has_torch_index = offline is None and uv_binary.is_reachable(TORCH_INDEX, settings.proxy)
    tools = (0 if uv else UV_BYTES) + (0 if python else PYTHON_BYTES)
    torch = _torch_bytes(settings.backend, has_torch_index)
    download, disk = (int(tools + size) for size in map(sum, zip(LIBRARIES, torch)))
    plan = InstallPlan(
        source=settings.engine_source,
        requirement=requirement,
        wheel_folders=wheels,
        folder=folder,
        uv=uv,
        python=python,
        backend=settings.backend,
        is_offline=offline is not None,
        has_torch_index=has_torch_index,
        proxy=settings.proxy,
        download_bytes=0 if offline is not None else download,
        disk_bytes=disk if offline is None else UNPACKED * _wheel_bytes(offline),
    )
    _check_disk(plan)
    return plan


def has_cuda() -> bool:
    """Return whether the machine has NVIDIA's driver."""
    windows = Path(os.environ.get("SYSTEMROOT", "C:\\Windows")) / "System32" / "nvcuda.dll"
    return Path("/proc/driver/nvidia/version").exists() or (os.name == "nt" and windows.exists())


def _requirement(source: str) -> tuple[str, tuple[str, ...]]:
    """Return what uv is asked for, and the folders of wheels it looks into."""
    path = Path(source).expanduser()
    has_separator = any(mark in source for mark in "/\\")
    if not path.is_absolute() and (not has_separator or "@" in source):
        if not re.match(r"^geoseg\b", source):
            raise _no_source(source)
        return re.sub(r"^geoseg(?!\s*\[)", f"geoseg[{EXTRAS}]", source), ()
    if path.suffix == ".whl" and path.is_file():
        return f"geoseg[{EXTRAS}] @ {path.resolve().as_uri()}", ()
    if (path / "pyproject.toml").is_file():
        return f"geoseg[{EXTRAS}] @ {path.resolve().as_uri()}", ()
    wheels = sorted(path.glob("geoseg-*.whl")) if path.is_dir() else []
    if not wheels:
        raise _no_source(source)
    return f"geoseg[{EXTRAS}]", (str(path.resolve()),)


def _no_source(source: str) -> EngineError:
    return EngineError(
        "NoSource",
        "The engine's source was expected to be a requirement (geoseg==0.1.0), a wheel, a folder "
        f"with a wheel of geoseg, or a checkout of it; got {source!r}. Correct it under "
        "Settings ▸ Options ▸ geoseg.",
    )


def _offline_folder(path: str) -> Path | None:
    if not path:
        return None
    folder = Path(path).expanduser()
    if not folder.is_dir() or not any(folder.glob("*.whl")):
        raise EngineError(
            "NoSource",
            f"A folder with wheels was expected at {path!r}, and there is none. Correct it under "
            "Settings ▸ Options ▸ geoseg, or leave it empty to use the network.",
        )
    return folder.resolve()


def _check_offline(folder: Path, uv: str | None, python: str | None) -> None:
    lacking = []
    if uv is None and uv_binary.wheel_in(folder) is None:
        lacking.append("a wheel of uv for this machine in the folder (pip download uv)")
    if python is None:
        lacking.append(f"a Python from {dotted(OLDEST)} to {dotted(NEWEST)} on this machine")
    if lacking:
        raise EngineError(
            "NoSource", f"Installing without a network needs {' and '.join(lacking)}; not found."
        )


def _torch_bytes(backend: str, has_torch_index: bool) -> tuple[float, float]:
    # The registry's builds for Linux bring CUDA, those for Windows and macOS do not.
    brings_cuda = backend != "cpu" and has_cuda() if has_torch_index else sys.platform == "linux"
    return CUDA_TORCH if brings_cuda else CPU_TORCH


def _wheel_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.whl"))


def _check_disk(plan: InstallPlan) -> None:
    there = next(p for p in (plan.folder, *plan.folder.parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < plan.disk_bytes:
        raise EngineError(
            "DiskFull",
            f"About {plan.disk_bytes / GB:.1f} GB of disk are needed in {str(plan.folder)!r}; "
            f"{free / GB:.1f} GB are free. Make room, or choose the CPU build.",
        )


def dotted(version: tuple[int, int]) -> str:
    """Return a version as it is written."""
    return f"{version[0]}.{version[1]}"
