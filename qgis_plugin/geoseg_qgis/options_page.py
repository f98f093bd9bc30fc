"""Settings ▸ Options ▸ geoseg: where the engine is, testing and installing it, and models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from qgis.gui import QgsCollapsibleGroupBox, QgsFileWidget, QgsOptionsPageWidget
from qgis.gui import QgsOptionsWidgetFactory as WidgetFactory
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QMessageBox,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from geoseg_qgis.background import Background
from geoseg_qgis.client import EngineError
from geoseg_qgis.doctor import doctor_lines
from geoseg_qgis.engine import check_engine, find_engine
from geoseg_qgis.settings import Settings, default_source
from geoseg_qgis.translate import tr

if TYPE_CHECKING:
    from geoseg_qgis.install import InstallPlan

ICON = Path(__file__).parent / "resources" / "icon.svg"
LOG_HEIGHT_PX = 140
MODELS_HEIGHT_PX = 90
MODEL_FILTER = "*.safetensors *.onnx *.pt2"


class OptionsFactory(WidgetFactory):
    """Makes the page when QGIS's options are opened."""

    def __init__(self) -> None:
        super().__init__("geoseg", QIcon(str(ICON)))

    def createWidget(self, parent: QWidget | None = None) -> OptionsPage:  # noqa: N802 - QGIS's
        """Return a page; QGIS owns it."""
        return OptionsPage(parent)


