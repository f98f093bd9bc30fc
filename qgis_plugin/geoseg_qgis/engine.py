"""Where geoseg's own Python is, and whether it is a geoseg that this plugin can talk to."""

from __future__ import annotations

import json
import os
import re
import subprocess  # nosec B404  # the plugin's purpose: geoseg runs in its own process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_qgis.client import INSTALL_HINT, PROTOCOL, EngineError, build_command, error_of_exit
from geoseg_qgis.environment import process_options

if TYPE_CHECKING:
    from geoseg_qgis.settings import Settings

VARIABLE = "GEOSEG_PYTHON"
OLDEST_VERSION = (0, 1, 0)
# The first start after an install reads a gigabyte of torch from disk.
DOCTOR_TIMEOUT_S = 300.0
# Names the environment in use inside of the managed folder: see install.py.
CURRENT = "current"
_checked: dict[tuple[str, int], dict[str, Any]] = {}


@dataclass(frozen=True)
class Engine:
    """A Python that has geoseg, and where its path came from.

    ``source`` is ``setting``, ``GEOSEG_PYTHON`` or ``managed``.
    """

    python: str
    source: str


def find_engine(settings: Settings | None = None) -> Engine:
    """Return the engine: the path in the settings, else GEOSEG_PYTHON, else the managed one.

    A path that was given and holds no Python is an error; the next one is not tried instead.
    """
    if settings is None:
        from geoseg_qgis.settings import Settings  # needs QGIS, which tests do without

        settings = Settings()
    if settings.python_path:
        return Engine(
            _given_python(settings.python_path, "the engine path of the options"), "setting"
        )
    if os.environ.get(VARIABLE):
        return Engine(_given_python(os.environ[VARIABLE], f"the variable {VARIABLE}"), VARIABLE)
    python = managed_python(settings.managed_folder())
    if python is None:
        raise EngineError(
            "NoEngine",
            "geoseg's engine was expected in the options, in the variable "
            f"{VARIABLE} or in the QGIS profile, and is in none of them. {INSTALL_HINT}",
        )
    return Engine(python, "managed")


def python_in(path: str | Path) -> str | None:
    """Return the Python of a path: itself, the environment in a folder, or beside ``geoseg``."""
    path = Path(path).expanduser()
    if path.is_file() and path.stem.lower() != "geoseg":
        return str(path)
    folder = path.parent if path.is_file() else path
    for name in ("bin/python", "Scripts/python.exe", "python", "python.exe"):
        if (folder / name).is_file():
            return str(folder / name)
    return None


def managed_python(folder: Path) -> str | None:
    """Return the Python that "Install engine" made, or None."""
    try:
        name = (folder / CURRENT).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return python_in(folder / name) if name and Path(name).name == name else None


def check_engine(engine: Engine, *, fresh: bool = False) -> dict[str, Any]:
    """Return what ``geoseg doctor --json`` says; remembered until QGIS ends or Python changes.

    Args:
        engine: which one.
        fresh: ask again, whatever is remembered.

    Raises:
        EngineError: no geoseg, too old, or of another protocol.
    """
    try:
        key = (engine.python, Path(engine.python).stat().st_mtime_ns)
    except OSError as error:
        raise _cannot_start(engine, error) from error
    if fresh or key not in _checked:
        record = ask_engine(engine, "doctor", ["--json"], timeout_s=DOCTOR_TIMEOUT_S)
        _checked[key] = _check_record(engine, record)
    return _checked[key]


def ask_engine(
    engine: Engine, command: str, arguments: Sequence[str], *, timeout_s: float = 60.0
) -> Any:
    """Return the JSON that a ``--json`` command prints: models, describe, doctor."""
    line = build_command(engine, command, arguments)
    try:
        done = subprocess.run(  # nosec B603  # a list, no shell
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            **process_options(),
        )
    except subprocess.TimeoutExpired:
        raise EngineError(
            "Silent",
            f"geoseg {command} was expected to answer within {timeout_s:.0f} s and did not. Try "
            "again: the first start is the slowest. Then see Settings ▸ Options ▸ geoseg.",
        ) from None
    except OSError as error:
        raise _cannot_start(engine, error) from error
    if done.returncode != 0:
        raise error_of_exit(done.returncode, done.stderr.decode("utf-8", errors="replace"))
    try:
        return json.loads(done.stdout.decode("utf-8"))
    except (ValueError, RecursionError):
        said = done.stdout[:200].decode("utf-8", errors="replace")
        raise EngineError(
            "Protocol",
            f"JSON was expected from geoseg {command}; got {said!r}. {engine.python!r} may be "
            f"another program. {INSTALL_HINT}",
        ) from None


def _given_python(path: str, where: str) -> str:
    python = python_in(path)
    if python is None:
        raise EngineError(
            "NoEngine",
            f"A Python with geoseg was expected at {path!r} ({where}); there is none. Correct it "
            "under Settings ▸ Options ▸ geoseg, or leave it empty.",
        )
    return python


def _cannot_start(engine: Engine, error: OSError) -> EngineError:
    reason = error.strerror or str(error)
    return EngineError(
        "NoEngine",
        f"geoseg's Python {engine.python!r} cannot be started: {reason}. {INSTALL_HINT}",
    )


def _check_record(engine: Engine, record: Any) -> dict[str, Any]:
    """Return doctor's record if it is that of a geoseg this plugin can talk to."""
    version = record.get("geoseg") if isinstance(record, dict) else None
    if not isinstance(version, str):
        raise EngineError(
            "NotGeoseg",
            f"{engine.python!r} was expected to hold geoseg and does not. {INSTALL_HINT}",
        )
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    protocol = record.get("protocol")
    if numbers < OLDEST_VERSION or not isinstance(protocol, int) or protocol < PROTOCOL:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise EngineError(
            "TooOld",
            f"geoseg {oldest} with protocol {PROTOCOL} or later was expected; {engine.python!r} "
            f"has {version} with protocol {protocol}. {INSTALL_HINT}",
        )
    if protocol > PROTOCOL:
        raise EngineError("Protocol", protocol_refusal(protocol, version))
    return dict(record)


def protocol_refusal(protocol: Any, version: str = "") -> str:
    """Return the sentence for an engine that speaks another protocol."""
    which = f"geoseg {version}".strip()
    return (
        f"This plugin speaks protocol {PROTOCOL}; {which} speaks {protocol!r}. Update the plugin, "
        f"or install the engine that goes with it. {INSTALL_HINT}"
    )
