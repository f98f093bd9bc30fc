"""Which file stands behind a layer, since geoseg's process reads files and not layers.

A raster file is handed over as it is. Anything else (a web map, a raster in memory or in a
GeoPackage, a virtual raster without a file, a layer whose CRS was set in QGIS) is exported for
the extent, see ``exports``; what cannot be exported is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsFeatureSource,
    QgsFields,
    QgsProviderRegistry,
    QgsRectangle,
    QgsVectorFileWriter,
)

from geoseg_qgis.compat import HAS_SIZE, WRITTEN
from geoseg_qgis.translate import tr

if TYPE_CHECKING:
    from qgis.core import QgsMapLayer, QgsRasterDataProvider, QgsRasterLayer

# Containers in which GDAL's name of a raster is more than a path.
CONTAINERS = (".gpkg", ".sqlite", ".mbtiles")
# GDAL's names that another process can open too.
SHARED_PREFIXES = ("/vsicurl", "/vsizip/", "/vsitar/", "/vsigzip/", "/vsis3", "/vsigs", "/vsiaz")


class LayerError(Exception):
    """A layer cannot be used; ``str(error)`` says which, why, and what to do."""


@dataclass
class RasterSource:
    """What stands behind a raster layer.

    Args:
        name: of the layer.
        path: what geoseg opens, or None where the layer has to be exported.
        reason: why it has to be.
        crs: of the layer, as it is set in QGIS.
        extent: of the layer, in its CRS.
        provider: a copy that a worker thread may read; only where there is no path.
        is_sized: the provider knows its pixels; a web map does not.
    """

    name: str
    path: str | None
    reason: str
    crs: QgsCoordinateReferenceSystem
    extent: QgsRectangle
    provider: QgsRasterDataProvider | None = None
    is_sized: bool = True


def raster_source(layer: QgsRasterLayer) -> RasterSource:
    """Return what stands behind a layer. Call it in the thread that the layer lives in.

    Raises:
        LayerError: the layer is broken.
    """
    if not layer.isValid() or layer.dataProvider() is None:
        raise LayerError(
            tr("The layer {!r} cannot be read. Repair its data source, or choose another.").format(
                layer.name()
            )
        )
    path = file_of_raster(layer)
    reason = tr("it is not a file") if path is None else _why_not_the_file(layer)
    source = RasterSource(layer.name(), path, "", layer.crs(), layer.extent())
    if reason:
        source.path, source.reason = None, reason
        source.provider = layer.dataProvider().clone()
        source.is_sized = bool(source.provider.capabilities() & HAS_SIZE)
    return source


def file_of_raster(layer: QgsRasterLayer) -> str | None:
    """Return the name by which another process opens the raster of a layer, or None."""
    if layer.providerType() != "gdal" or layer.source().lstrip().startswith("<"):
        return None
    name = layer.source().split("|")[0]
    if name.startswith(SHARED_PREFIXES):
        return name
    uri = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    path = Path(str(uri.get("path") or ""))
    if uri.get("layerName") or path.suffix.lower() in CONTAINERS or not path.is_file():
        return None
    return str(path)


def file_only(layer: QgsRasterLayer, purpose: str) -> str:
    """Return the file of a layer that is not exported.

    Raises:
        LayerError: the layer is no file, or its CRS is not that of the file.
    """
    source = raster_source(layer)
    if source.path is None:
        raise LayerError(
            tr(
                "{} needs a raster file; of the layer {!r}, {}. Save it as a GeoTIFF (Layer ▸ "
                "Save As…) and use that."
            ).format(purpose, source.name, source.reason)
        )
    return source.path


def file_of_layer(layer: QgsMapLayer) -> str:
    """Return the file that a raster or vector layer shows, or an empty text."""
    provider = layer.providerType() if hasattr(layer, "providerType") else ""
    if provider not in {"gdal", "ogr"}:
        return ""
    uri = QgsProviderRegistry.instance().decodeUri(provider, layer.source())
    return str(uri.get("path") or "")


def write_polygons(
    source: QgsFeatureSource,
    path: Path,
    context: QgsCoordinateTransformContext,
    fields: Sequence[str] = (),
) -> Path:
    """Write the features of a layer, or those that are selected, to a GeoPackage and return it.

    Raises:
        LayerError: no features, no CRS, or they cannot be written.
    """
    name = source.sourceName()
    if not source.sourceCrs().isValid():
        raise LayerError(
            tr("The layer {!r} has no CRS. Set it in the layer's properties.").format(name)
        )
    kept = _named_fields(source.fields(), fields, name)
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = "polygons"
    # The file's own number must not be named like a field of the user.
    options.layerOptions = ["FID=geoseg_fid"]
    writer = QgsVectorFileWriter.create(
        str(path), kept, source.wkbType(), source.sourceCrs(), context, options
    )
    count = 0
    for feature in source.getFeatures():
        copy = QgsFeature(kept)
        copy.setGeometry(feature.geometry())
        copy.setAttributes([feature[field.name()] for field in kept])
        count += writer.addFeature(copy)
    failed, reason = writer.hasError() != WRITTEN, writer.errorMessage()
    del writer  # it is written by now
    if failed or not count:
        raise LayerError(
            tr("Polygons were expected in the layer {!r}; {}.").format(
                name, reason or tr("it has none")
            )
        )
    return path


def _named_fields(available: QgsFields, names: Sequence[str], layer: str) -> QgsFields:
    kept = QgsFields()
    for name in names:
        index = available.lookupField(name)
        if index < 0:
            raise LayerError(
                tr("The layer {!r} has no field {!r}. Choose one of: {}.").format(
                    layer, name, ", ".join(available.names()) or "-"
                )
            )
        kept.append(available.at(index))
    return kept


def _why_not_the_file(layer: QgsRasterLayer) -> str:
    """Return why the file alone would not be what QGIS shows, or an empty text."""
    if layer.crs().isValid() and layer.crs() != layer.dataProvider().crs():
        return tr("its CRS was set in QGIS and is not in its file")
    return ""
