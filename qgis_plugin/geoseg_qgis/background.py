"""Work beside QGIS's window: a task with messages, that can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qgis.core import QgsApplication, QgsTask
from qgis.PyQt.QtCore import pyqtSignal

from geoseg_qgis.client import Cancelled, EngineError
from geoseg_qgis.runner import Feedback

# QGIS keeps no Python object of a task alive.
_running: set[Background] = set()


class Background(QgsTask):
    """Runs a function in a thread of QGIS's task manager.

    The function is given a `runner.Feedback`. ``said`` carries its messages; ``ended`` its outcome:
    what it returned or None, and a sentence, empty when it went well.
    """

    said = pyqtSignal(str)
    ended = pyqtSignal(object, str)

    def __init__(self, title: str, work: Callable[[Feedback], Any]) -> None:
        super().__init__(title, QgsTask.Flag.CanCancel)
        self._work = work
        self._outcome: Any = None
        self._sentence = ""

    def start(self) -> None:
        """Hand it to QGIS."""
        _running.add(self)
        QgsApplication.taskManager().addTask(self)

    def run(self) -> bool:
        """Do the work; called by QGIS in a thread."""
        try:
            self._outcome = self._work(_TaskFeedback(self))
        except (Cancelled, EngineError) as error:
            self._sentence = str(error)
        except Exception as error:  # noqa: BLE001 - QGIS would swallow it without a word
            self._sentence = f"{type(error).__name__}: {error}"
        return not self._sentence

    def finished(self, result: bool) -> None:
        """Tell the outcome; called by QGIS in its main thread."""
        _running.discard(self)
        if not result and not self._sentence:
            self._sentence = "The work was cancelled before it began."
        self.ended.emit(self._outcome, self._sentence)


class _TaskFeedback:
    """Tells a task what `runner` tells."""

    def __init__(self, task: Background) -> None:
        self._task = task

    def is_cancelled(self) -> bool:
        return bool(self._task.isCanceled())

    def set_progress(self, percent: float, remaining_s: float | None) -> None:  # noqa: ARG002
        self._task.setProgress(percent)

    def log(self, level: str, message: str) -> None:  # noqa: ARG002
        self._task.said.emit(message)


def cancel_all() -> None:
    """Cancel what runs: for when the plugin is unloaded."""
    for task in list(_running):
        task.cancel()
