"""geoseg's place in the Processing toolbox."""

from __future__ import annotations

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from geoseg_qgis.algorithms.algorithm import ICON
from geoseg_qgis.algorithms.describe import DescribeAlgorithm
from geoseg_qgis.algorithms.evaluate import EvaluateAlgorithm
from geoseg_qgis.algorithms.parameters import RASTER_FORMATS, VECTOR_FORMATS
from geoseg_qgis.algorithms.predict import PredictAlgorithm
from geoseg_qgis.algorithms.teach import TeachAlgorithm
from geoseg_qgis.algorithms.vectorize import VectorizeAlgorithm
from geoseg_qgis.results import PartsOnCanvas
from geoseg_qgis.settings import plugin_version
from geoseg_qgis.translate import tr

ALGORITHMS = (
    PredictAlgorithm,
    VectorizeAlgorithm,
    TeachAlgorithm,
    EvaluateAlgorithm,
    DescribeAlgorithm,
)


class GeosegProvider(QgsProcessingProvider):
    """Lists the algorithms."""

    def id(self) -> str:
        """Return the first half of each algorithm's id; never renamed."""
        return "geoseg"

    def name(self) -> str:
        """Return the name in the toolbox."""
        return "geoseg"

    def longName(self) -> str:  # noqa: N802
        """Return the name where there is room."""
        return tr("geoseg: land-cover maps from imagery")

    def versionInfo(self) -> str:  # noqa: N802
        """Return the plugin's version, which QGIS writes into the log of a run."""
        return plugin_version()

    def icon(self) -> QIcon:
        """Return the plugin's icon."""
        return QIcon(str(ICON))

    def svgIconPath(self) -> str:  # noqa: N802
        """Return where the icon lies."""
        return str(ICON)

    def load(self) -> bool:
        """Take up work: lists the algorithms, and makes what they show layers with."""
        PredictAlgorithm.canvas = PartsOnCanvas()
        return super().load()

    def unload(self) -> None:
        """Leave nothing behind."""
        PredictAlgorithm.canvas = None
        super().unload()

    def loadAlgorithms(self) -> None:  # noqa: N802
        """Add each algorithm."""
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())

    def supportsNonFileBasedOutput(self) -> bool:  # noqa: N802
        """Return False: geoseg writes files."""
        return False

    def supportedOutputRasterLayerExtensions(self) -> list[str]:  # noqa: N802
        """Return what class maps can be written as; the first is the default."""
        return list(RASTER_FORMATS)

    def supportedOutputVectorLayerExtensions(self) -> list[str]:  # noqa: N802
        """Return what polygons can be written as."""
        return list(VECTOR_FORMATS)

    def defaultRasterFileExtension(self, hasGeometry: bool = True) -> str:  # noqa: ARG002, N802
        """Return what a class map is written as if nothing is said."""
        return RASTER_FORMATS[0]

    def defaultVectorFileExtension(self, hasGeometry: bool = True) -> str:  # noqa: ARG002, N802
        """Return what polygons are written as if nothing is said."""
        return VECTOR_FORMATS[0]
