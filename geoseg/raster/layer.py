"""What an output layer is, and the XML that shows it: VRT, PAM record and QGIS style."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from geoseg.raster.georef import Georef
from geoseg.spec import ClassSpec
from geoseg.types import Window

GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16"}


@dataclass(frozen=True)
class Layer:
    """One raster that a run makes.

    Attributes:
        name: of its parts, for example ``class_map``.
        dtype: NumPy name.
        nodata: value of pixels without an answer.
        bands: number of bands.
        classes: class map: what the values mean; otherwise empty.
        band_names: descriptions of the bands.
        scale: physical value = stored x scale; None: as stored.
        overviews: how lower resolutions are made.
    """

    name: str
    dtype: str
    nodata: int
    bands: int = 1
    classes: tuple[ClassSpec, ...] = ()
    band_names: tuple[str, ...] = ()
    scale: float | None = None
    overviews: str = "MODE"

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel, all bands."""
        return np.dtype(self.dtype).itemsize * self.bands

    @property
    def strip_rows(self) -> int:
        """Rows of a block of its panels: fewer with many bands, whose last blocks wait for rows."""
        return 64 if self.bands == 1 else 16

    def profile(self, height: int, width: int) -> dict[str, Any]:
        """Return how rasterio writes a part of it that is read again soon: fast, in full rows."""
        return {
            "driver": "GTiff",
            "height": height,
            "width": width,
            "count": self.bands,
            "dtype": self.dtype,
            "nodata": self.nodata,
            "compress": "deflate",
            "zlevel": 1,
            "interleave": "band",
            "blockysize": self.strip_rows,
            "bigtiff": "if_safer",
        }


def sidecars(out: Path) -> list[Path]:
    """Return the files that belong to a class map: PAM record and QGIS style."""
    return [out.with_name(out.name + ".aux.xml"), out.with_suffix(".qml")]


def pam_text(layer: Layer) -> str:
    """Return the PAM record of a class map: class names and colours, which QGIS 3.22 reads."""
    return (
        "<PAMDataset>\n"
        '  <PAMRasterBand band="1">\n'
        "    <ColorInterp>Palette</ColorInterp>\n"
        f"{_categories(layer)}"
        "  </PAMRasterBand>\n"
        "</PAMDataset>\n"
    )


def qml_text(layer: Layer) -> str:
    """Return a QGIS style with one named, coloured row per class and nothing else."""
    entries = "".join(
        f'          <paletteEntry value="{c.id}" label={_attribute(c.name)} '
        f'color="{c.color.lower()}" alpha="255"/>\n'
        for c in layer.classes
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22" styleCategories="Symbology">\n'
        "  <pipe>\n"
        '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" '
        'nodataColor="">\n'
        "      <rasterTransparency/>\n"
        "      <colorPalette>\n"
        f"{entries}"
        "      </colorPalette>\n"
        "    </rasterrenderer>\n"
        "  </pipe>\n"
        "</qgis>\n"
    )


def vrt_text(
    layer: Layer,
    height: int,
    width: int,
    *,
    georef: Georef,
    sources: Mapping[str, Window],
    tags: Mapping[str, str],
) -> str:
    """Return a VRT that places GeoTIFFs beside it into one raster."""
    dataset_tags = {**tags}
    if georef.area_or_point:
        dataset_tags["AREA_OR_POINT"] = georef.area_or_point
    bands = "".join(_vrt_band(layer, band, sources) for band in range(1, layer.bands + 1))
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">\n'
        f"{_vrt_georef(georef)}"
        f"{_metadata(dataset_tags, '  ')}"
        f"{bands}"
        "</VRTDataset>\n"
    )


def _vrt_georef(georef: Georef) -> str:
    text = ""
    if georef.crs is not None:
        text += f"  <SRS>{escape(georef.crs.to_wkt())}</SRS>\n"
    if georef.has_transform:
        numbers = ", ".join(repr(float(v)) for v in georef.transform.to_gdal())
        text += f"  <GeoTransform>{numbers}</GeoTransform>\n"
    if georef.gcps:
        wkt = (
            "" if georef.gcps_crs is None else f" Projection={_attribute(georef.gcps_crs.to_wkt())}"
        )
        points = "".join(
            f'    <GCP Id="{i + 1}" Pixel="{p.col!r}" Line="{p.row!r}" X="{p.x!r}" Y="{p.y!r}" '
            f'Z="{p.z or 0.0!r}"/>\n'
            for i, p in enumerate(georef.gcps)
        )
        text += f"  <GCPList{wkt}>\n{points}  </GCPList>\n"
    if georef.rpcs is not None:
        text += _metadata(georef.rpcs.to_gdal(), "  ", domain="RPC")
    return text


def _vrt_band(layer: Layer, band: int, sources: Mapping[str, Window]) -> str:
    lines = [f'  <VRTRasterBand dataType="{GDAL_TYPES[layer.dtype]}" band="{band}">\n']
    if layer.band_names:
        lines.append(f"    <Description>{escape(layer.band_names[band - 1])}</Description>\n")
    lines.append(f"    <NoDataValue>{layer.nodata}</NoDataValue>\n")
    if layer.scale is not None:
        lines.append(f"    <Scale>{layer.scale!r}</Scale>\n")
    if layer.classes:
        lines.append("    <ColorInterp>Palette</ColorInterp>\n")
        lines.append(_categories(layer))
    for name, w in sources.items():
        size = f'xSize="{w.width}" ySize="{w.height}"'
        lines.append(
            "    <SimpleSource>\n"
            f'      <SourceFilename relativeToVRT="1">{escape(name)}</SourceFilename>\n'
            f"      <SourceBand>{band}</SourceBand>\n"
            f'      <SourceProperties RasterXSize="{w.width}" RasterYSize="{w.height}" '
            f'DataType="{GDAL_TYPES[layer.dtype]}" BlockXSize="{w.width}" '
            f'BlockYSize="{min(layer.strip_rows, w.height)}"/>\n'
            f'      <SrcRect xOff="0" yOff="0" {size}/>\n'
            f'      <DstRect xOff="{w.col}" yOff="{w.row}" {size}/>\n'
            "    </SimpleSource>\n"
        )
    lines.append("  </VRTRasterBand>\n")
    return "".join(lines)


def _categories(layer: Layer) -> str:
    by_id = {c.id: c for c in layer.classes}
    ids = range(max(by_id) + 1)
    names = "".join(
        f"      <Category>{escape(by_id[i].name) if i in by_id else ''}</Category>\n" for i in ids
    )
    colors = "".join(f"      {_color_entry(by_id.get(i))}\n" for i in ids)
    return (
        f"    <CategoryNames>\n{names}    </CategoryNames>\n"
        f"    <ColorTable>\n{colors}    </ColorTable>\n"
    )


def _color_entry(c: ClassSpec | None) -> str:
    if c is None:
        return '<Entry c1="0" c2="0" c3="0" c4="0"/>'
    red, green, blue = (int(c.color[i : i + 2], 16) for i in (1, 3, 5))
    return f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="255"/>'


def _metadata(tags: Mapping[str, str], indent: str, *, domain: str = "") -> str:
    if not tags:
        return ""
    where = f' domain="{domain}"' if domain else ""
    items = "".join(
        f"{indent}  <MDI key={_attribute(key)}>{escape(str(value))}</MDI>\n"
        for key, value in sorted(tags.items())
    )
    return f"{indent}<Metadata{where}>\n{items}{indent}</Metadata>\n"


def _attribute(text: str) -> str:
    return '"' + escape(text, {'"': "&quot;", "\n": "&#10;"}) + '"'
