"""Run by `qgis --code`: press the button in the real main window, and take pictures.

Environment: GEOSEG_TEST_FOLDER holds image.tif, and takes pictures and result.json;
GEOSEG_TEST_POLYGONS is 1 where the engine can vectorise.
"""

import json
import os
import statistics
import sys
import time
import traceback
from pathlib import Path

from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog
from qgis.core import QgsApplication, QgsProject, QgsRasterLayer, QgsRectangle
from qgis.PyQt.QtCore import QSize, QTimer
from qgis.PyQt.QtWidgets import (
    QApplication,
    QDialogButtonBox,
    QDockWidget,
    QProgressBar,
    QPushButton,
    QWidget,
)
from qgis.utils import iface, loadPlugin, plugins, startPlugin, unloadPlugin, updateAvailablePlugins

folder = Path(os.environ["GEOSEG_TEST_FOLDER"])
with_polygons = os.environ.get("GEOSEG_TEST_POLYGONS") == "1"
record = {}
WAIT_S = 240


def wait_for(condition, then):
    """Look every tenth of a second, without blocking the window, and go on."""
    began = time.monotonic()

    def look():
        if condition():
            then()
        elif time.monotonic() - began > WAIT_S:
            record["problem"] = f"waited in vain before line {then.__code__.co_firstlineno}"
            finish()
        else:
            QTimer.singleShot(100, look)

    look()


def stumble(kind, problem, trace):
    """End with what went wrong: QGIS would show it in a window that nobody closes."""
    record["problem"] = "".join(traceback.format_exception(kind, problem, trace))
    finish()


def finish():
    (folder / "result.json").write_text(json.dumps(record), encoding="utf-8")
    os._exit(0)


def take(widget, name):
    """Take a picture of a window."""
    QgsApplication.processEvents()
    widget.grab().save(str(folder / f"{name}.png"))


def traces():
    """Return what of the plugin is in the window: nothing once it is unloaded."""
    window = iface.mainWindow()
    actions = [a.text() for a in window.findChildren(type(iface.actionPan())) if ours(a)]
    pages = [a.menu().title() for a in iface.rasterMenu().actions() if a.menu() is not None]
    registry = QgsApplication.processingRegistry()
    return {
        "actions": sorted(actions),
        "menus": [title for title in pages if "geoseg" in title],
        "provider": registry.providerById("geoseg") is not None,
    }


def ours(action):
    return "Segment raster…" in action.text() or "geoseg user guide" in action.text()


def start_times():
    """Return milliseconds of import and initGui, each time from nothing: by clock, of processor."""
    wall, own = [], []
    for _ in range(5):
        for name in [n for n in sys.modules if n.split(".")[0] == "geoseg_qgis"]:
            del sys.modules[name]
        began, began_own = time.perf_counter(), time.thread_time()
        import geoseg_qgis

        plugin = geoseg_qgis.classFactory(iface)
        plugin.initGui()
        wall.append(round(1000 * (time.perf_counter() - began), 1))
        own.append(round(1000 * (time.thread_time() - began_own), 1))
        plugin.unload()
        QgsApplication.processEvents()
    return wall, own


def begin():
    iface.mainWindow().resize(QSize(1280, 800))
    record["before"] = traces()
    record["start_ms"], record["start_own_ms"] = start_times()
    record["start_median_ms"] = statistics.median(record["start_ms"])
    record["start_own_median_ms"] = statistics.median(record["start_own_ms"])
    QgsApplication.sendPostedEvents(None, 52)  # DeferredDelete
    record["between"] = traces()
    updateAvailablePlugins()
    record["started"] = loadPlugin("geoseg_qgis") and startPlugin("geoseg_qgis")
    record["loaded"] = traces()
    layer = QgsRasterLayer(str(folder / "image.tif"), "Banepa")
    QgsProject.instance().addMapLayer(layer)
    iface.setActiveLayer(layer)
    for dock in iface.mainWindow().findChildren(QDockWidget):
        dock.setVisible(dock.objectName() == "Layers")
    QTimer.singleShot(3000, press)


