"""Run by QGIS's own Python: use the options page of the plugin as a user does.

python3 options_page.py PLUGIN_FOLDER PROFILE_FOLDER SCENARIO JSON

Prints what the page shows afterwards as JSON. The environment says where settings go.
"""

import json
import os
import sys
import time

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, sys.argv[1])

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QEvent

QCoreApplication.setOrganizationName("geoseg-tests")
application = QgsApplication([], True, sys.argv[2])
application.initQgis()

from geoseg_qgis.background import cancel_all
from geoseg_qgis.options_page import OptionsFactory, OptionsPage
from geoseg_qgis.settings import Settings

TIMEOUT_S = 300


def wait(condition) -> None:
    """Let QGIS work until a condition holds."""
    until = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > until:
            sys.exit("the page did not come to an end")
        QCoreApplication.processEvents()
        time.sleep(0.01)


def is_idle() -> bool:
    """Return whether nothing runs in the background."""
    return OptionsPage._task is None


def delete(page) -> None:
    """Delete a page as QGIS does when its options are closed."""
    page.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def fill(page, given) -> None:
    """Type what a test gives."""
    page.python_path.setFilePath(given.get("python_path", ""))
    page.source.setText(given.get("source", page.source.text()))
    page.offline_folder.setFilePath(given.get("offline_folder", ""))
    page.proxy.setText(given.get("proxy", ""))
    page.backend.setCurrentIndex(page.backend.findData(given.get("backend", "auto")))


def answer(page, asked, yes) -> None:
    """Stand in for the user in front of the question."""
    page.confirm = lambda plan: asked.append(plan.sentence()) or yes


def press_test(page, _asked):
    """Press "Test engine"."""
    page.test_button.click()
    wait(is_idle)


def install(page, asked, yes=True):
    """Press "Install engine" and agree."""
    answer(page, asked, yes)
    page.install_button.click()
    wait(is_idle)


def decline(page, asked):
    """Press "Install engine" and do not agree."""
    install(page, asked, yes=False)


def cancel(page, asked):
    """Cancel an installation that has begun."""
    answer(page, asked, True)
    page.install_button.click()
    wait(lambda: "uv is at work" in page.log.toPlainText())
    asked.append(page.cancel_button.isHidden())
    page.cancel_button.click()
    wait(is_idle)


def reopen(page, asked):
    """Close the options during an installation, open them again, and see it end there."""
    answer(page, asked, True)
    page.install_button.click()
    wait(lambda: bool(asked) and not is_idle())
    delete(page)
    later = OptionsFactory().createWidget(None)
    asked.append([later.install_button.isEnabled(), later.progress.isHidden()])
    wait(is_idle)
    wait(later.install_button.isEnabled)
    return later


def unload(page, asked):
    """Unload the plugin during an installation."""
    answer(page, asked, True)
    page.install_button.click()
    wait(lambda: "uv is at work" in page.log.toPlainText())
    cancel_all()
    wait(is_idle)


def models(page, _asked):
    """Add three models, one of them twice, remove one, and press OK."""
    page.add_models(["/a/one.safetensors", "/b/zwei ü.onnx", "/c/three.pt2"])
    page.add_models(["/a/one.safetensors"])
    page.models.setCurrentRow(0)
    page._remove_models()
    page.apply()


def apply(page, _asked):
    """Press OK."""
    page.apply()


SCENARIOS = {f.__name__: f for f in
             (press_test, install, decline, cancel, reopen, unload, models, apply)}  # fmt: skip

scenario, given = sys.argv[3], json.loads(sys.argv[4])
factory = OptionsFactory()
page = factory.createWidget(None)
fill(page, given)
asked: list = []
page = SCENARIOS[scenario](page, asked) or page
settings = Settings()
shown = {
    "asked": asked,
    "log": page.log.toPlainText(),
    "found": page.found.text(),
    "buttons": [page.test_button.isEnabled(), page.install_button.isEnabled()],
    "busy": not page.progress.isHidden(),
    "title": factory.title(),
    "settings": {
        name: getattr(settings, name)
        for name in ("python_path", "engine_source", "backend", "offline_folder", "proxy")
    },
    "models": settings.model_files,
    "folder": str(settings.managed_folder()),
}
delete(page)
print(json.dumps(shown))
application.exitQgis()
