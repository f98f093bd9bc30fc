"""Processes that read samples for another one."""

import signal


def leave_signals(_worker: int) -> None:
    """Leave Ctrl-C to the first process, which ends its workers when it has saved its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