def press():
    layer = iface.activeLayer()
    iface.mapCanvas().setExtent(layer.extent().scaled(0.7))
    iface.mapCanvas().refresh()
    (button,) = [a for a in plugins["geoseg_qgis"].actions if a.text() == "Segment raster…"]
    record["button_on_toolbar"] = button in iface.pluginToolBar().actions()
    without_engine(button)
    button.trigger()
    dialog = plugins["geoseg_qgis"].dialog
    box = wrapper(dialog, "MODEL").widget
    wait_for(lambda: box.list.count() > 0, lambda: fill(dialog, box))


def without_engine(button):
    """Press the button where no engine is found, and follow the offer that comes instead."""
    kept = os.environ.pop("GEOSEG_PYTHON")
    button.trigger()
    os.environ["GEOSEG_PYTHON"] = kept
    item = iface.messageBar().currentItem()
    record["without_engine"] = item.text()
    (offer,) = item.findChildren(QPushButton)
    QTimer.singleShot(3000, look_at_options)
    offer.click()  # comes back when the options are closed
    iface.messageBar().clearWidgets()


def look_at_options():
    dialog = QApplication.activeModalWidget()
    page = dialog.findChild(QWidget, "geosegOptions")
    record["options_open_at_geoseg"] = page is not None and page.isVisible()
    dialog.resize(QSize(960, 780))
    take(dialog, "options")
    dialog.reject()


def wrapper(dialog, name):
    return dialog.mainWidget().wrappers[name]


def fill(dialog, box):
    record["models"] = [box.list.itemText(i) for i in range(box.list.count())]
    record["chosen"] = box.value()
    given = dialog.createProcessingParameters()
    record["input_is_layer"] = given["INPUT"] == iface.activeLayer().id()
    record["extent"] = given["EXTENT"]
    values = {**given, "TILE_SIZE": 128, "OVERLAP": 64, "OUTPUT": str(folder / "karte.tif")}
    if with_polygons:
        values["POLYGONS"] = str(folder / "polygone.gpkg")
    dialog.setParameters(values)
    dialog.resize(QSize(960, 780))
    take(dialog, "dialog")
    dialog.buttonBox().button(QDialogButtonBox.StandardButton.Ok).click()
    bar = dialog.findChild(QProgressBar)
    wait_for(lambda: 15 < bar.value() < 95, lambda: running(dialog))


def running(dialog):
    take(dialog, "running")
    done = folder / ("polygone.gpkg" if with_polygons else "karte.tif")
    layers = 3 if with_polygons else 2
    wait_for(
        lambda: done.exists() and len(QgsProject.instance().mapLayers()) == layers,
        lambda: QTimer.singleShot(3000, lambda: result(dialog)),
    )


def result(dialog):
    dialog.close()
    found = {}
    for layer in QgsProject.instance().mapLayers().values():
        renderer = layer.renderer()
        rows = []
        if renderer.type() == "paletted":
            rows = [[int(c.value), c.label, c.color.name()] for c in renderer.classes()]
        if renderer.type() == "categorizedSymbol":
            rows = [
                [int(c.value()), c.label(), c.symbol().color().name()]
                for c in renderer.categories()
            ]
        found[layer.name()] = [renderer.type(), rows]
    record["layers"] = found
    show_only("Banepa", "Class map")
    then = overlay if with_polygons else cancel
    QTimer.singleShot(3000, lambda: (take(iface.mainWindow(), "result"), then()))


def overlay():
    show_only("Banepa", "Polygons")
    QTimer.singleShot(3000, lambda: (take(iface.mainWindow(), "polygons"), cancel()))


def show_only(*names):
    """Show these layers and no other, with their legends open."""
    iface.messageBar().clearWidgets()
    for node in QgsProject.instance().layerTreeRoot().findLayers():
        node.setItemVisibilityChecked(node.name() in names)
        # Twice, since the view only follows a change.
        for is_open in (False, node.name() in names[1:]):
            node.setExpanded(is_open)


