"""The plugin as QGIS sees it: a button, a menu, the Processing provider and the options page."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qgis.core import (
    QgsApplication,
    QgsCoordinateTransform,
    QgsCsException,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QDesktopServices, QIcon
from qgis.PyQt.QtWidgets import QAction, QPushButton

from geoseg_qgis import runner
from geoseg_qgis.algorithms.algorithm import GUIDE, ICON
from geoseg_qgis.client import EngineError
from geoseg_qgis.compat import WARNING
from geoseg_qgis.engine import find_engine
from geoseg_qgis.provider import GeosegProvider
from geoseg_qgis.translate import install_translator, remove_translator, tr

if TYPE_CHECKING:
    from qgis.gui import QgisInterface, QgsMapCanvas
    from qgis.PyQt.QtWidgets import QDialog

MENU = "&geoseg"
SEGMENT = "geoseg:segment"
# The name that the options page gives itself.
OPTIONS_PAGE = "geosegOptions"


class GeosegPlugin:
    """Puts geoseg into QGIS and takes it out again."""

    def __init__(self, iface: QgisInterface | None) -> None:
        self.iface = iface
        self.provider: GeosegProvider | None = None
        self.actions: list[QAction] = []
        self.options: Any = None
        self.translator: Any = None
        self.dialog: QDialog | None = None

    def initProcessing(self) -> None:  # noqa: N802
        """Add the provider; all that qgis_process asks for."""
        if self.translator is None:
            self.translator = install_translator()
        self.provider = GeosegProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:  # noqa: N802
        """Add provider, button, menu and options page."""
        self.initProcessing()
        segment = self._add_action(tr("Segment raster…"), self.open_predict_dialog)
        segment.setToolTip(tr("Segment the active raster layer with geoseg"))
        self.iface.addToolBarIcon(segment)
        self._add_action(tr("geoseg user guide"), self.open_guide)
        # Imported here: qgis_process has no windows, and needs none of their modules.
        from geoseg_qgis.options_page import OptionsFactory

        self.options = OptionsFactory()
        self.iface.registerOptionsWidgetFactory(self.options)

    def unload(self) -> None:
        """Take everything away, and end runs that still go on."""
        runner.stop_all()
        if self.dialog is not None:
            self._close_dialog()
        for action in self.actions:
            self.iface.removeToolBarIcon(action)
            self.iface.removePluginRasterMenu(MENU, action)
            action.deleteLater()
        self.actions = []
        if self.options is not None:
            self.iface.unregisterOptionsWidgetFactory(self.options)
            self.options = None
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
        remove_translator(self.translator)
        self.translator = None

    def open_predict_dialog(self) -> None:
        """Open Segment raster on the active raster layer, with what is visible of it as extent."""
        try:
            find_engine()
        except EngineError as error:
            self._offer_options(str(error))
            return
        import processing  # QGIS's own plugin, which may load after this one

        self.dialog = processing.createAlgorithmDialog(SEGMENT, self.defaults())
        self.dialog.show()

    def defaults(self) -> dict[str, Any]:
        """Return what the dialog begins with."""
        layer = self.iface.activeLayer()
        if not isinstance(layer, QgsRasterLayer):
            return {}
        defaults: dict[str, Any] = {"INPUT": layer.id()}
        box = visible_extent(layer, self.iface.mapCanvas())
        if box is not None:
            corners = (box.xMinimum(), box.xMaximum(), box.yMinimum(), box.yMaximum())
            defaults["EXTENT"] = f"{','.join(map(repr, corners))} [{layer.crs().authid()}]"
        return defaults

    def open_guide(self) -> None:
        """Open the user guide, which comes with the plugin."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(GUIDE)))

    def _add_action(self, text: str, slot: Any) -> QAction:
        action = QAction(QIcon(str(ICON)), text, self.iface.mainWindow())
        action.triggered.connect(lambda *_: slot())
        self.iface.addPluginToRasterMenu(MENU, action)
        self.actions.append(action)
        return action

    def _offer_options(self, reason: str) -> None:
        bar = self.iface.messageBar()
        message = bar.createMessage("geoseg", reason)
        button = QPushButton(tr("Open options"), message)
        button.clicked.connect(lambda *_: self.iface.showOptionsDialog(currentPage=OPTIONS_PAGE))
        message.layout().addWidget(button)
        bar.pushWidget(message, WARNING)

    def _close_dialog(self) -> None:
        with suppress(RuntimeError):  # QGIS has deleted it already
            self.dialog.close()
        self.dialog = None


def visible_extent(layer: QgsRasterLayer, canvas: QgsMapCanvas) -> QgsRectangle | None:
    """Return the visible part of a layer in its CRS; None if it is all visible, or nothing is."""
    box = canvas.extent()
    source = canvas.mapSettings().destinationCrs()
    if layer.crs().isValid() and source.isValid() and source != layer.crs():
        transform = QgsCoordinateTransform(source, layer.crs(), QgsProject.instance())
        try:
            box = transform.transformBoundingBox(box)
        except QgsCsException:
            return None
    if box.contains(layer.extent()) or not box.intersects(layer.extent()):
        return None
    return box.intersect(layer.extent())
