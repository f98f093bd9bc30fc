"""Describe model: ``geoseg describe``, and whether a raster fits."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputBoolean,
    QgsProcessingOutputString,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterLayer,
)

from geoseg_qgis.algorithms import parameters as p
from geoseg_qgis.algorithms.algorithm import (
    GeosegAlgorithm,
    ask,
    check_fit,
    check_output,
    engine_or_stop,
)
from geoseg_qgis.layers import LayerError, file_only
from geoseg_qgis.translate import tr


class DescribeAlgorithm(GeosegAlgorithm):
    """Describe model."""

    def name(self) -> str:
        """Return the id, which scripts and models keep."""
        return "describe"

    def displayName(self) -> str:  # noqa: N802
        """Return the name in the toolbox."""
        return tr("Describe model")

    def tags(self) -> list[str]:
        """Return further words to find it by."""
        return tr("model,classes,bands,information,licence,fit").split(",")

    def shortDescription(self) -> str:  # noqa: N802
        """Return one line for tool tips."""
        return tr("Says what a model eats and says, and whether it can take a raster.")

    def shortHelpString(self) -> str:  # noqa: N802
        """Return the text beside the dialog."""
        return tr(
            "Writes a page on a model: its bands, ground resolution, classes, data, licence and "
            "scores. With a raster, also whether the model can take it, and if not, why."
        )

    def initAlgorithm(  # noqa: N802
        self,
        configuration: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """Declare inputs and outputs."""
        page = QgsProcessingParameterFileDestination(
            "OUTPUT", tr("Description"), tr("HTML files (*.html)"), optional=True
        )
        for parameter in (
            p.model(),
            QgsProcessingParameterRasterLayer(
                "INPUT", tr("Raster that the model is to take"), optional=True
            ),
            p.advanced(p.bands()),
            page,
        ):
            self.addParameter(parameter)
        for output in (
            QgsProcessingOutputString("RECORD", tr("Record of the model, JSON")),
            QgsProcessingOutputBoolean("FITS", tr("The model can take the raster")),
            QgsProcessingOutputString("REASON", tr("Why it cannot")),
        ):
            self.addOutput(output)

    def prepareAlgorithm(  # noqa: N802
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,  # noqa: ARG002
    ) -> bool:
        """Look at the layer, in the thread that it belongs to."""
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        try:
            self._raster = file_only(layer, tr("Describe model")) if layer else ""
        except LayerError as error:
            raise QgsProcessingException(str(error)) from error
        return True

    def processAlgorithm(  # noqa: N802
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        """Ask geoseg; called in a worker thread."""
        given = p.Given(self, parameters, context)
        engine = engine_or_stop()
        model = given.text("MODEL")
        record = ask(engine, "describe", [model, "--json"])
        for heading, text in lines_of(record):
            feedback.pushInfo(f"{heading}: {text}" if heading else text)
        found: dict[str, Any] = {"RECORD": json.dumps(record, ensure_ascii=False)}
        if self._raster:
            found["FITS"], found["REASON"] = True, ""
            try:
                check_fit(engine, self._raster, model, given.bands(), feedback)
            except QgsProcessingException as refusal:
                found["FITS"], found["REASON"] = False, str(refusal)
            feedback.pushInfo(
                tr("The model can take the raster.") if found["FITS"] else found["REASON"]
            )
        out = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        if out:
            check_output(out, ("html",))
            Path(out).write_text(page_of(record, found.get("REASON", "")), encoding="utf-8")
            found["OUTPUT"] = out
        return found


def lines_of(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return headings and texts of a model's record, those that it has."""
    gsd_m = record.get("gsd_m")
    size = tr("{:g} to {:g} m per pixel").format(*gsd_m) if gsd_m else tr("unknown: not resampled")
    bands = ", ".join(str(band.get("name")) for band in record.get("bands", ()))
    pairs = [
        (tr("Model"), record.get("name")),
        (tr("Warning"), record.get("warning")),
        (tr("Description"), record.get("description")),
        (tr("Bands"), f"{bands} ({record.get('dtype', '')})"),
        (tr("Ground resolution"), size),
        (tr("Classes"), ", ".join(str(c.get("name")) for c in record.get("classes", ()))),
        (tr("Network"), (record.get("architecture") or {}).get("name")),
        (tr("Data"), record.get("data")),
        (tr("Licence"), record.get("licence")),
        (tr("Recipe"), record.get("recipe")),
    ]
    scores = record.get("metrics") or {}
    pairs += [(str(name), f"{value:.4g}") for name, value in scores.items() if _is_number(value)]
    return [(heading, str(text)) for heading, text in pairs if text]


def page_of(record: dict[str, Any], refusal: str) -> str:
    """Return a model's record as a page."""
    rows = "".join(
        f"<tr><th align='left'>{html.escape(heading)}</th><td>{html.escape(text)}</td></tr>"
        for heading, text in lines_of(record)
    )
    colours = "".join(
        f"<tr><td bgcolor='{html.escape(str(c.get('color')))}'>&nbsp;&nbsp;&nbsp;</td>"
        f"<td>{html.escape(str(c.get('id')))}</td><td>{html.escape(str(c.get('name')))}</td></tr>"
        for c in record.get("classes", ())
    )
    title = html.escape(str(record.get("name")))
    refused = f"<p><b>{html.escape(refusal)}</b></p>" if refusal else ""
    return (
        f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{title}</title></head><body>"
        f"<h1>{title}</h1>{refused}<table>{rows}</table><h2>{html.escape(tr('Classes'))}</h2>"
        f"<table>{colours}</table></body></html>\n"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
