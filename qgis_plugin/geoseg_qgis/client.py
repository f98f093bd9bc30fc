"""What is said between QGIS and geoseg's own process: a command line out, JSON lines in.

Standard library only, without QGIS: ``geoseg`` prints one JSON object a line on stdout
(``--progress json``). A reader passes over events and keys that it does not know, so a newer engine
of the same protocol stays usable.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoseg_qgis.engine import Engine

PROTOCOL = 1
KINDS = frozenset({"start", "progress", "log", "result", "error"})
# Commands that run for long, tell how far they are, and stop when stdin is closed.
STREAMING = frozenset({"predict", "vectorize", "train", "finetune", "evaluate"})
# `geoseg evaluate --json` prints the metrics beside the events: it is not asked for both.
STREAM_OPTIONS = ("--progress", "json", "--watch-stdin")
LAST_LINES = 12
NO_GEOSEG = ("No module named geoseg", "No module named geoseg.__main__")
INSTALL_HINT = 'Open Settings ▸ Options ▸ geoseg and press "Install engine".'


@dataclass(frozen=True)
class Event:
    """One line of the engine.

    ``kind`` is ``start``, ``progress``, ``log``, ``result`` or ``error``; ``data`` is the object.
    """

    kind: str
    data: dict[str, Any]


class EngineError(Exception):
    """The engine could not do what was asked; ``str(error)`` is a sentence for the user.

    Args:
        kind: the engine's own name (``BandMismatchError``), or one of the plugin's: ``NoEngine``,
            ``NotGeoseg``, ``TooOld``, ``Protocol``, ``Silent``, ``Crash``, ``Usage``.
        message: what was expected, what came, what to do.
        exit_code: of the process, if it ended.
    """

    def __init__(self, kind: str, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.exit_code = exit_code


class Cancelled(Exception):  # noqa: N818 - no error: the user asked for it
    """The user stopped the run; finished parts are kept."""


def parse_event(line: bytes | str) -> Event | None:
    """Return the event of a line, or None for whatever this plugin does not know."""
    text = line.decode("utf-8", errors="replace") if isinstance(line, bytes) else line
    text = text.strip()
    if not text.startswith("{"):
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    kind = data.get("event") if isinstance(data, dict) else None
    return Event(kind, data) if isinstance(kind, str) and kind in KINDS else None


def build_command(engine: Engine, command: str, arguments: Sequence[str]) -> list[str]:
    """Return the argument list that runs a geoseg command in the engine.

    Long commands are asked for JSON lines, and to stop when their stdin is closed.
    """
    stream = STREAM_OPTIONS if command in STREAMING else ()
    # Options come first: what follows is the caller's, who may end it with a `--` of his own.
    return [engine.python, "-X", "utf8", "-m", "geoseg", command, *stream, *map(str, arguments)]


def progress_percent(data: dict[str, Any]) -> float | None:
    """Return 0 to 100 from a progress event, or None where it does not say."""
    done, total = number(data.get("done")), number(data.get("total"))
    if done is None or not total or total < 0:
        return None
    return max(0.0, min(100.0, 100.0 * done / total))


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        as_float = float(value)
    except OverflowError:
        return None
    return as_float if abs(as_float) < float("inf") else None


def error_of_event(data: dict[str, Any], exit_code: int | None) -> EngineError:
    """Return the exception that stands for an error event."""
    kind = data.get("kind")
    message = data.get("message")
    return EngineError(
        kind if isinstance(kind, str) else "Error",
        message if isinstance(message, str) and message else "geoseg failed and did not say why.",
        exit_code,
    )


def error_of_exit(exit_code: int, stderr: str) -> EngineError:
    """Return the exception for a process that ended without a result and without an error event."""
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip()]
    said = "\n".join(lines[-LAST_LINES:])
    if exit_code == 2 and lines:
        # click prints the usage first and the reason in its last line.
        return EngineError("Usage", lines[-1].removeprefix("Error: "), exit_code)
    if lines and lines[-1].endswith(NO_GEOSEG):
        return EngineError("NotGeoseg", f"{lines[-1]}. {INSTALL_HINT}", exit_code)
    if exit_code == 130:
        return EngineError("Interrupted", said or "geoseg was interrupted.", exit_code)
    if lines and lines[-1].startswith("geoseg: "):
        return EngineError("Error", lines[-1].removeprefix("geoseg: "), exit_code)
    how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with code {exit_code}"
    if exit_code == -9:
        how += " (often: not enough memory)"
    return EngineError(
        "Crash",
        f"geoseg was expected to give a result, but its process {how}. "
        + (f"It last said:\n{said}" if said else "It said nothing."),
        exit_code,
    )
