"""Segment raster: ``geoseg predict``, and ``geoseg vectorize`` where polygons are wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterVectorDestination,
)

from geoseg_qgis import results
from geoseg_qgis.algorithms import parameters as p
from geoseg_qgis.algorithms.algorithm import (
    FeedbackBridge,
    GeosegAlgorithm,
    check_fit,
    check_output,
    engine_or_stop,
    hand_over,
    polygons_file,
    run_engine,
    scratch_folder,
)
from geoseg_qgis.client import Cancelled, EngineError
from geoseg_qgis.compat import POLYGON_SOURCE
from geoseg_qgis.engine import Engine
from geoseg_qgis.layers import LayerError, RasterSource, raster_source
from geoseg_qgis.models import gsd_of
from geoseg_qgis.translate import tr

# Polygons are made of the finished map, in a tenth of the time or less.
MAP_SHARE = (0.0, 90.0)
POLYGON_SHARE = (90.0, 100.0)


class PredictAlgorithm(GeosegAlgorithm):
    """Segment raster."""

    # Set by the provider: shows the finished part of a cancelled run in the project.
    canvas: results.PartsOnCanvas | None = None

    def name(self) -> str:
        """Return the id, which scripts and models keep."""
        return "segment"

    def displayName(self) -> str:  # noqa: N802
        """Return the name in the toolbox."""
        return tr("Segment raster")

    def tags(self) -> list[str]:
        """Return further words to find it by."""
        return tr(
            "segmentation,land cover,classify,deep learning,predict,inference,AI,neural network"
        ).split(",")

    def shortDescription(self) -> str:  # noqa: N802
        """Return one line for tool tips."""
        return tr("Makes a land-cover map of an image with a trained model.")

    def shortHelpString(self) -> str:  # noqa: N802
        """Return the text beside the dialog."""
        return tr(
            "Makes a class map of a raster with a trained model, in geoseg's own process: QGIS "
            "stays usable.\n\nThe model says which bands and which ground resolution it needs; a "
            "raster that does not fit is refused with the reason. Layers that are not files (web "
            "maps, rasters in memory or in GeoPackages) are exported for the extent.\n\nCancel "
            "keeps what is finished. Run it again with the same output to go on."
        )

    def initAlgorithm(  # noqa: N802
        self,
        configuration: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """Declare inputs and outputs."""
        show = QgsProcessingParameterBoolean(
            "SHOW_PART", tr("When cancelled, add the finished part to the project"), True
        )
        confidence = QgsProcessingParameterRasterDestination(
            "CONFIDENCE", tr("Confidence"), optional=True, createByDefault=False
        )
        polygons = QgsProcessingParameterVectorDestination(
            "POLYGONS", tr("Polygons"), POLYGON_SOURCE, optional=True, createByDefault=False
        )
        for parameter in (
            QgsProcessingParameterRasterLayer("INPUT", tr("Image")),
            p.model(),
            *p.where(),
            p.device(),
            p.advanced(p.bands()),
            *p.how(),
            p.advanced(p.resume()),
            p.advanced(show),
            QgsProcessingParameterRasterDestination("OUTPUT", tr("Class map")),
            confidence,
            polygons,
        ):
            self.addParameter(parameter)

    def checkParameterValues(  # noqa: N802
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> tuple[bool, str]:
        """Refuse before the run what can be seen from here."""
        ok, reason = super().checkParameterValues(parameters, context)
        if ok:
            reason = p.gsd_refusal(p.Given(self, parameters, context).text("GSD"))
        return ok and not reason, reason

    def prepareAlgorithm(  # noqa: N802
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,  # noqa: ARG002
    ) -> bool:
        """Look at the layer, in the thread that it belongs to."""
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        given = p.Given(self, parameters, context)
        self._extent = given.extent(layer)
        if self._extent is not None and not self._extent.intersects(layer.extent()):
            raise QgsProcessingException(
                tr("The extent lies outside of the layer {!r}. Choose another.").format(
                    layer.name()
                )
            )
        try:
            self._source = raster_source(layer)
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
        outputs = self._outputs(given, feedback)
        made: list[str] = []
        try:
            with scratch_folder() as folder:
                self._segment(given, engine, outputs, folder, feedback)
            made += ["OUTPUT", "CONFIDENCE"]
            if "POLYGONS" in outputs:
                self._vectorize(given, engine, outputs, feedback)
                made.append("POLYGONS")
        except Cancelled:
            self._keep_part(outputs["OUTPUT"], given.flag("SHOW_PART"), feedback)
            return {}
        finally:
            # QGIS would load files of an earlier run, or miss what is not there.
            results.forget_results(context, [f for n, f in outputs.items() if n not in made])
        return dict(outputs)

    def _outputs(self, given: p.Given, feedback: QgsProcessingFeedback) -> dict[str, str]:
        """Return the files that are made, under names that no layer shows."""
        formats = dict.fromkeys(("OUTPUT", "CONFIDENCE"), p.RASTER_FORMATS)
        formats["POLYGONS"] = p.VECTOR_FORMATS
        outputs = {}
        for name, suffixes in formats.items():
            path = self.parameterAsOutputLayer(given.parameters, name, given.context)
            if not path:
                continue
            check_output(path, suffixes)
            outputs[name] = results.claim_output(
                path, given.context, feedback, resume=given.flag("RESUME") and name == "OUTPUT"
            )
        return outputs

    def _segment(
        self,
        given: p.Given,
        engine: Engine,
        outputs: dict[str, str],
        folder: Path,
        feedback: QgsProcessingFeedback,
    ) -> None:
        model, bands, out = given.text("MODEL"), given.bands(), outputs["OUTPUT"]
        raster = self._raster(given, engine, folder, feedback)
        if given.text("GSD") == "auto":
            check_fit(engine, raster, model, bands, feedback)
        options = [
            *bands,
            *(p.bounds_option(self._extent) if self._source.path is not None else []),
            *([f"--aoi={polygons_file(given, 'AOI', folder)}"] if given.has("AOI") else []),
            *given.how(),
            *self._file_options(given, outputs),
        ]
        share = MAP_SHARE if "POLYGONS" in outputs else (0.0, 100.0)
        feedback.setProgressText(tr("Segmenting…"))
        run_engine(
            "predict", [*options, model, raster, out], FeedbackBridge(feedback, share), engine
        )
        results.style_when_loaded(given.context, out, out)

    def _raster(
        self, given: p.Given, engine: Engine, folder: Path, feedback: QgsProcessingFeedback
    ) -> str:
        source: RasterSource = self._source
        gsd_m = p.gsd_metres(given.text("GSD"))
        if source.path is None and not source.is_sized and gsd_m is None:
            try:
                gsd_m = gsd_of(engine, given.text("MODEL"))
            except (EngineError, ValueError) as error:
                raise QgsProcessingException(str(error)) from error
        return hand_over(source, self._extent, gsd_m, folder, feedback)

    def _file_options(self, given: p.Given, outputs: dict[str, str]) -> list[str]:
        """Return what is to be done with files that are there already."""
        out = outputs["OUTPUT"]
        options = [f"--confidence={outputs['CONFIDENCE']}"] if "CONFIDENCE" in outputs else []
        parts = results.parts_of(out)
        if parts.exists() and self.canvas is not None:
            self.canvas.forget_part.emit(str(parts))
        if given.flag("RESUME") and parts.exists():
            return [*options, "--resume"]
        # QGIS has asked the user before it let him choose a file that exists.
        there = [path for path in (out, str(parts), outputs.get("CONFIDENCE", "")) if path]
        return [*options, "--overwrite"] if any(Path(path).exists() for path in there) else options

    def _vectorize(
        self,
        given: p.Given,
        engine: Engine,
        outputs: dict[str, str],
        feedback: QgsProcessingFeedback,
    ) -> None:
        feedback.setProgressText(tr("Making polygons…"))
        class_map, path = outputs["OUTPUT"], outputs["POLYGONS"]
        options = [f"--confidence={outputs['CONFIDENCE']}"] if "CONFIDENCE" in outputs else []
        if Path(path).exists():
            options.append("--overwrite")
        bridge = FeedbackBridge(feedback, POLYGON_SHARE)
        run_engine("vectorize", [*options, class_map, path], bridge, engine)
        results.style_when_loaded(given.context, path, class_map)

    def _keep_part(self, out: str, show: bool, feedback: QgsProcessingFeedback) -> None:
        """After Cancel: say where the finished part lies, and show it if that is wanted."""
        parts = results.parts_of(out)
        if not parts.exists():
            return
        if not show and results.is_temporary(out):
            results.remove_parts(out)
            return
        if not results.has_finished(out):
            feedback.pushInfo(tr("No part of the map was finished yet."))
            return
        feedback.pushInfo(
            tr(
                "The finished part is kept in {!r}. To go on, run it again with the output {!r} "
                "and Resume ticked."
            ).format(str(parts), out)
        )
        if show and self.canvas is not None:
            vrt = parts / results.PARTS_MAP
            self.canvas.show_part.emit(str(vrt), results.unfinished_name(out))