def cancel():
    """Press the button for an image of several panels, and Cancel once the first is finished."""
    layer = QgsRasterLayer(str(folder / "long.tif"), "Long image")
    QgsProject.instance().addMapLayer(layer)
    iface.setActiveLayer(layer)
    plugins["geoseg_qgis"].open_predict_dialog()
    dialog = plugins["geoseg_qgis"].dialog
    values = {
        **dialog.createProcessingParameters(),
        "TILE_SIZE": 512,
        "OVERLAP": 64,
        "OUTPUT": str(folder / "abbruch.tif"),
        "EXTENT": None,
    }
    dialog.setParameters(values)
    dialog.buttonBox().button(QDialogButtonBox.StandardButton.Ok).click()
    bar = dialog.findChild(QProgressBar)
    wait_for(lambda: bar.value() >= 36, lambda: press_cancel(dialog))


def press_cancel(dialog):
    dialog.cancelButton().click()
    wait_for(
        lambda: QgsProject.instance().mapLayersByName("abbruch (unfinished)"),
        lambda: QTimer.singleShot(1000, lambda: cancelled(dialog)),
    )


def cancelled(dialog):
    show_only("Long image", "abbruch (unfinished)")
    canvas, box = iface.mapCanvas(), iface.activeLayer().extent()
    step = box.width() / 4096
    seen = QgsRectangle(0, -2700, 768, -1400)
    left, top = box.xMinimum(), box.yMaximum()
    canvas.setExtent(
        QgsRectangle(
            *(left + seen.xMinimum() * step, top + seen.yMinimum() * step),
            *(left + seen.xMaximum() * step, top + seen.yMaximum() * step),
        )
    )
    canvas.refresh()
    QTimer.singleShot(3000, lambda: kept(dialog))


def kept(dialog):
    take(iface.mainWindow(), "cancelled")
    record["parts_kept"] = (folder / "abbruch.tif.parts").is_dir()
    record["cancelled_map"] = (folder / "abbruch.tif").exists()
    dialog.close()
    batch()


def batch():
    """Three pieces of the image through QGIS's own batch window."""
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("geoseg:segment")
    dialog = BatchAlgorithmDialog(algorithm, parent=iface.mainWindow())
    panel = dialog.mainWidget()
    names = [f"batch_{i}" for i in range(3)]
    for _ in names[1:]:
        panel.addRow()
    for row, name in enumerate(names):
        values = {"INPUT": str(folder / f"{name}.tif"), "MODEL": record["chosen"]}
        for key, value in values.items():
            column = panel.parameter_to_column[key]
            panel.wrappers[row][column].setParameterValue(value, panel.processing_context)
        column = panel.parameter_to_column["OUTPUT"]
        panel.tblParameters.cellWidget(row + 1, column).setValue(str(folder / f"{name}_map.tif"))
    dialog.show()
    QTimer.singleShot(500, lambda: take(dialog, "batch"))
    QTimer.singleShot(1500, dialog.buttonBox().button(QDialogButtonBox.StandardButton.Ok).click)
    wait_for(
        lambda: all((folder / f"{name}_map.qml").exists() for name in names),
        lambda: QTimer.singleShot(2000, lambda: unload(dialog)),
    )


def unload(dialog):
    dialog.close()
    record["batch"] = sorted(p.name for p in folder.glob("batch_*_map.tif"))
    unloadPlugin("geoseg_qgis")
    QgsApplication.sendPostedEvents(None, 52)  # DeferredDelete
    record["unloaded"] = traces()
    record["reloaded"] = loadPlugin("geoseg_qgis") and startPlugin("geoseg_qgis")
    record["again"] = traces()
    finish()


sys.excepthook = stumble
wait_for(lambda: iface is not None and iface.mainWindow().isVisible(), begin)
