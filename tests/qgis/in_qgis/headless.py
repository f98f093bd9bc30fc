"""A QGIS without windows that has the plugin's provider, for the scripts beside it."""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "qgis_plugin"))
sys.path.append("/usr/share/qgis/python/plugins")

from qgis.core import QgsApplication, QgsProcessingException, QgsProcessingFeedback
from qgis.PyQt.QtCore import QCoreApplication

application = QgsApplication([], False)
application.initQgis()

from geoseg_qgis.provider import GeosegProvider
from processing.core.Processing import Processing

provider = GeosegProvider()
QgsApplication.processingRegistry().addProvider(provider)
Processing.initialize()

import processing


class Recorder(QgsProcessingFeedback):
    """Remembers what an algorithm says; may cancel it at some progress, or look at its first."""

    def __init__(self, cancel_at=None, look=None):
        super().__init__(False)
        self.look = look
        self.seen = None
        self.lines = []
        self.percents = []
        self.cancel_at = cancel_at
        self.progressChanged.connect(self.heard)

    def heard(self, percent):
        self.percents.append(percent)
        if self.look is not None and self.seen is None:
            self.seen = self.look()
        if self.cancel_at is not None and percent >= self.cancel_at:
            self.cancel()

    def pushInfo(self, info):
        self.lines.append(info)

    def pushWarning(self, warning):
        self.lines.append("warning: " + warning)

    def reportError(self, error, fatalError=False):
        self.lines.append("error: " + error)

    def setProgressText(self, text):
        self.lines.append("doing: " + text)


def run(name, values, cancel_at=None, context=None, look=None):
    """Run an algorithm of the plugin and return what came of it, as JSON can hold it."""
    feedback = Recorder(cancel_at, look)
    try:
        found = processing.run("geoseg:" + name, values, feedback=feedback, context=context)
        error = ""
    except QgsProcessingException as problem:
        found, error = {}, str(problem)
    QCoreApplication.processEvents()
    return {
        "outputs": {k: v for k, v in found.items() if isinstance(v, (str, int, float, bool))},
        "error": error,
        "lines": feedback.lines,
        "percents": feedback.percents,
        "seen": feedback.seen,
    }


def report(record):
    """Print the result and end QGIS."""
    print("result: " + json.dumps(record), flush=True)
    sys.stdout.flush()
    # Not exitQgis: PyQt may crash when it takes down what Python still holds.
    os._exit(0)
