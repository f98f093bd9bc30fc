"""Run by QGIS's own Python: open layers in real QGIS and print what they show as JSON.

python3 layer_style.py PICTURE LAYER...
"""

import json
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize


def style(path: str) -> dict:
    """Return renderer, rows and fields, with the layer's own style."""
    layer = QgsVectorLayer(path, "layer", "ogr")
    if not layer.isValid():
        sys.exit(f"QGIS cannot open {path}")
    renderer = layer.renderer()
    rows = []
    if renderer.type() == "categorizedSymbol":
        rows = [
            [int(c.value()), c.label(), c.symbol().color().name()] for c in renderer.categories()
        ]
    return {
        "renderer": renderer.type(),
        "rows": rows,
        "crs": layer.crs().authid(),
        "fields": [field.name() for field in layer.fields() if field.name() != "fid"],
        "features": layer.featureCount(),
    }


def draw(path: str, picture: str) -> None:
    """Draw a layer."""
    layer = QgsVectorLayer(path, "layer", "ogr")
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent())
    settings.setOutputSize(QSize(400, 400))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    job.renderedImage().save(picture)


application = QgsApplication([], False)
application.initQgis()
layers = [style(path) for path in sys.argv[2:]]
draw(sys.argv[2], sys.argv[1])
sys.stdout.write(json.dumps({"qgis": Qgis.QGIS_VERSION, "layers": layers}) + "\n")
application.exitQgis()
