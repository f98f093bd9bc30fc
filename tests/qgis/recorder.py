"""Who is told how a run of the plugin goes."""


class Recorder:
    """A listener that keeps what it is told, and cancels when it is asked to."""

    def __init__(self):
        self.progress, self.logs, self.cancelled = [], [], False
        self.cancel_at_log = ""

    def is_cancelled(self):
        return self.cancelled

    def set_progress(self, percent, remaining_s):
        self.progress.append((percent, remaining_s))

    def log(self, level, message):
        self.logs.append((level, message))
        self.cancelled = self.cancelled or message == self.cancel_at_log
