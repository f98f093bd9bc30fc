"""A temporary GeoTIFF of a layer that is not a file, for an extent."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from qgis.core import (
    QgsCoordinateTransformContext,
    QgsDistanceArea,
    QgsPointXY,
    QgsRasterBlockFeedback,
    QgsRasterFileWriter,
    QgsRasterLayer,
    QgsRasterPipe,
    QgsRectangle,
)

from geoseg_qgis.client import Cancelled
from geoseg_qgis.compat import BYTE, RASTER_WRITTEN
from geoseg_qgis.layers import LayerError, RasterSource
from geoseg_qgis.translate import tr

if TYPE_CHECKING:
    from qgis.core import QgsCoordinateReferenceSystem, QgsProcessingFeedback

# An export is a copy: beyond this a file of one's own is the better way.
LARGEST_PX = 400_000_000
ELLIPSOID = "EPSG:7030"
VRT_COLOURS = ("Red", "Green", "Blue", "Alpha")


def export_raster(
    source: RasterSource,
    extent: QgsRectangle | None,
    gsd_m: float | None,
    folder: Path,
    feedback: QgsProcessingFeedback,
) -> str:
    """Write what the layer shows in an extent to ``folder`` and return the file's path.

    Args:
        source: of a layer without a file.
        extent: in the layer's CRS; None is the whole layer.
        gsd_m: metres per pixel for a web map, which has no pixels of its own.
        folder: a temporary one.
        feedback: may cancel.

    Raises:
        LayerError: no extent, no resolution, too large, or the source fails.
        Cancelled: the user stopped it.
    """
    provider = source.provider
    if provider is None:
        raise LayerError(tr("The layer {!r} cannot be exported.").format(source.name))
    box, width_px, height_px = plan_export(source, extent, gsd_m)
    feedback.pushInfo(
        tr("Exporting {} x {} px of the layer {!r} to a temporary file, since {}.").format(
            width_px, height_px, source.name, source.reason
        )
    )
    pipe = QgsRasterPipe()
    pipe.set(provider.clone())
    path = folder / "layer.tif"
    writer = QgsRasterFileWriter(str(path))
    writer.setOutputFormat("GTiff")
    writer.setCreateOptions(["COMPRESS=DEFLATE", "TILED=YES", "BIGTIFF=IF_SAFER"])
    stop = QgsRasterBlockFeedback()
    feedback.canceled.connect(stop.cancel)
    done = writer.writeRaster(
        pipe, width_px, height_px, box, source.crs, QgsCoordinateTransformContext(), stop
    )
    if feedback.isCanceled():
        raise Cancelled("cancelled")
    if done != RASTER_WRITTEN or not path.is_file():
        raise LayerError(
            tr(
                "The layer {!r} could not be exported to {!r} ({}). Save it as a GeoTIFF (Layer "
                "▸ Save As…) and use that."
            ).format(source.name, str(path), "; ".join(stop.errors()) or tr("no reason given"))
        )
    return str(_with_alpha(path, source))


def plan_export(
    source: RasterSource, extent: QgsRectangle | None, gsd_m: float | None
) -> tuple[QgsRectangle, int, int]:
    """Return the box that is exported, in the layer's CRS, and its columns and rows."""
    if not source.is_sized and extent is None:
        raise LayerError(
            tr("The layer {!r} is a web map. Give the extent that is to be segmented.").format(
                source.name
            )
        )
    wanted = source.extent if extent is None else extent.intersect(source.extent)
    if wanted.isEmpty():
        raise LayerError(tr("The extent lies outside of the layer {!r}.").format(source.name))
    plan = _native_box(source, wanted) if source.is_sized else _box_at(source, wanted, gsd_m)
    _, width_px, height_px = plan
    if width_px * height_px > LARGEST_PX:
        raise LayerError(
            tr(
                "The layer {!r} would have to be exported at {} x {} px; the most is {} million. "
                "Give a smaller extent, or save the layer as a GeoTIFF and use that."
            ).format(source.name, width_px, height_px, LARGEST_PX // 1_000_000)
        )
    return plan


def metres_per_unit(
    crs: QgsCoordinateReferenceSystem, centre: QgsPointXY, span: float
) -> tuple[float, float]:
    """Return what a unit of the CRS measures on the ground around a point, along x and y."""
    measure = QgsDistanceArea()
    measure.setSourceCrs(crs, QgsCoordinateTransformContext())
    measure.setEllipsoid(crs.ellipsoidAcronym() or ELLIPSOID)
    half = span / 2
    west, east = (QgsPointXY(centre.x() + d, centre.y()) for d in (-half, half))
    south, north = (QgsPointXY(centre.x(), centre.y() + d) for d in (-half, half))
    return measure.measureLine(west, east) / span, measure.measureLine(south, north) / span


def _native_box(source: RasterSource, wanted: QgsRectangle) -> tuple[QgsRectangle, int, int]:
    """Return whole pixels of the layer around an extent."""
    provider = source.provider
    whole = provider.extent()
    size_x = whole.width() / provider.xSize()
    size_y = whole.height() / provider.ySize()
    left = max(0, math.floor((wanted.xMinimum() - whole.xMinimum()) / size_x + 1e-6))
    top = max(0, math.floor((whole.yMaximum() - wanted.yMaximum()) / size_y + 1e-6))
    right = math.ceil((wanted.xMaximum() - whole.xMinimum()) / size_x - 1e-6)
    bottom = math.ceil((whole.yMaximum() - wanted.yMinimum()) / size_y - 1e-6)
    right, bottom = min(right, provider.xSize()), min(bottom, provider.ySize())
    box = QgsRectangle(
        whole.xMinimum() + left * size_x,
        whole.yMaximum() - bottom * size_y,
        whole.xMinimum() + right * size_x,
        whole.yMaximum() - top * size_y,
    )
    return box, right - left, bottom - top


def _box_at(
    source: RasterSource, wanted: QgsRectangle, gsd_m: float | None
) -> tuple[QgsRectangle, int, int]:
    """Return an extent in pixels of ``gsd_m`` metres of ground."""
    if gsd_m is None:
        raise LayerError(
            tr(
                "The layer {!r} is a web map, and the model does not say for which resolution it "
                "was made. Give the ground resolution in metres per pixel."
            ).format(source.name)
        )
    if not source.crs.isValid():
        raise LayerError(tr("The layer {!r} has no CRS. Set it first.").format(source.name))
    unit_x_m, unit_y_m = metres_per_unit(source.crs, wanted.center(), wanted.width() / 100)
    width_px = max(1, round(wanted.width() * unit_x_m / gsd_m))
    height_px = max(1, round(wanted.height() * unit_y_m / gsd_m))
    return wanted, width_px, height_px


def _with_alpha(path: Path, source: RasterSource) -> Path:
    """Return the file, or a VRT over it that says which band is alpha, where there is one.

    QGIS reads a mask as a further band, and a web map as red, green, blue and alpha; its writer
    does not mark that band, and without the mark it would count as one of the image.
    """
    written = QgsRasterLayer(str(path), "export")
    count = written.bandCount()
    provider = source.provider
    if source.is_sized:
        colours = [provider.colorInterpretationName(band + 1) for band in range(count)]
    else:
        colours = list(VRT_COLOURS[:count])
    types = [written.dataProvider().sourceDataType(band + 1) for band in range(count)]
    if "Alpha" not in colours or any(kind != BYTE for kind in types):
        return path
    alpha = written.dataProvider().bandStatistics(colours.index("Alpha") + 1)
    if alpha.maximumValue == 0:
        raise LayerError(
            tr(
                "The layer {!r} gave no image for this extent: every pixel is transparent. Check "
                "the connection to its server and the extent."
            ).format(source.name)
        )
    vrt = path.with_suffix(".vrt")
    vrt.write_text(_vrt(written, path.name, colours), encoding="utf-8")
    return vrt


def _vrt(raster: QgsRasterLayer, name: str, colours: list[str]) -> str:
    """Return a VRT of all bands of a byte raster beside it."""
    box = raster.extent()
    width_px, height_px = raster.width(), raster.height()
    geo = (
        *(box.xMinimum(), box.width() / width_px, 0.0),
        *(box.yMaximum(), 0.0, -box.height() / height_px),
    )
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><ColorInterp>{escape(colour)}</ColorInterp>'
        f'<SimpleSource><SourceFilename relativeToVRT="1">{escape(name)}</SourceFilename>'
        f"<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, colour in enumerate(colours, 1)
    )
    srs = f"<SRS>{escape(raster.crs().toWkt())}</SRS>" if raster.crs().isValid() else ""
    return (
        f'<VRTDataset rasterXSize="{width_px}" rasterYSize="{height_px}">{srs}'
        f"<GeoTransform>{', '.join(map(repr, geo))}</GeoTransform>{bands}</VRTDataset>\n"
    )
