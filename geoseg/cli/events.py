"""Progress for people and for programs, and how a run is stopped.

Programs read one JSON object a line on stdout (``--progress json``); protocol 1 is described in
the README. Nothing else is written to stdout then.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import FrameType
from typing import Any, Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from geoseg.errors import GeosegError, InterruptedRunError
from geoseg.listener import Listener

PROTOCOL = 1
EXIT_INTERRUPTED = 130
ProgressKind = Literal["auto", "json", "none"]
# Progress events come at most this often; the last one always comes.
EVENT_EVERY_S = 0.2
DOING = {
    "predict": "predicting",
    "demo": "predicting",
    "assemble": "assembling",
    "vectorize": "vectorising",
    "describe": "reading",
    "train": "training",
    "pretrain": "training",
}


class Stop:
    """Remembers that the user wants a run to stop."""

    def __init__(self) -> None:
        self._reason = ""

    def ask(self, reason: str) -> None:
        """Stop the run at its next tile."""
        self._reason = self._reason or reason

    def check(self) -> None:
        """Raise an InterruptedRunError once the run has been asked to stop."""
        if self._reason:
            raise InterruptedRunError(
                f"stopped ({self._reason}). Finished parts are kept: give --resume to go on."
            )


class CommandListener(Listener):
    """What all listeners of the command line share: stopping, and the time left."""

    def __init__(self, command: str, stop: Stop) -> None:
        self.command = command
        self.stop = stop
        self._began = time.monotonic()
        self._before = 0
        self.unit = "tiles"

    def check(self) -> None:
        """Stop the run if it was asked to."""
        self.stop.check()

    def start(self, plan: dict[str, Any]) -> None:
        """Take the time from which the rest is estimated, and the unit that progress counts."""
        self._began = time.monotonic()
        self.unit = plan.get("unit", self.unit)
        self._before = plan.get("done", 0)

    def seconds_left(self, done: int, total: int) -> float | None:
        """Return an estimate from the work done so far."""
        per_second = self.per_second(done)
        return (total - done) / per_second if per_second > 0 else None

    def per_second(self, done: int) -> float:
        """Return the speed; what a resumed run finds done does not count."""
        return (done - self._before) / max(1e-3, time.monotonic() - self._began)

    def result(self, record: dict[str, Any]) -> None:
        """A file was made."""


class JsonListener(CommandListener):
    """One JSON object a line on stdout."""

    def __init__(self, command: str, stop: Stop) -> None:
        super().__init__(command, stop)
        self._last = 0.0

    def start(self, plan: dict[str, Any]) -> None:
        """Say what will be done."""
        super().start(plan)
        _emit({"event": "start", "protocol": PROTOCOL, "command": self.command, "plan": plan})

    def progress(self, done: int, total: int, pixels: int) -> None:
        """Say how far the run is."""
        now = time.monotonic()
        if done < total and now - self._last < EVENT_EVERY_S:
            return
        self._last = now
        left = self.seconds_left(done, total)
        _emit(
            {
                "event": "progress",
                "done": done,
                "total": total,
                "unit": self.unit,
                "eta_s": None if left is None else round(left, 1),
            }
        )

    def log(self, level: str, message: str) -> None:
        """Pass a message on."""
        _emit({"event": "log", "level": level, "message": message})

    def result(self, record: dict[str, Any]) -> None:
        """Say which files were made."""
        _emit({"event": "result", **record})


class TextListener(CommandListener):
    """A bar on a terminal, plain lines elsewhere; both on stderr."""

    def __init__(self, command: str, stop: Stop, *, quiet: bool) -> None:
        super().__init__(command, stop)
        self.console = Console(stderr=True, highlight=False)
        self.quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._mpx_per_tile = 0.0

    def start(self, plan: dict[str, Any]) -> None:
        """Show the plan in a few words, and the bar."""
        super().start(plan)
        if self.quiet:
            return
        self.console.print(plan_sentence(plan), soft_wrap=True)
        self._mpx_per_tile = plan["mpx"] / max(1, plan["tiles"]) if self.unit == "tiles" else 0.0
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[speed]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            doing = DOING.get(self.command, self.command)
            self._task = self._bar.add_task(doing, total=None, speed="")
            self._bar.start()

    def progress(self, done: int, total: int, pixels: int) -> None:
        """Move the bar."""
        if self._bar is None or self._task is None:
            return
        per_second = self.per_second(done)
        speed = (
            f"{per_second * self._mpx_per_tile:.2f} Mpx/s"
            if self._mpx_per_tile
            else f"{per_second:.2f} {self.unit}/s"
        )
        self._bar.update(self._task, completed=done, total=total, speed=speed)
        if done == total:
            self._bar.update(self._task, description="finishing")

    def log(self, level: str, message: str) -> None:
        """Print a message; warnings are printed even when quiet."""
        if level == "warning":
            self.console.print(f"[yellow]warning:[/] {_escape(message)}", soft_wrap=True)
        elif not self.quiet:
            self.console.print(f"  {_escape(message)}", soft_wrap=True)

    def result(self, record: dict[str, Any]) -> None:
        """Print the files that were made, on stdout."""
        self.close()
        for path in record["outputs"].values():
            if path:
                click.echo(path)
        if self.quiet:
            return
        speed = record.get("pixels", 0) / 1e6 / max(1e-3, record["seconds"])
        self.console.print(f"{record['seconds']:.1f} s" + (f", {speed:.2f} Mpx/s" if speed else ""))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def listening(
    command: str, progress: ProgressKind, *, watch_stdin: bool = False
) -> Iterator[CommandListener]:
    """Yield the listener of a command; signals and a closed stdin stop its run cleanly."""
    stop = Stop()
    listener: CommandListener
    if progress == "json":
        listener = JsonListener(command, stop)
    else:
        listener = TextListener(command, stop, quiet=progress == "none")
    handler = _ForwardLog(listener)
    logger = logging.getLogger("geoseg")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    if watch_stdin:
        threading.Thread(target=_watch_stdin, args=(stop,), daemon=True).start()
    try:
        with _signals(stop):
            yield listener
    finally:
        logger.removeHandler(handler)
        if isinstance(listener, TextListener):
            listener.close()


@contextmanager
def one_voice(*, first: bool) -> Iterator[None]:
    """Leave the events of a distributed run to its first process.

    Args:
        first: whether this is that process. Another one ends without an event when it is stopped,
            and otherwise says its error on stderr alone.
    """
    try:
        yield
    except GeosegError as error:
        if first:
            raise
        if isinstance(error, InterruptedRunError):
            sys.exit(EXIT_INTERRUPTED)
        click.echo(f"geoseg: {error} (said by one of several processes)", err=True)
        sys.exit(1)


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line asks for JSON lines."""
    separate = ("--progress", "json") in pairwise(arguments)
    return separate or "--progress=json" in arguments


