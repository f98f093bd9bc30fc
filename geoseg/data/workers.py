"""Processes that read samples."""

import signal
from types import FrameType

# For the first process to come to its next step and write its state.
GRACE_S = 60


def leave_signals(_worker: int) -> None:
    """Leave signals to the first process, which ends its workers when it has saved its state.

    Ctrl-C in a terminal and the SIGTERM of a scheduler go to all processes of a run. A worker that
    dies of one would end the run before its checkpoint is written.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later if hasattr(signal, "alarm") else signal.SIG_DFL)


def _end_later(_number: int, _frame: FrameType | None) -> None:
    """End in a while, or at the next SIGTERM: the first process may be gone, or end its workers."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(GRACE_S)
