"""The classes of a map: their numbers, names and colours, put onto layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFillSymbol,
    QgsPalettedRasterRenderer,
    QgsRasterLayer,
    QgsRendererCategory,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

FIELD = "class_id"
# Polygons lie over the image: it stays visible through them, and their edges stay sharp.
FILL_ALPHA = 150


@dataclass(frozen=True)
class ClassStyle:
    """A class: its value in the map, its name and its colour."""

    value: int
    name: str
    color: QColor


def classes_of(class_map: str) -> list[ClassStyle]:
    """Return the classes of a class map; none if it has no names and colours."""
    layer = QgsRasterLayer(class_map, "class map")
    if not layer.isValid():
        return []
    renderer = layer.renderer()
    if not isinstance(renderer, QgsPalettedRasterRenderer):
        return []
    return [ClassStyle(int(c.value), c.label, QColor(c.color)) for c in renderer.classes()]


def style_class_map(layer: QgsRasterLayer, classes: Sequence[ClassStyle]) -> None:
    """Show a class map with its classes' names and colours."""
    rows = [QgsPalettedRasterRenderer.Class(c.value, c.color, c.name) for c in classes]
    layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), 1, rows))
    layer.triggerRepaint()


def style_polygons(layer: QgsVectorLayer, classes: Sequence[ClassStyle]) -> None:
    """Show polygons in the colours and with the names of the map they were made from."""
    if layer.fields().lookupField(FIELD) < 0:
        return
    renderer = QgsCategorizedSymbolRenderer(FIELD, [_category(c) for c in classes])
    layer.setRenderer(renderer)
    layer.triggerRepaint()


def _category(style: ClassStyle) -> QgsRendererCategory:
    fill = QColor(style.color)
    fill.setAlpha(FILL_ALPHA)
    symbol = QgsFillSymbol.createSimple(
        {
            "color": fill.name(QColor.NameFormat.HexArgb),
            "outline_color": style.color.darker(160).name(),
            "outline_width": "0.26",
        }
    )
    symbol.symbolLayer(0).setFillColor(fill)
    return QgsRendererCategory(style.value, symbol, style.name)
