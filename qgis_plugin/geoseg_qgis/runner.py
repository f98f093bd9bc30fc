"""Runs geoseg in its own process: events in, cancelling, and a sentence when it goes wrong.

Standard library only, without QGIS. A child is asked to stop by closing its stdin, on which
``--watch-stdin`` ends it cleanly; the operating system closes it too when QGIS dies.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, Optional, Protocol

from geoseg_qgis import child as children
from geoseg_qgis.client import (
    PROTOCOL,
    Cancelled,
    EngineError,
    Event,
    error_of_event,
    error_of_exit,
    number,
    parse_event,
    progress_percent,
)
from geoseg_qgis.engine import protocol_refusal

if TYPE_CHECKING:
    from subprocess import Popen  # nosec B404  # for its type

POLL_S = 0.1
# A tile of a large network on a slow CPU takes this long; after it the child is not asked any more.
STOP_GRACE_S = 20.0
# A run that is quiet for so long is not ended, but the user is told that it is still alive.
QUIET_NOTICE_S = 120.0
READER_GRACE_S = 2.0
QUEUED_LINES = 64
KEPT_LINES = 40
KEPT_LINE_BYTES = 2000
CANCELLED = "The run was cancelled."
OnLine = Optional[Callable[[str], None]]

stop_all = children.stop_all


class Feedback(Protocol):
    """Who is told how a run goes, and may cancel it. Called from the thread that called `run`."""

    def is_cancelled(self) -> bool:
        """Return whether the user wants to stop."""

    def set_progress(self, percent: float, remaining_s: float | None) -> None:
        """Progress from 0 to 100, and the seconds left where they are known."""

    def log(self, level: str, message: str) -> None:
        """Something to know: level ``info`` or ``warning``."""


def run(
    command: list[str], feedback: Feedback, *, silent_after_s: float | None = None
) -> dict[str, Any]:
    """Run a command of `build_command` and return the data of its ``result`` event.

    A command without ``--progress`` has no events: its lines come back under ``printed``.

    Args:
        command: the argument list.
        feedback: is told of progress and messages, and asked whether to cancel.
        silent_after_s: end a child that says nothing for so long; None waits as long as it lives.

    Raises:
        Cancelled: the user stopped it.
        EngineError: geoseg refused, crashed, stayed silent or speaks another protocol.
    """
    talk = _Conversation(children.start(command), feedback)
    talk.silent_after_s = silent_after_s
    exit_code = talk.hold()
    if talk.result is not None:
        if exit_code != 0:
            # Libraries may fail while the process ends; outputs are whole by then.
            feedback.log("warning", f"geoseg ended with code {exit_code} after its result.")
        return talk.result
    if feedback.is_cancelled():
        raise Cancelled(CANCELLED)
    if talk.error is not None:
        raise error_of_event(talk.error, exit_code)
    if exit_code == 0 and "--progress" not in command:
        return {"outputs": {}, "printed": list(talk.printed)}
    raise error_of_exit(exit_code, "\n".join(talk.stderr or talk.printed))


def run_tool(
    command: list[str], feedback: Feedback, on_line: OnLine, *, extra: Mapping[str, str]
) -> None:
    """Run another program than geoseg, which the installer needs.

    Args:
        command: the argument list.
        feedback: asked whether to cancel.
        on_line: is given each line of stdout and stderr.
        extra: variables beside the allow-listed ones.

    Raises:
        Cancelled: the user stopped it.
        EngineError: it failed; its last lines are in the message.
    """
    talk = _Conversation(children.start(command, extra=extra, join_stderr=True), feedback)
    talk.on_line = on_line
    talk.stop_grace_s = 0.0  # it does not watch its stdin
    exit_code = talk.hold()
    if exit_code != 0:
        said = "\n".join(list(talk.printed)[-12:])
        raise EngineError("ToolFailed", f"{said or command[0]} (code {exit_code})", exit_code)


class _Conversation:
    """One run of a child: two threads read it, the caller's thread answers."""

    def __init__(self, child: Popen[bytes], feedback: Feedback) -> None:
        self.child = child
        self.feedback = feedback
        self.silent_after_s: float | None = None
        self.stop_grace_s = STOP_GRACE_S
        self.on_line: OnLine = None
        self.lines: queue.Queue[bytes] = queue.Queue(maxsize=QUEUED_LINES)
        self.stderr: deque[str] = deque(maxlen=KEPT_LINES)
        self.printed: deque[str] = deque(maxlen=KEPT_LINES)
        self.result: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.heard = self.noticed = time.monotonic()
        self.ended = 0.0
        self.readers = [
            (stream, threading.Thread(target=read, args=(stream,), name="geoseg", daemon=True))
            for stream, read in (
                (child.stdout, self._read_stdout),
                (child.stderr, self._read_stderr),
            )
            if stream is not None
        ]

    def hold(self) -> int:
        """Follow the child to its end and return its exit code."""
        for _, reader in self.readers:
            reader.start()
        try:
            while self._is_talking():
                self._follow()
                if self.feedback.is_cancelled():
                    self._cancel()
                self._check_silence()
            return children.wait_or_kill(self.child, STOP_GRACE_S)
        finally:
            children.finish(self.child)
            self._close()

    def _is_talking(self) -> bool:
        may_say_more = self.readers[0][1].is_alive()  # asked first: its last line precedes its end
        if not self.lines.empty():
            return True
        if not may_say_more or self.child.poll() is None:
            return may_say_more
        # A process that the child has left behind can hold the pipe open: not waited for.
        self.ended = self.ended or time.monotonic()
        return time.monotonic() - self.ended < READER_GRACE_S

    def _follow(self) -> None:
        """Take in the next thing that the child says, if it says one."""
        try:
            line = self.lines.get(timeout=POLL_S)
        except queue.Empty:
            return
        self.heard = self.noticed = time.monotonic()
        event = None if self.on_line else parse_event(line)
        if event is not None:
            self._take(event)
            return
        self.printed.append(_text(line))
        if self.on_line is not None:
            self.on_line(_text(line))

    def _take(self, event: Event) -> None:
        data = event.data
        if event.kind == "start" and data.get("protocol") != PROTOCOL:
            raise EngineError("Protocol", protocol_refusal(data.get("protocol")))
        if event.kind == "progress":
            percent = progress_percent(data)
            if percent is not None:
                self.feedback.set_progress(percent, number(data.get("eta_s")))
        elif event.kind == "log":
            level = "warning" if data.get("level") == "warning" else "info"
            self.feedback.log(level, str(data.get("message", "")))
        elif event.kind == "result":
            self.result = data
        elif event.kind == "error":
            self.error = data

    def _check_silence(self) -> None:
        now = time.monotonic()
        if self.silent_after_s is not None and now - self.heard > self.silent_after_s:
            raise EngineError(
                "Silent",
                "geoseg was expected to say how far it is, and was silent for "
                f"{self.silent_after_s:g} s; it was ended. Finished parts are kept.",
            )
        if now - self.noticed > QUIET_NOTICE_S:
            self.noticed = now
            minutes = (now - self.heard) / 60
            self.feedback.log("info", f"Still running; quiet for {minutes:.0f} min.")

    def _cancel(self) -> None:
        """Ask the child to stop; one that does not is terminated, then killed."""
        children.close_stdin(self.child)
        until = time.monotonic() + self.stop_grace_s
        while self.child.poll() is None and time.monotonic() < until:
            self._drain()
        raise Cancelled(CANCELLED)

    def _drain(self) -> None:
        # A full pipe would keep the child from ending.
        with contextlib.suppress(queue.Empty):
            self.lines.get(timeout=POLL_S)

    def _close(self) -> None:
        """Close the pipes, once nobody reads them: a number that is free is soon another file's."""
        until = time.monotonic() + READER_GRACE_S
        while self.readers[0][1].is_alive() and time.monotonic() < until:
            self._drain()
        if any(reader.is_alive() for _, reader in self.readers):
            children.kill_group(self.child)  # a process that it has left behind holds the pipe
        for stream, reader in self.readers:
            reader.join(READER_GRACE_S)
            if not reader.is_alive():
                stream.close()

    def _read_stdout(self, stream: IO[bytes]) -> None:
        for line in children.iter_lines(stream):
            self.lines.put(line)

    def _read_stderr(self, stream: IO[bytes]) -> None:
        for line in children.iter_lines(stream):
            self.stderr.append(_text(line))


def _text(line: bytes) -> str:
    return line[:KEPT_LINE_BYTES].decode("utf-8", errors="replace")