class OptionsPage(QgsOptionsPageWidget):
    """The page; `apply` writes what it shows into the settings."""

    # An installation goes on when the options are closed; the next page shows it again.
    _task: Background | None = None

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("geosegOptions")
        self.settings = Settings()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._engine_group())
        layout.addWidget(self._install_group())
        layout.addWidget(self._models_group())
        layout.addStretch()
        self._show_found()
        self._follow(OptionsPage._task)

    def apply(self) -> None:
        """Write the settings; called by QGIS for OK and Apply."""
        entered = self._entered()
        is_default = entered.engine_source == default_source()
        self.settings.python_path = entered.python_path
        # The default follows the plugin's version, so it is not kept.
        self.settings.engine_source = "" if is_default else entered.engine_source
        self.settings.backend = entered.backend
        self.settings.offline_folder = entered.offline_folder
        self.settings.proxy = entered.proxy
        self.settings.model_files = self._listed_models()

    def test_engine(self) -> None:
        """Ask the engine for its versions, device and kernels, in the background."""
        try:
            engine = find_engine(self._entered())
        except EngineError as error:
            self._show(str(error))
            return
        self._show(tr("Asking {} …").format(engine.python))
        task = Background(
            tr("Test geoseg's engine"),
            lambda _feedback: doctor_lines(check_engine(engine, fresh=True), engine.python),
        )
        self._begin(task, self._tested)

    def install(self) -> None:
        """Plan an installation, show its size, and do it if the user agrees."""
        from geoseg_qgis.install import plan_install  # it brings urllib, and QGIS starts without

        self._show(tr("Looking for Python and uv …"))
        entered = self._entered()
        task = Background(
            tr("Plan the installation of geoseg"), lambda _feedback: plan_install(entered)
        )
        self._begin(task, self._planned)

    def confirm(self, plan: InstallPlan) -> bool:
        """Ask whether to go on."""
        buttons = QMessageBox.StandardButton
        answer = QMessageBox.question(
            self, tr("Install engine"), plan.sentence(), buttons.Ok | buttons.Cancel, buttons.Ok
        )
        return bool(answer == buttons.Ok)

    def cancel(self) -> None:
        """Stop what runs."""
        if OptionsPage._task is not None:
            self._show(tr("Cancelling …"))
            OptionsPage._task.cancel()

    def _planned(self, plan: InstallPlan | None, sentence: str) -> None:
        if plan is None:
            self._show(sentence)
            return
        from geoseg_qgis.install import install_engine

        self._show(plan.sentence())
        if not self.confirm(plan):
            self._show(tr("Nothing was installed."))
            return
        task = Background(
            tr("Install geoseg's engine"), lambda feedback: install_engine(plan, feedback)
        )
        self._begin(task, self._installed)

    def _installed(self, engine: Any, sentence: str) -> None:
        if engine is None:
            self._show(sentence)
            return
        self._show_found()
        if self._used_source() == engine.source:
            self._show(tr("Installed, and used from now on: {}").format(engine.python))
        else:
            self._show(
                tr("Installed. What is named above is still used: empty it to use this one.")
            )

    def _tested(self, lines: list[str] | None, sentence: str) -> None:
        self._show(sentence if lines is None else "\n".join(lines))

    def _begin(self, task: Background, on_end: Callable[[Any, str], None]) -> None:
        OptionsPage._task = task
        # In this order: what comes at the end may begin the next task.
        task.ended.connect(_forget)
        self._follow(task)
        task.ended.connect(on_end)
        task.start()

    def _follow(self, task: Background | None) -> None:
        is_busy = task is not None
        for button in (self.test_button, self.install_button):
            button.setEnabled(not is_busy)
        self.progress.setVisible(is_busy)
        self.cancel_button.setVisible(is_busy)
        if task is not None:
            self.progress.setRange(0, 0)  # busy, until it says how far it is
            task.said.connect(self._show)
            task.progressChanged.connect(self._set_progress)
            task.ended.connect(self._unfollow)

    def _unfollow(self, _outcome: Any, _sentence: str) -> None:
        self._follow(OptionsPage._task)

    def _set_progress(self, percent: float) -> None:
        self.progress.setRange(0, 100)
        self.progress.setValue(round(percent))

    def _show(self, text: str) -> None:
        self.log.appendPlainText(text)

    def _entered(self) -> Any:
        """Return what the page shows, as `Settings` has it; nothing is kept until OK is pressed."""
        return SimpleNamespace(
            python_path=self.python_path.filePath().strip(),
            engine_source=self.source.text().strip() or default_source(),
            backend=self.backend.currentData(),
            offline_folder=self.offline_folder.filePath().strip(),
            proxy=self.proxy.text().strip(),
            managed_folder=self.settings.managed_folder,
        )

    def _used_source(self) -> str:
        try:
            return find_engine(self._entered()).source
        except EngineError:
            return ""

    def _show_found(self) -> None:
        try:
            engine = find_engine(self._entered())
        except EngineError as error:
            self.found.setText(str(error))
            return
        where = {
            "setting": tr("the path above"),
            "managed": tr("installed in the QGIS profile"),
        }.get(engine.source, tr("the variable GEOSEG_PYTHON"))
        self.found.setText(tr("Used: {python} ({where})").format(python=engine.python, where=where))

    def _listed_models(self) -> list[str]:
        return [self.models.item(row).text() for row in range(self.models.count())]

    def _add_models(self) -> None:
        files, _ = QFileDialog.getOpenFileNames(
            self, tr("Add models"), "", tr("Models ({})").format(MODEL_FILTER)
        )
        self.add_models(files)

    def add_models(self, files: list[str]) -> None:
        """List model files that are not listed yet."""
        listed = self._listed_models()
        self.models.addItems([file for file in files if file not in listed])

    def _remove_models(self) -> None:
        for item in self.models.selectedItems():
            self.models.takeItem(self.models.row(item))

    def _engine_group(self) -> QGroupBox:
        group = QGroupBox(tr("Engine"), self)
        layout = QVBoxLayout(group)
        self.python_path = QgsFileWidget(group)
        self.python_path.setDialogTitle(tr("Python of an environment with geoseg"))
        self.python_path.setFilePath(self.settings.python_path)
        self.python_path.lineEdit().setPlaceholderText(tr("found by itself"))
        form = QFormLayout()
        form.addRow(tr("Python, or folder of its environment"), self.python_path)
        layout.addLayout(form)
        self.found = QLabel(group)
        self.found.setWordWrap(True)
        layout.addWidget(self.found)
        self.test_button = _button(tr("Test engine"), self.test_engine)
        self.install_button = _button(tr("Install engine…"), self.install)
        self.cancel_button = _button(tr("Cancel"), self.cancel)
        self.progress = QProgressBar(group)
        row = QHBoxLayout()
        for widget in (self.test_button, self.install_button, self.progress, self.cancel_button):
            row.addWidget(widget)
        row.addStretch()
        layout.addLayout(row)
        self.log = QPlainTextEdit(group)
        self.log.setReadOnly(True)
        self.log.setMaximumHeight(LOG_HEIGHT_PX)
        layout.addWidget(self.log)
        return group

    def _install_group(self) -> QGroupBox:
        group = QgsCollapsibleGroupBox(tr("Installation"), self)
        form = QFormLayout(group)
        self.source = QLineEdit(self.settings.engine_source, group)
        self.source.setToolTip(
            tr("A requirement (geoseg==0.1.0), a wheel, a folder with one, or a checkout")
        )
        form.addRow(tr("Source"), self.source)
        self.backend = QComboBox(group)
        self.backend.addItem(tr("PyTorch that fits this machine"), "auto")
        self.backend.addItem(tr("PyTorch for the CPU (smallest download)"), "cpu")
        self.backend.setCurrentIndex(self.backend.findData(self.settings.backend))
        form.addRow(tr("Device"), self.backend)
        self.offline_folder = QgsFileWidget(group)
        self.offline_folder.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self.offline_folder.setFilePath(self.settings.offline_folder)
        self.offline_folder.lineEdit().setPlaceholderText(tr("none: the network is used"))
        form.addRow(tr("Folder of wheels, without a network"), self.offline_folder)
        self.proxy = QLineEdit(self.settings.proxy, group)
        self.proxy.setPlaceholderText(tr("the system's; else http://host:port"))
        form.addRow(tr("Proxy"), self.proxy)
        group.setCollapsed(True)
        return group

    def _models_group(self) -> QGroupBox:
        group = QGroupBox(tr("Your models"), self)
        layout = QVBoxLayout(group)
        self.models = QListWidget(group)
        self.models.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        self.models.setMaximumHeight(MODELS_HEIGHT_PX)
        self.models.addItems(self.settings.model_files)
        layout.addWidget(self.models)
        row = QHBoxLayout()
        row.addWidget(_button(tr("Add…"), self._add_models))
        row.addWidget(_button(tr("Remove"), self._remove_models))
        row.addStretch()
        layout.addLayout(row)
        return group


def _button(text: str, clicked: Any) -> QPushButton:
    button = QPushButton(text)
    button.clicked.connect(lambda _checked=False: clicked())
    return button


def _forget(_outcome: Any, _sentence: str) -> None:
    OptionsPage._task = None
