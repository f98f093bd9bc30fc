"""A process of the plugin from its start to its end: none outlives QGIS, none leaves a pipe open.

Standard library only, without QGIS.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess  # nosec B404  # the plugin's purpose: geoseg runs in its own process
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO, Optional

from geoseg_qgis.client import EngineError
from geoseg_qgis.environment import process_options

Environment = Optional[Mapping[str, str]]

TERMINATE_GRACE_S = 5.0
QUIT_GRACE_S = 2.0
# No event is longer; the rest of a longer line is thrown away as it comes, not kept.
LONGEST_LINE_BYTES = 1 << 20
_children: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


def start(
    command: list[str], *, extra: Environment = None, join_stderr: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process with pipes to it and from it.

    Args:
        command: the argument list.
        extra: variables beside the allow-listed ones.
        join_stderr: send stderr where stdout goes.
    """
    options = process_options()
    options["env"].update(extra or {})
    try:
        child = subprocess.Popen(  # nosec B603  # a list, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if join_stderr else subprocess.PIPE,
            bufsize=0,
            # Its own group, so that processes which it starts are ended with it.
            start_new_session=os.name != "nt",
            **options,
        )
    except OSError as error:
        raise EngineError(
            "NoEngine",
            f"The program {command[0]!r} cannot be started: {error.strerror or error}. See "
            "Settings ▸ Options ▸ geoseg.",
        ) from error
    with _lock:
        _children.add(child)
    return child


def finish(child: subprocess.Popen[bytes]) -> None:
    """See a child to its end: asked, terminated, killed."""
    close_stdin(child)
    wait_or_kill(child, TERMINATE_GRACE_S)
    with _lock:
        _children.discard(child)


def is_any_running() -> bool:
    """Return whether a child of this QGIS is at work."""
    with _lock:
        return any(child.poll() is None for child in _children)


def stop_all() -> None:
    """End every child: for when the plugin is unloaded or QGIS quits."""
    with _lock:
        children = list(_children)
    for child in children:
        close_stdin(child)
    until = time.monotonic() + QUIT_GRACE_S
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, until - time.monotonic()))
        _kill(child)


# QGIS may quit in the middle of a run.
atexit.register(stop_all)


def close_stdin(child: subprocess.Popen[bytes]) -> None:
    """Ask a child that watches its stdin to stop."""
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()


def wait_or_kill(child: subprocess.Popen[bytes], grace_s: float) -> int:
    """Return the exit code; a child that does not end in time is terminated, then killed."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(grace_s)
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(TERMINATE_GRACE_S)
    _kill(child)
    return child.wait()


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what a child started; on Windows such processes end by themselves."""
    if os.name != "nt":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def iter_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield lines without their end; of one that is too long only its beginning."""
    kept = b""
    while True:
        try:
            read = os.read(stream.fileno(), 1 << 16)
        except (OSError, ValueError):  # closed by another thread
            break
        if not read:
            break
        *whole, rest = read.split(b"\n")
        for part in whole:
            yield (kept + part)[:LONGEST_LINE_BYTES].rstrip(b"\r")
            kept = b""
        if len(kept) < LONGEST_LINE_BYTES:
            kept += rest
    if kept:
        yield kept[:LONGEST_LINE_BYTES]


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
        kill_group(child)
