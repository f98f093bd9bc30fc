"""Who is told what a run does, and may stop it."""

from typing import Any


class Listener:
    """Hears of a run; does nothing by itself. Any method may raise to stop the run."""

    def start(self, plan: dict[str, Any]) -> None:
        """The plan is made and the first tile follows; ``plan["unit"]`` if it is no tile."""

    def progress(self, done: int, total: int, pixels: int) -> None:
        """``done`` of ``total`` are run or known to be empty; ``pixels`` finished so far."""

    def log(self, level: str, message: str) -> None:
        """Something to know: level ``info`` or ``warning``."""

    def check(self) -> None:
        """Called often; raise InterruptedRunError to stop."""


class SecondStep(Listener):
    """Passes on what is said, and stops when the user wants; the plan is the first step's.

    Args:
        listener: of the whole.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def log(self, level: str, message: str) -> None:
        """Pass a message on."""
        self._listener.log(level, message)

    def check(self) -> None:
        """Stop the run if it was asked to."""
        self._listener.check()
