"""Evaluate against labels: ``geoseg evaluate`` on a raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputHtml,
    QgsProcessingOutputNumber,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from geoseg_qgis import results
from geoseg_qgis.algorithms import parameters as p
from geoseg_qgis.algorithms.algorithm import (
    FeedbackBridge,
    GeosegAlgorithm,
    engine_or_stop,
    polygons_file,
    run_engine,
    scratch_folder,
)
from geoseg_qgis.client import Cancelled
from geoseg_qgis.compat import POLYGON_SOURCE
from geoseg_qgis.layers import LayerError, file_only
from geoseg_qgis.translate import tr

# Outputs of the algorithm, and the engine's names for them.
FILES = {
    "REPORT": "report",
    "CLASS_MAP": "class_map",
    "ERROR_MAP": "error_map",
    "ERRORS": "errors",
    "CELLS": "cells",
}
SCORES = {"MIOU": "miou", "ACCURACY": "accuracy"}


class EvaluateAlgorithm(GeosegAlgorithm):
    """Evaluate against labels."""

    def name(self) -> str:
        """Return the id, which scripts and models keep."""
        return "evaluate"

    def displayName(self) -> str:  # noqa: N802
        """Return the name in the toolbox."""
        return tr("Evaluate against labels")

    def tags(self) -> list[str]:
        """Return further words to find it by."""
        return tr("accuracy,confusion matrix,IoU,score,validate,error map").split(",")

    def shortDescription(self) -> str:  # noqa: N802
        """Return one line for tool tips."""
        return tr("Scores a model on a raster whose true classes are known.")

    def shortHelpString(self) -> str:  # noqa: N802
        """Return the text beside the dialog."""
        return tr(
            "Segments a raster and compares the map with labels: polygons with a class field, or "
            "a raster of class numbers or of the classes' colours. Give one of them.\n\nThe folder "
            "then holds report.html, metrics.json, the class map, a map of what was taken for "
            "what, its errors as polygons, and errors by place. "
            "Ground without a label is not scored, unless a class of the background is given.\n\n"
            "Needs the engine with the extra 'train'."
        )

    def initAlgorithm(  # noqa: N802
        self,
        configuration: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """Declare inputs and outputs."""
        labels = QgsProcessingParameterFeatureSource(
            "LABELS", tr("Labels: polygons with a class"), [POLYGON_SOURCE], optional=True
        )
        field = QgsProcessingParameterField(
            "CLASS_FIELD", tr("Field of the class (name or number)"), None, "LABELS", optional=True
        )
        label_raster = QgsProcessingParameterRasterLayer(
            "LABEL_RASTER", tr("Or labels: a raster of class numbers"), optional=True
        )
        background = QgsProcessingParameterString(
            "BACKGROUND", tr("Class of ground outside of the polygons"), optional=True
        )
        overwrite = QgsProcessingParameterBoolean(
            "OVERWRITE", tr("Replace an earlier evaluation in the folder"), False
        )
        load = QgsProcessingParameterBoolean(
            "LOAD", tr("Add the maps to the project when done"), True
        )
        for parameter in (
            QgsProcessingParameterRasterLayer("INPUT", tr("Image")),
            p.model(),
            labels,
            field,
            label_raster,
            background,
            *p.where(),
            p.device(),
            load,
            p.advanced(p.bands()),
            *p.how(),
            p.advanced(overwrite),
            QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder of the evaluation")),
        ):
            self.addParameter(parameter)
        for output in (
            QgsProcessingOutputHtml("REPORT", tr("Report")),
            QgsProcessingOutputRasterLayer("CLASS_MAP", tr("Class map")),
            QgsProcessingOutputRasterLayer("ERROR_MAP", tr("Error map")),
            QgsProcessingOutputVectorLayer("ERRORS", tr("Errors as polygons")),
            QgsProcessingOutputVectorLayer("CELLS", tr("Errors by place")),
            QgsProcessingOutputNumber("MIOU", tr("Mean IoU")),
            QgsProcessingOutputNumber("ACCURACY", tr("Overall accuracy")),
        ):
            self.addOutput(output)

    def checkParameterValues(  # noqa: N802
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> tuple[bool, str]:
        """Refuse before the run what can be seen from here."""
        ok, reason = super().checkParameterValues(parameters, context)
        given = p.Given(self, parameters, context)
        if ok:
            reason = p.gsd_refusal(given.text("GSD"))
        if ok and not reason and given.has("LABELS") == given.has("LABEL_RASTER"):
            reason = tr("Labels were expected: polygons, or a raster. Give one of the two.")
        return ok and not reason, reason

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
        labels = self.parameterAsRasterLayer(parameters, "LABEL_RASTER", context)
        self._extent = p.Given(self, parameters, context).extent(layer)
        try:
            self._raster = file_only(layer, tr("Evaluate against labels"))
            self._labels = file_only(labels, tr("Evaluate against labels")) if labels else ""
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
        out = self.parameterAsString(parameters, "OUTPUT", context)
        try:
            with scratch_folder() as folder:
                words = [*self._options(given, folder, out), given.text("MODEL"), self._raster]
                record = run_engine("evaluate", words, FeedbackBridge(feedback), engine)
        except Cancelled:
            return {}
        return self._results(record, out, given)

    def _options(self, given: p.Given, folder: Path, out: str) -> list[str]:
        field = given.text("CLASS_FIELD") if given.has("CLASS_FIELD") else ""
        labels = self._labels or polygons_file(given, "LABELS", folder, [field] if field else [])
        options = [
            f"--labels={labels}",
            f"--out={out}",
            *([f"--class-field={field}"] if field and not self._labels else []),
            *given.text_option("BACKGROUND", "--background"),
            *given.bands(),
            *p.bounds_option(self._extent),
            *given.how(),
        ]
        if given.has("AOI"):
            options.append(f"--aoi={polygons_file(given, 'AOI', folder)}")
        return [*options, "--overwrite"] if given.flag("OVERWRITE") else options

    def _results(self, record: dict[str, Any], out: str, given: p.Given) -> dict[str, Any]:
        made = record.get("outputs", {})
        found: dict[str, Any] = {"OUTPUT": out}
        found.update({name: made[kind] for name, kind in FILES.items() if kind in made})
        scores = record.get("scores", {})
        found.update({name: scores[key] for name, key in SCORES.items() if key in scores})
        if given.flag("LOAD"):
            for name in ("CLASS_MAP", "ERROR_MAP"):
                if name in found:
                    title = self.outputDefinition(name).description()
                    results.load_later(given.context, found[name], title, found[name])
        return found