def error_event(error: BaseException, message: str) -> str:
    """Return the JSON line of an error."""
    return json.dumps({"event": "error", "kind": type(error).__name__, "message": message})


def plan_sentence(plan: dict[str, Any]) -> str:
    """Return a plan in one line: its own sentence, or that of a prediction."""
    if "sentence" in plan:
        return str(plan["sentence"])
    precision = plan["precision"].replace("float", "fp").replace("bfp", "bf")
    return (
        f"{plan['model']}: {plan['width_px']} x {plan['height_px']} px ({plan['mpx']:.1f} Mpx), "
        f"{plan['tiles']} tiles of {plan['tile_size_px']} px with {plan['overlap_px']} px overlap, "
        f"{plan['device']} {precision}"
    )


class _ForwardLog(logging.Handler):
    """Sends geoseg's own log records to a listener."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(logging.INFO)
        self.listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno >= logging.WARNING else "info"
        self.listener.log(level, record.getMessage())


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the run at its next tile; a second Ctrl-C stops at once."""

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.ask(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch_stdin(stop: Stop) -> None:
    # Unbuffered: a thread that waits inside Python's own buffer aborts the process at its end.
    try:
        while os.read(sys.stdin.fileno(), 4096):
            pass
    except (OSError, ValueError, AttributeError):  # closed already, or there is none
        pass
    stop.ask("stdin closed")


def _emit(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _escape(message: str) -> str:
    return message.replace("[", r"\[")
