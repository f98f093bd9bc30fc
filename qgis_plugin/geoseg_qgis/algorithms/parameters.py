"""The parameters that several algorithms have, and the options of geoseg that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsRasterLayer,
    QgsRectangle,
)

from geoseg_qgis.compat import ADVANCED, DOUBLE, INTEGER, POLYGON_SOURCE
from geoseg_qgis.translate import tr

MODEL_WIDGET = "geoseg_qgis.algorithms.model_widget.ModelWidgetWrapper"
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
VIEWS = ("none", "flips", "d4")
# Outputs that geoseg writes and QGIS opens; parquet is left to the command line.
RASTER_FORMATS = ("tif", "tiff")
VECTOR_FORMATS = ("gpkg", "shp", "geojson", "fgb")


def advanced(parameter: QgsProcessingParameterDefinition) -> QgsProcessingParameterDefinition:
    """Fold a parameter away."""
    parameter.setFlags(parameter.flags() | ADVANCED)
    return parameter


def model(name: str = "MODEL", *, optional: bool = False) -> QgsProcessingParameterString:
    """Return the parameter of a model: a list in dialogs, a name or path everywhere else."""
    parameter = QgsProcessingParameterString(name, tr("Model"), optional=optional)
    parameter.setHelp(tr("A model that comes with geoseg, or a .safetensors or .onnx file"))
    parameter.setMetadata({"widget_wrapper": {"class": MODEL_WIDGET}})
    return parameter


def choice(
    name: str, text: str, options: Sequence[str], default: str
) -> QgsProcessingParameterEnum:
    """Return a choice between words of the command line, which mean the same in a script."""
    return QgsProcessingParameterEnum(
        name, text, options=list(options), defaultValue=default, usesStaticStrings=True
    )


def whole(
    name: str, text: str, default: int | None = None, least: int = 1
) -> QgsProcessingParameterNumber:
    """Return a whole number; without a default it may stay empty."""
    return QgsProcessingParameterNumber(
        name, text, INTEGER, default, default is None, minValue=least
    )


def real(
    name: str, text: str, default: float | None = None, most: float | None = None
) -> QgsProcessingParameterNumber:
    """Return a number from 0; without a default it may stay empty."""
    limit = {} if most is None else {"maxValue": most}
    return QgsProcessingParameterNumber(
        name, text, DOUBLE, default, default is None, minValue=0.0, **limit
    )


def bands() -> QgsProcessingParameterBand:
    """Return the parameter of the bands, which keeps their order."""
    return QgsProcessingParameterBand(
        "BANDS",
        tr("Bands, in the model's order (default: all but alpha)"),
        parentLayerParameterName="INPUT",
        optional=True,
        allowMultiple=True,
    )


def device() -> QgsProcessingParameterEnum:
    """Return the parameter of the device."""
    return choice("DEVICE", tr("Device"), DEVICES, "auto")


def where() -> list[QgsProcessingParameterDefinition]:
    """Return the parameters of the ground that is looked at."""
    aoi = QgsProcessingParameterFeatureSource(
        "AOI", tr("Only inside these polygons"), [POLYGON_SOURCE], optional=True
    )
    return [QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True), aoi]


def how() -> list[QgsProcessingParameterDefinition]:
    """Return the folded parameters of a prediction."""
    gsd = QgsProcessingParameterString(
        "GSD", tr("Ground resolution: auto, native, or metres per pixel"), "auto"
    )
    views = choice("TTA", tr("Average over views (4 or 8 times slower)"), VIEWS, "none")
    memory = real("MAX_MEMORY", tr("Memory bound (GB)"), 4.0)
    listed = [
        gsd,
        whole("OVERLAP", tr("Overlap of tiles (px; default: the model's)"), least=0),
        whole("TILE_SIZE", tr("Side of a tile (px; default: the model's)")),
        whole("BATCH_SIZE", tr("Tiles at once (default: by the device)")),
        views,
        choice("PRECISION", tr("Precision"), PRECISIONS, "auto"),
        memory,
    ]
    return [advanced(parameter) for parameter in listed]


def resume() -> QgsProcessingParameterBoolean:
    """Return the parameter that takes up a cancelled run."""
    return QgsProcessingParameterBoolean(
        "RESUME", tr("Resume: go on with a cancelled run of the same output"), True
    )


class Given:
    """Turns the values of a run into options of the command line; what is empty is left out."""

    def __init__(
        self,
        algorithm: QgsProcessingAlgorithm,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
    ) -> None:
        self.algorithm = algorithm
        self.parameters = parameters
        self.context = context

    def has(self, name: str) -> bool:
        """Return whether a parameter has a value, its own or a default."""
        definition = self.algorithm.parameterDefinition(name)
        value = self.parameters.get(name)
        if value is None:
            value = definition.defaultValue()
        return value not in (None, "", [])

    def text(self, name: str) -> str:
        """Return a text without blanks around it."""
        value = self.algorithm.parameterAsString(self.parameters, name, self.context)
        return str(value or "").strip()

    def flag(self, name: str) -> bool:
        """Return whether a box is ticked."""
        return bool(self.algorithm.parameterAsBoolean(self.parameters, name, self.context))

    def text_option(self, name: str, option: str) -> list[str]:
        """Return the option of a text, if there is one."""
        return [f"{option}={self.text(name)}"] if self.has(name) and self.text(name) else []

    def choice_option(self, name: str, option: str) -> list[str]:
        """Return the option of a choice."""
        word = self.algorithm.parameterAsEnumString(self.parameters, name, self.context)
        return [f"{option}={word}"]

    def whole_option(self, name: str, option: str) -> list[str]:
        """Return the option of a whole number, if there is one."""
        if not self.has(name):
            return []
        return [f"{option}={self.algorithm.parameterAsInt(self.parameters, name, self.context)}"]

    def real_option(self, name: str, option: str, unit: str = "") -> list[str]:
        """Return the option of a number, if there is one."""
        if not self.has(name):
            return []
        value = self.algorithm.parameterAsDouble(self.parameters, name, self.context)
        return [f"{option}={value!r}{unit}"]

    def bands(self) -> list[str]:
        """Return ``--bands`` if bands were chosen."""
        if not self.has("BANDS"):
            return []
        chosen = self.algorithm.parameterAsInts(self.parameters, "BANDS", self.context)
        return [f"--bands={','.join(map(str, chosen))}"] if chosen else []

    def how(self) -> list[str]:
        """Return the options of `how` and the device."""
        return [
            *self.text_option("GSD", "--gsd"),
            *self.whole_option("OVERLAP", "--overlap"),
            *self.whole_option("TILE_SIZE", "--tile-size"),
            *self.whole_option("BATCH_SIZE", "--batch-size"),
            *self.choice_option("TTA", "--tta"),
            *self.choice_option("PRECISION", "--precision"),
            *self.real_option("MAX_MEMORY", "--max-memory", "GB"),
            *self.choice_option("DEVICE", "--device"),
        ]

    def extent(self, layer: QgsRasterLayer) -> QgsRectangle | None:
        """Return the extent in the layer's CRS, or None for all of it."""
        if not self.has("EXTENT"):
            return None
        box = self.algorithm.parameterAsExtent(self.parameters, "EXTENT", self.context, layer.crs())
        if box.isNull() or box.contains(layer.extent()):
            return None
        return box


def bounds_option(box: QgsRectangle | None) -> list[str]:
    """Return ``--bounds`` of a box in the raster's CRS."""
    if box is None:
        return []
    corners = (box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum())
    return [f"--bounds={','.join(map(repr, corners))}"]


def gsd_refusal(text: str) -> str:
    """Return what is wrong with a ground resolution, or an empty text."""
    if text in {"auto", "native"}:
        return ""
    if gsd_metres(text) is not None:
        return ""
    return tr(
        "The ground resolution was expected to be auto, native or metres per pixel; got {!r}."
    ).format(text)


def gsd_metres(text: str) -> float | None:
    """Return a ground resolution given in metres, or None for a word or nonsense."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
