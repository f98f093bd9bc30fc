"""Vectorise class map: ``geoseg vectorize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterCrs,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from geoseg_qgis import results
from geoseg_qgis.algorithms import parameters as p
from geoseg_qgis.algorithms.algorithm import (
    FeedbackBridge,
    GeosegAlgorithm,
    check_output,
    engine_or_stop,
    run_engine,
)
from geoseg_qgis.client import Cancelled
from geoseg_qgis.compat import POLYGON_SOURCE
from geoseg_qgis.layers import LayerError, file_only
from geoseg_qgis.translate import tr

CONNECTIVITIES = ("4", "8")


class VectorizeAlgorithm(GeosegAlgorithm):
    """Vectorise class map."""

    def name(self) -> str:
        """Return the id, which scripts and models keep."""
        return "vectorize"

    def displayName(self) -> str:  # noqa: N802
        """Return the name in the toolbox."""
        return tr("Vectorise class map")

    def tags(self) -> list[str]:
        """Return further words to find it by."""
        return tr("polygonize,vectorize,polygons,outline,simplify,buildings,square").split(",")

    def shortDescription(self) -> str:  # noqa: N802
        """Return one line for tool tips."""
        return tr("Makes polygons of a class map; neighbours share their borders.")

    def shortHelpString(self) -> str:  # noqa: N802
        """Return the text beside the dialog."""
        return tr(
            "Makes polygons of a class map, without seams and with borders that neighbours share."
            "\n\nWithout further options the polygons follow the pixels exactly. Lengths are "
            "metres and areas square metres of ground, whatever the CRS.\n\nFields: class_id, "
            "class_name, area_m2, perim_m, confidence, on_edge."
        )

    def initAlgorithm(  # noqa: N802
        self,
        configuration: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """Declare inputs and outputs."""
        smooth = QgsProcessingParameterBoolean("SMOOTH", tr("Round the corners"), False)
        crs = QgsProcessingParameterCrs(
            "DST_CRS", tr("CRS of the polygons (default: the map's)"), optional=True
        )
        confidence = QgsProcessingParameterRasterLayer(
            "CONFIDENCE", tr("Confidence of the map"), optional=True
        )
        connectivity = p.choice(
            "CONNECTIVITY", tr("Neighbours of a pixel"), CONNECTIVITIES, CONNECTIVITIES[0]
        )
        for parameter in (
            QgsProcessingParameterRasterLayer("INPUT", tr("Class map")),
            _text("CLASSES", tr("Only these classes (names or numbers, with commas)")),
            p.real("MIN_AREA", tr("Smallest area (m²): smaller specks become what surrounds them")),
            p.real("FILL_HOLES", tr("Holes filled up to (m²)")),
            p.real("SIMPLIFY", tr("Simplify by at most (m)")),
            smooth,
            _text("SQUARE_CORNERS", tr("Square the corners of these classes")),
            p.advanced(p.real("SMOOTH_BY", tr("Round by at most (m; default: one pixel)"))),
            p.advanced(connectivity),
            p.advanced(confidence),
            p.advanced(crs),
            QgsProcessingParameterVectorDestination("OUTPUT", tr("Polygons"), POLYGON_SOURCE),
        ):
            self.addParameter(parameter)

    def prepareAlgorithm(  # noqa: N802
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,  # noqa: ARG002
    ) -> bool:
        """Look at the layers, in the thread that they belong to."""
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        confidence = self.parameterAsRasterLayer(parameters, "CONFIDENCE", context)
        try:
            self._class_map = file_only(layer, tr("Vectorise class map"))
            self._confidence = (
                file_only(confidence, tr("The confidence")) if confidence is not None else ""
            )
        except LayerError as error:
            raise QgsProcessingException(str(error)) from error
        return True

    def processAlgorithm(  # noqa: N802
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Run geoseg; called in a worker thread."""
        given = p.Given(self, parameters, context)
        engine = engine_or_stop()
        asked = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        check_output(asked, p.VECTOR_FORMATS)
        out = results.claim_output(asked, context, feedback)
        options = [*self._options(given), *(["--overwrite"] if Path(out).exists() else [])]
        bridge = FeedbackBridge(feedback)
        try:
            run_engine("vectorize", [*options, self._class_map, out], bridge, engine)
        except Cancelled:
            results.forget_results(context, [out])
            return {}
        except QgsProcessingException:
            results.forget_results(context, [out])
            raise
        results.style_when_loaded(context, out, self._class_map)
        return {"OUTPUT": out}

    def _options(self, given: p.Given) -> list[str]:
        options = [
            *given.text_option("CLASSES", "--classes"),
            *given.real_option("MIN_AREA", "--min-area"),
            *given.real_option("FILL_HOLES", "--fill-holes"),
            *given.real_option("SIMPLIFY", "--simplify"),
            *given.text_option("SQUARE_CORNERS", "--square-corners"),
            *given.choice_option("CONNECTIVITY", "--connectivity"),
        ]
        if given.flag("SMOOTH"):
            options += given.real_option("SMOOTH_BY", "--smooth") or ["--smooth=auto"]
        if self._confidence:
            options.append(f"--confidence={self._confidence}")
        crs = self.parameterAsCrs(given.parameters, "DST_CRS", given.context)
        if crs.isValid():
            options.append(f"--dst-crs={crs.authid() or crs.toWkt()}")
        return options


def _text(name: str, text: str) -> QgsProcessingParameterString:
    return QgsProcessingParameterString(name, text, optional=True)
