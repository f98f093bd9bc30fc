"""Gets uv, the one program with which an engine is installed: found, or fetched and verified.

Standard library only, without QGIS, whose own Python often has neither pip nor venv.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess  # nosec B404  # the plugin's purpose: geoseg runs in its own process
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geoseg_qgis.client import Cancelled, EngineError
from geoseg_qgis.environment import process_options

INDEX = "https://pypi.org/simple/uv/"
JSON_INDEX = "application/vnd.pypi.simple.v1+json"
# `--torch-backend` needs it.
OLDEST_UV = (0, 7, 0)
NAME = "uv.exe" if os.name == "nt" else "uv"
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 18
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}


def find_uv(folder: Path) -> str | None:
    """Return a uv that is new enough: the plugin's own in ``folder``, or the user's."""
    home = Path.home()
    candidates = [folder / NAME, home / ".local/bin" / NAME, home / ".cargo/bin" / NAME]
    on_path = shutil.which("uv")
    for candidate in [*candidates, *([Path(on_path)] if on_path else [])]:
        if candidate.is_file() and _version(candidate) >= OLDEST_UV:
            return str(candidate)
    return None


def wheel_in(offline_folder: Path) -> Path | None:
    """Return the newest wheel of uv for this machine in a folder of wheels."""
    fitting = [path for path in offline_folder.glob("uv-*.whl") if is_for_this_machine(path.name)]
    return max(fitting, key=lambda path: _numbers(path.name), default=None)


def fetch_wheel(
    is_cancelled: Callable[[], bool],
    on_bytes: Callable[[int, int], None],
    *,
    proxy: str = "",
    index: str = INDEX,
) -> bytes:
    """Return the newest wheel of uv for this machine, its checksum compared with the index's.

    Args:
        is_cancelled: asked while bytes come.
        on_bytes: told how many of how many have come.
        proxy: ``http://host:port``; empty takes the system's.
        index: page of the package, as JSON.
    """
    listed = json.loads(_read(index, JSON_INDEX, is_cancelled, lambda _done, _all: None, proxy))
    files = [f for f in listed.get("files", []) if not f.get("yanked")]
    files = [f for f in files if is_for_this_machine(str(f.get("filename", "")))]
    if not files:
        raise EngineError(
            "NoUv",
            f"uv, which installs the engine, was expected for {sys.platform} {platform.machine()} "
            f"at {index}; there is none. Install uv yourself (docs.astral.sh/uv) and try again.",
        )
    newest = max(files, key=lambda f: _numbers(f["filename"]))
    wheel = _read(newest["url"], "*/*", is_cancelled, on_bytes, proxy)
    if hashlib.sha256(wheel).hexdigest() != newest.get("hashes", {}).get("sha256"):
        raise EngineError(
            "NoUv", f"{newest['url']} came with another checksum than its index states. Try again."
        )
    return wheel


def is_reachable(address: str, proxy: str = "") -> bool:
    """Return whether an address gives what it should."""
    try:
        with _opener(proxy).open(address, timeout=TIMEOUT_S):
            return True
    except (urllib.error.URLError, OSError):
        return False


def unpack(wheel: Path | bytes, folder: Path) -> str:
    """Put the program of a wheel into a folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(wheel) if isinstance(wheel, bytes) else wheel) as archive:
        members = [n for n in archive.namelist() if n.endswith(f".data/scripts/{NAME}")]
        if len(members) != 1:
            raise EngineError("NoUv", f"expected one {NAME} in the wheel of uv; got {members}.")
        part = folder / (NAME + ".part")
        part.write_bytes(archive.read(members[0]))
    part.chmod(0o755)
    part.replace(folder / NAME)
    return str(folder / NAME)


def is_for_this_machine(filename: str) -> bool:
    """Return whether a wheel's name says that it runs here."""
    machine = MACHINES.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "win32":
        tag = {"x86_64": "win_amd64", "aarch64": "win_arm64"}.get(machine, "win32")
        return filename.endswith(f"-{tag}.whl")
    if sys.platform == "darwin":
        machine = "arm64" if machine == "aarch64" else machine
        return bool(re.search(rf"-macosx_\d+_\d+_{machine}\.whl$", filename))
    is_musl = platform.libc_ver()[0] != "glibc"
    libc = "musllinux" if is_musl else "manylinux"
    return libc in filename and filename.endswith(f"_{machine}.whl")


def _version(uv: Path) -> tuple[int, ...]:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # nosec B603  # a list, no shell
            [str(uv), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
            **process_options(),
        )
        return _numbers(done.stdout.decode("utf-8", errors="replace"))
    return ()


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def _opener(proxy: str) -> urllib.request.OpenerDirector:
    proxies: dict[str, Any] = {"proxies": {"http": proxy, "https": proxy}} if proxy else {}
    return urllib.request.build_opener(urllib.request.ProxyHandler(**proxies))


def _read(
    address: str,
    accept: str,
    is_cancelled: Callable[[], bool],
    on_bytes: Callable[[int, int], None],
    proxy: str,
) -> bytes:
    if not address.startswith(("https://", "http://127.0.0.1:")):
        raise EngineError("NoUv", f"an https address was expected; got {address!r}.")
    request = urllib.request.Request(address, headers={"Accept": accept})
    parts = []
    try:
        with _opener(proxy).open(request, timeout=TIMEOUT_S) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            while part := answer.read(CHUNK_BYTES):
                parts.append(part)
                on_bytes(sum(map(len, parts)), total)
                if is_cancelled():
                    raise Cancelled("The installation was cancelled.")
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise EngineError(
            "NoUv",
            f"uv, which installs the engine, could not be fetched from {address}: {reason}. Check "
            "the network and the proxy, name a folder of wheels, or install uv yourself "
            "(docs.astral.sh/uv).",
        ) from error
    return b"".join(parts)
