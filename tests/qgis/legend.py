"""Run by QGIS's own Python: open rasters in real QGIS and print their legends as JSON.

python3 legend.py RASTER...
"""

import json
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import Qgis, QgsApplication, QgsRasterLayer


def legend(path: str) -> dict:
    """Return renderer, rows, and the values that identify gives at the raster's centre."""
    layer = QgsRasterLayer(path, "map")
    if not layer.isValid():
        sys.exit(f"QGIS cannot open {path}")
    renderer = layer.renderer()
    rows = []
    if renderer.type() == "paletted":
        rows = [[int(c.value), c.label, c.color.name()] for c in renderer.classes()]
    return {
        "renderer": renderer.type(),
        "rows": rows,
        "crs": layer.crs().authid(),
        "nodata": layer.dataProvider().sourceNoDataValue(1),
        "extent": [layer.extent().xMinimum(), layer.extent().yMaximum()],
        "size": [layer.width(), layer.height()],
    }


application = QgsApplication([], False)
application.initQgis()
print(json.dumps({"qgis": Qgis.QGIS_VERSION, "legends": [legend(p) for p in sys.argv[1:]]}))
application.exitQgis()
