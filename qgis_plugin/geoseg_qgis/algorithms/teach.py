"""Teach a model: ``geoseg finetune`` on a raster and a few digitised polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from geoseg_qgis import models
from geoseg_qgis.algorithms import parameters as p
from geoseg_qgis.algorithms.algorithm import (
    FeedbackBridge,
    GeosegAlgorithm,
    check_output,
    engine_or_stop,
    polygons_file,
    run_engine,
    scratch_folder,
)
from geoseg_qgis.client import Cancelled
from geoseg_qgis.compat import POLYGON_SOURCE
from geoseg_qgis.layers import LayerError, file_only
from geoseg_qgis.settings import Settings
from geoseg_qgis.translate import tr

ENCODERS = ("frozen", "low", "full")
# The folder in which a stopped run waits, beside the output.
RUN_SUFFIX = ".run"


class TeachAlgorithm(GeosegAlgorithm):
    """Teach a model."""

    def name(self) -> str:
        """Return the id, which scripts and models keep."""
        return "teach"

    def displayName(self) -> str:  # noqa: N802
        """Return the name in the toolbox."""
        return tr("Teach a model")

    def tags(self) -> list[str]:
        """Return further words to find it by."""
        return tr("train,finetune,fine-tune,learn,samples,deep learning,transfer").split(",")

    def shortDescription(self) -> str:  # noqa: N802
        """Return one line for tool tips."""
        return tr("Teaches a model from polygons that you have drawn.")

    def shortHelpString(self) -> str:  # noqa: N802
        """Return the text beside the dialog."""
        return tr(
            "Teaches a model from polygons with a class field. Ground without a polygon is "
            "ignored, unless it lies inside of polygons that mark complete ground.\n\nLabels that "
            "are all classes of the model improve those; others make a model of the labels' "
            "classes. A share of the polygons is held out, and scored before and after.\n\nThe "
            "new model is in the list of Segment raster at once. Needs the engine with the extra "
            "'train'; on a CPU expect minutes to hours."
        )

    def initAlgorithm(  # noqa: N802
        self,
        configuration: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """Declare inputs and outputs."""
        labels = QgsProcessingParameterFeatureSource(
            "LABELS", tr("Polygons with a class"), [POLYGON_SOURCE]
        )
        field = QgsProcessingParameterField(
            "CLASS_FIELD", tr("Field of the class (name or number)"), None, "LABELS"
        )
        complete = QgsProcessingParameterFeatureSource(
            "COMPLETE", tr("Ground that is labelled completely"), [POLYGON_SOURCE], optional=True
        )
        background = QgsProcessingParameterString(
            "BACKGROUND", tr("Class of the rest of the complete ground"), optional=True
        )
        folded = [
            p.bands(),
            p.choice("ENCODER", tr("How fast the encoder learns"), ENCODERS, "low"),
            p.whole("BATCH_SIZE", tr("Crops per step"), 4),
            p.whole("CROP_SIZE", tr("Side of a crop (px)"), 256, 32),
            p.real("LEARNING_RATE", tr("Learning rate"), 0.001),
            p.real("HOLD_OUT", tr("Share of the polygons that is scored, not taught"), 0.2, 0.9),
            p.whole("SEED", tr("Seed of everything random"), 0, 0),
            p.resume(),
        ]
        for parameter in (
            QgsProcessingParameterRasterLayer("INPUT", tr("Image")),
            p.model(),
            labels,
            field,
            complete,
            background,
            p.whole("STEPS", tr("Steps"), 400),
            p.device(),
            *map(p.advanced, folded),
            QgsProcessingParameterFileDestination(
                "OUTPUT", tr("New model"), tr("Models (*.safetensors)")
            ),
        ):
            self.addParameter(parameter)

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
        try:
            self._raster = file_only(layer, tr("Teach a model"))
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
        out = self.parameterAsFileOutput(parameters, "OUTPUT", context)
        check_output(out, ("safetensors",))
        try:
            with scratch_folder() as folder:
                field = given.text("CLASS_FIELD")
                labels = polygons_file(given, "LABELS", folder, [field])
                options = [f"--class-field={field}", *self._options(given, folder, out)]
                words = [*options, given.text("MODEL"), self._raster, labels, out]
                run_engine("finetune", words, FeedbackBridge(feedback), engine)
        except Cancelled:
            if Path(out + RUN_SUFFIX).exists():
                feedback.pushInfo(
                    tr("The stopped run is kept in {!r}; run it again to go on.").format(
                        out + RUN_SUFFIX
                    )
                )
            return {}
        models.add_model(out, Settings())
        feedback.pushInfo(tr("The model is in the list of Segment raster now."))
        return {"OUTPUT": out}

    def _options(self, given: p.Given, folder: Path, out: str) -> list[str]:
        options = [
            *given.bands(),
            *given.text_option("BACKGROUND", "--background"),
            *given.choice_option("ENCODER", "--encoder"),
            *given.whole_option("STEPS", "--steps"),
            *given.whole_option("BATCH_SIZE", "--batch-size"),
            *given.whole_option("CROP_SIZE", "--crop-size"),
            *given.real_option("LEARNING_RATE", "--lr"),
            *given.real_option("HOLD_OUT", "--hold-out"),
            *given.whole_option("SEED", "--seed"),
            *given.choice_option("DEVICE", "--device"),
        ]
        if given.has("COMPLETE"):
            options.append(f"--complete={polygons_file(given, 'COMPLETE', folder)}")
        stopped = Path(out + RUN_SUFFIX).exists()
        if Path(out).exists():
            return [*options, "--overwrite"]
        if stopped:
            return [*options, "--resume" if given.flag("RESUME") else "--overwrite"]
        return options
