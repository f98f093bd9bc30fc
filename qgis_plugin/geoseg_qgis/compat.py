"""Enums whose place differs between QGIS 3.22 (Qt 5) and 4.x (Qt 6), under one name each.

QGIS 3.36 moved most enums of Processing into ``Qgis``; 4.0 drops some of the old names. Each line
lists the new place first.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from qgis import core


def _first(*places: str) -> Any:
    """Return what the first place that this QGIS has holds."""
    for place in places:
        try:
            return reduce(getattr, place.split("."), core)
        except AttributeError:
            continue
    raise ImportError(f"expected one of {', '.join(places)} in qgis.core; QGIS has none of them")


POLYGON_SOURCE = _first(
    "Qgis.ProcessingSourceType.VectorPolygon", "QgsProcessing.SourceType.TypeVectorPolygon"
)
INTEGER = _first(
    "Qgis.ProcessingNumberParameterType.Integer", "QgsProcessingParameterNumber.Type.Integer"
)
DOUBLE = _first(
    "Qgis.ProcessingNumberParameterType.Double", "QgsProcessingParameterNumber.Type.Double"
)
ADVANCED = _first(
    "Qgis.ProcessingParameterFlag.Advanced", "QgsProcessingParameterDefinition.Flag.FlagAdvanced"
)
OPTIONAL = _first(
    "Qgis.ProcessingParameterFlag.Optional", "QgsProcessingParameterDefinition.Flag.FlagOptional"
)
HAS_SIZE = _first("Qgis.RasterInterfaceCapability.Size", "QgsRasterInterface.Capability.Size")
WARNING = _first("Qgis.MessageLevel.Warning")
WRITTEN = _first("QgsVectorFileWriter.WriterError.NoError", "QgsVectorFileWriter.NoError")
RASTER_WRITTEN = _first(
    "Qgis.RasterFileWriterResult.Success",
    "QgsRasterFileWriter.WriterError.NoError",
    "QgsRasterFileWriter.NoError",
)
BYTE = _first("Qgis.DataType.Byte", "Qgis.Byte")
