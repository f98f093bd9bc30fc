"""The model list of a dialog: shipped models, added files, and a button for another file.

Only imported where there are dialogs. In the modeler the parameter is a plain text, so that it can
be joined to the output of Teach a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from processing.gui.wrappers import WidgetWrapper
from qgis.core import QgsApplication, QgsTask
from qgis.gui import QgsGui
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from geoseg_qgis.client import EngineError
from geoseg_qgis.compat import OPTIONAL
from geoseg_qgis.engine import Engine, find_engine
from geoseg_qgis.models import (
    SUFFIXES,
    add_model,
    ask_shipped_models,
    is_list_known,
    known_models,
    model_of_file,
)
from geoseg_qgis.settings import Settings
from geoseg_qgis.translate import tr

if TYPE_CHECKING:
    from qgis.core import QgsProcessingContext, QgsProcessingParameterDefinition

MODELER = "ModelerParametersDialog"
HINT = Qt.ItemDataRole.ToolTipRole


class AskModels(QgsTask):
    """Asks the engine in the background what it ships; once for all lists that wait for it."""

    current: AskModels | None = None

    def __init__(self, engine: Engine) -> None:
        super().__init__(tr("geoseg: listing the models"), QgsTask.Flag.CanCancel)
        self.engine = engine
        self.problem = ""

    def run(self) -> bool:
        """Ask; called in a worker thread."""
        try:
            ask_shipped_models(self.engine)
        except EngineError as error:
            self.problem = str(error)
        return not self.problem

    def finished(self, result: bool) -> None:  # noqa: ARG002
        """Let the next list ask again; QGIS calls this in the main thread."""
        AskModels.current = None


class ModelBox(QWidget):
    """A list that also takes a typed path, and a button that asks for a file."""

    def __init__(self, optional: bool) -> None:
        super().__init__()
        self.optional = optional
        self._asking: AskModels | None = None
        self.list = QComboBox()
        self.list.setEditable(True)
        self.list.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.list.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.list.currentIndexChanged.connect(self._show_hint)
        browse = QToolButton()
        browse.setText("…")
        browse.setToolTip(tr("Add a model file"))
        browse.clicked.connect(self.browse)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.list)
        row.addWidget(browse)
        self.fill()
        self._ask_engine()

    def fill(self) -> None:
        """List what is known, and keep what was chosen or typed."""
        before = self.value()
        self.list.blockSignals(True)
        self.list.clear()
        if self.optional:
            self.list.addItem("", "")
        for model in known_models(_engine(), Settings()):
            self.list.addItem(model.label, model.value)
            self.list.setItemData(self.list.count() - 1, model.hint, HINT)
        self.list.blockSignals(False)
        if before:
            self.set_value(before)
        self._show_hint()

    def value(self) -> str:
        """Return the name or path of the model, or an empty text."""
        text = self.list.currentText().strip()
        index = self.list.findText(text)
        return str(self.list.itemData(index)) if index >= 0 else text

    def set_value(self, value: Any) -> None:
        """Choose a model of the list, or write another."""
        text = "" if value is None else str(value)
        index = self.list.findData(text)
        if index >= 0:
            self.list.setCurrentIndex(index)
        elif text:
            self.list.setEditText(text)

    def browse(self) -> None:
        """Let the user choose a file, and keep it in the list."""
        patterns = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        path, _ = QFileDialog.getOpenFileName(
            self, tr("Model file"), "", tr("Models ({})").format(patterns)
        )
        if path:
            add_model(path, Settings())
            self.fill()
            self.set_value(path)

    def _ask_engine(self) -> None:
        engine = _engine()
        if engine is None or is_list_known(engine):
            return
        self.list.lineEdit().setPlaceholderText(tr("Asking geoseg for its models…"))
        is_new = AskModels.current is None
        task = AskModels(engine) if AskModels.current is None else AskModels.current
        self._asking = AskModels.current = task
        # Bound to this widget: Qt forgets the connection when the dialog is gone.
        task.taskCompleted.connect(self._asked)
        task.taskTerminated.connect(self._asked)
        if is_new:
            QgsApplication.taskManager().addTask(task)

    def _asked(self) -> None:
        self.list.lineEdit().setPlaceholderText(self._asking.problem if self._asking else "")
        self.fill()

    def _show_hint(self) -> None:
        text = self.value()
        hint = self.list.itemData(self.list.currentIndex(), HINT)
        if not hint and Path(text).is_file():
            hint = model_of_file(text).hint
        self.list.setToolTip(str(hint or ""))


class ModelWidgetWrapper(WidgetWrapper):
    """Puts the list into the dialogs of Processing."""

    def __new__(
        cls, param: QgsProcessingParameterDefinition, dialog: QWidget, *_args: Any, **_more: Any
    ) -> Any:
        """Return this wrapper, or in the modeler QGIS's own for a text."""
        if type(dialog).__name__ != MODELER:
            return super().__new__(cls)
        plain = QgsGui.processingGuiRegistry().createModelerParameterWidget(
            dialog.model, dialog.childId, param, dialog.context
        )
        plain.setDialog(dialog)
        return plain

    def createWidget(self, **_more: Any) -> ModelBox:  # noqa: N802
        """Return the list."""
        definition = self.parameterDefinition()
        box = ModelBox(bool(definition.flags() & OPTIONAL))
        box.list.currentTextChanged.connect(lambda *_: self.widgetValueHasChanged.emit(self))
        return box

    def value(self) -> str:
        """Return the name or path."""
        return self.widget.value()

    def setValue(self, value: Any) -> None:  # noqa: N802
        """Choose a model."""
        self.widget.set_value(value)

    def setWidgetValue(  # noqa: N802
        self,
        value: Any,
        context: QgsProcessingContext,  # noqa: ARG002
    ) -> None:
        """Choose a model, as QGIS's own wrappers are asked to."""
        self.setValue(value)


def _engine() -> Engine | None:
    try:
        return find_engine()
    except EngineError:
        return None
