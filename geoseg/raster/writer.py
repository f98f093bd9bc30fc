"""Writes finished panels as ordinary GeoTIFFs, a VRT over them, and the final COG with sidecars."""

import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import DiskFullError, MachineError
from geoseg.raster.georef import Georef
from geoseg.raster.reader import cause_of
from geoseg.spec import ClassSpec
from geoseg.types import Window

GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16"}
BLOCK_PX = 512
# Maps of real classes end up a quarter larger than at level 6, noisy ones are made twice as fast.
DEFLATE_LEVEL = "4"
# Left free on the disk: a full system disk harms more than this run.
SPARE_DISK_BYTES = 16 * 2**20


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


@dataclass
class PartsWriter:
    """Writes the panels of a run into its parts folder.

    A panel's file appears under its final name only once it is complete and on the disk.

    Args:
        folder: the parts folder, which exists.
        layers: what each panel holds.
        height: of the whole output, px.
        width: of the whole output, px.
        georef: of the whole output.
    """

    folder: Path
    layers: Sequence[Layer]
    height: int
    width: int
    georef: Georef
    _open: dict[str, DatasetWriter] = field(default_factory=dict)
    _index: int = -1

    def open_panel(self, index: int, window: Window) -> None:
        """Begin the files of a panel that covers ``window`` of the output."""
        self._index = index
        for layer in self.layers:
            profile = {
                "driver": "GTiff",
                "height": window.height,
                "width": window.width,
                "count": layer.bands,
                "dtype": layer.dtype,
                "nodata": layer.nodata,
                "compress": "deflate",
                "zlevel": 1,
                "interleave": "band",
                "blockysize": 64,
                "bigtiff": "if_safer",
            }
            with self._machine_errors():
                dataset = rasterio.open(self._partial(layer), "w", **profile)
                self._open[layer.name] = dataset
                _place(dataset, self.georef, window)

    def write_rows(self, row: int, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Write full-width rows of the open panel from its ``row`` on, (bands, H, W) by layer."""
        with self._machine_errors():
            for name, array in arrays.items():
                bands, height, width = array.shape
                window = RasterioWindow(0, row, width, height)
                self._open[name].write(array, window=window, indexes=list(range(1, bands + 1)))

    def commit_panel(self) -> dict[str, list[int]]:
        """Close the open panel for good; return size and CRC-32 of each file by its name."""
        record = {}
        with self._machine_errors():
            while self._open:
                self._open.popitem()[1].close()
            for layer in self.layers:
                partial, final = self._partial(layer), self.panel_path(layer, self._index)
                _check_complete(partial)
                record[final.name] = file_record(partial)
                _sync(partial)
                partial.replace(final)
            sync_folder(self.folder)
        return record

    def abandon(self) -> None:
        """Drop the open panel."""
        while self._open:
            # What cannot be flushed any more is thrown away anyway.
            with suppress(RasterioError, OSError):
                self._open.popitem()[1].close()
        for layer in self.layers:
            self._partial(layer).unlink(missing_ok=True)

    def panel_path(self, layer: Layer, index: int) -> Path:
        """Return the file of a finished panel."""
        return self.folder / f"panel-{index:05d}.{layer.name}.tif"

    def vrt_path(self, layer: Layer) -> Path:
        """Return the VRT that shows all finished panels of a layer."""
        return self.folder / f"{layer.name}.vrt"

    def write_vrt(
        self, layer: Layer, panels: Mapping[int, Window], tags: Mapping[str, str]
    ) -> Path:
        """Write a VRT over finished ``panels`` (index -> window); the rest shows as nodata."""
        sources = {self.panel_path(layer, i).name: window for i, window in panels.items()}
        text = vrt_text(
            layer, self.height, self.width, georef=self.georef, sources=sources, tags=tags
        )
        path = self.vrt_path(layer)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with self._machine_errors():
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        return path

    def _partial(self, layer: Layer) -> Path:
        return self.folder / f"panel-{self._index:05d}.{layer.name}.{os.getpid()}.partial"

    @contextmanager
    def _machine_errors(self) -> Iterator[None]:
        with machine_errors(self.folder):
            yield


def finish_cog(vrt: Path, out: Path, layer: Layer, *, threads: int) -> Path:
    """Copy a complete VRT into a Cloud-Optimized GeoTIFF.

    Args:
        vrt: over all panels.
        out: written in place; the caller renames it.
        layer: decides on overviews.
        threads: for compression; the bytes do not depend on it.
    """
    options = {
        "COMPRESS": "DEFLATE",
        "LEVEL": DEFLATE_LEVEL,
        "PREDICTOR": "NO",
        "BLOCKSIZE": str(BLOCK_PX),
        "OVERVIEW_RESAMPLING": layer.overviews,
        "OVERVIEWS": "AUTO",
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": str(threads),
    }
    with machine_errors(out.parent):
        copy_raster(str(vrt), str(out), driver="COG", **options)
        _check_complete(out)
        _sync(out)
    return out


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


def file_record(path: Path) -> list[int]:
    """Return size and CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return [path.stat().st_size, crc]


@contextmanager
def machine_errors(folder: Path) -> Iterator[None]:
    """Turn what a full or failing disk does into a DiskFullError or MachineError."""
    try:
        yield
    except (RasterioError, OSError) as error:
        free = _free_bytes(folder)
        if free < SPARE_DISK_BYTES or getattr(error, "errno", None) == 28:
            raise DiskFullError(
                f"the disk of {str(folder)!r} is full ({free / 1e6:.0f} MB free). Finished parts "
                "are kept: free some space and give --resume."
            ) from error
        raise MachineError(
            f"{str(folder)!r} cannot be written: {cause_of(error)}. Finished parts are kept: "
            "mend the cause and give --resume."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _place(dataset: DatasetWriter, georef: Georef, window: Window) -> None:
    """Give a panel its place, so that it opens in QGIS by itself."""
    if georef.crs is not None:
        dataset.crs = georef.crs
    if georef.has_transform:
        shift = georef.transform.translation(window.col, window.row)
        dataset.transform = georef.transform @ shift


def _check_complete(path: Path) -> None:
    """Raise an error unless a finished file can be read to its end.

    What GDAL cannot flush while it closes a file, it reports to nobody. The last row of blocks is
    the last thing it writes, in a plain GeoTIFF and in a COG.
    """
    with rasterio.open(path) as dataset:
        rows = dataset.block_shapes[0][0]
        first = (dataset.height - 1) // rows * rows
        window = RasterioWindow(0, first, dataset.width, dataset.height - first)
        for band in dataset.indexes:
            dataset.read(band, window=window)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


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
            f'BlockYSize="{min(64, w.height)}"/>\n'
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
