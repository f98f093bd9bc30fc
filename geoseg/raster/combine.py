"""Several rasters as one: a mosaic of neighbours, or a stack of one scene's bands.

Both are VRTs in memory: pixels are read from the files when they are needed.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from affine import Affine
from rasterio.io import MemoryFile

from geoseg.errors import GeoreferenceError, InputError
from geoseg.raster.info import RasterInfo, inspect_raster
from geoseg.raster.reader import open_raster
from geoseg.types import Window

# Rasters lie on one grid when their corners meet within this share of a pixel.
GRID_TOLERANCE_PX = 0.01
GDAL_NAMES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}


@dataclass(frozen=True)
class _Placed:
    """A raster and where it lies in the whole, px."""

    info: RasterInfo
    window: Window


@contextlib.contextmanager
def mosaic(names: Sequence[str]) -> Iterator[str]:
    """Give the name of one raster that joins neighbours; the later ones lie on top.

    Args:
        names: rasters of one CRS, pixel size, grid, data type and kinds of bands.

    Raises:
        InputError: they differ; the message says which one, in what.
    """
    infos = _inspect(names)
    first = infos[0]
    for info in infos[1:]:
        _check_alike(first, info)
    placed = _place(infos)
    rows, cols = (min(p.window[i] for p in placed) for i in (0, 1))
    placed = [
        _Placed(p.info, p.window._replace(row=p.window.row - rows, col=p.window.col - cols))
        for p in placed
    ]
    height = max(p.window.row_end for p in placed)
    width = max(p.window.col_end for p in placed)
    transform = first.georef.transform @ Affine.translation(cols, rows)
    with contextlib.ExitStack() as held:
        if None not in first.nodata:
            placed = [_Placed(held.enter_context(_whole_pixels(p.info)), p.window) for p in placed]
        bands = [_band(first, b, b, placed) for b in range(1, first.count + 1)]
        text = _dataset(first, transform, height, width, [*bands, _mask(infos, placed)])
        with _in_memory(text, f"mosaic-of-{len(names)}-rasters.vrt") as name:
            yield name


@contextlib.contextmanager
def stack(names: Sequence[str]) -> Iterator[str]:
    """Give the name of one raster with the bands of all files, in the order given.

    Coarser files are brought to the finest one's grid, bilinearly; all must show the same ground.

    Raises:
        InputError: CRS, ground or data type differ; the message says which file.
    """
    infos = _inspect(names)
    finest = max(infos, key=lambda info: info.width * info.height)
    for info in infos:
        _check_same_ground(finest, info)
    window = Window(0, 0, finest.height, finest.width)
    bands: list[str] = []
    for info in infos:
        for band in range(1, info.count + 1):
            bands.append(_band(info, band, len(bands) + 1, [_Placed(info, window)]))
    masked = [_Placed(info, window) for info in infos if info.has_mask]
    if len(masked) > 1:
        raise InputError(
            f"a stack can have one mask; {masked[0].info.name!r} and {masked[1].info.name!r} both "
            "have one. Put nodata values into the files instead (gdal_translate -a_nodata)."
        )
    bands.append(_mask([p.info for p in masked], masked))
    text = _dataset(finest, finest.georef.transform, finest.height, finest.width, bands)
    with _in_memory(text, f"stack-of-{len(names)}-files.vrt") as name:
        yield name


@contextlib.contextmanager
def _whole_pixels(info: RasterInfo) -> Iterator[RasterInfo]:
    """Give the raster under a name by which its pixels are nodata in all bands or in none.

    Band by band, a pixel of a mosaic would be mixed from two images where one has zeros.
    """
    window = Window(0, 0, info.height, info.width)
    bands = [
        _band(info, b, b, [_Placed(info, window)], plain=True) for b in range(1, info.count + 1)
    ]
    values = " ".join(f"{value:.17g}" for value in info.nodata if value is not None)
    tag = f'  <Metadata><MDI key="NODATA_VALUES">{values}</MDI></Metadata>\n'
    text = _dataset(info, info.georef.transform, info.height, info.width, [tag, *bands])
    with _in_memory(text, "part.vrt") as name:
        yield replace(info, name=name, files=(name,))


@contextlib.contextmanager
def _in_memory(text: str, name: str) -> Iterator[str]:
    # The folder has a name of its own: two runs in one process may each have a mosaic.
    with MemoryFile(text.encode(), filename=name) as file:
        yield str(file.name)


def _inspect(names: Sequence[str]) -> list[RasterInfo]:
    infos = []
    for name in names:
        with open_raster(name) as dataset:
            infos.append(inspect_raster(dataset, name))
    for info in infos:
        if not info.georef.has_transform:
            raise GeoreferenceError(
                f"{info.name!r}: expected a georeference, so that it can be placed; got none. "
                "Georeference it first, or predict it alone."
            )
    return infos


def _check_alike(first: RasterInfo, other: RasterInfo) -> None:
    facts = {
        "number of bands": (first.count, other.count),
        "data types": (first.dtypes, other.dtypes),
        "kinds of bands": (first.colors, other.colors),
        "nodata values": (repr(first.nodata), repr(other.nodata)),
        "scales and offsets": (first.scaling, other.scaling),
        "coordinate reference systems": (first.georef.crs, other.georef.crs),
    }
    for fact, (wanted, found) in facts.items():
        if wanted != found:
            raise InputError(
                f"a mosaic needs rasters of one kind; {first.name!r} and {other.name!r} differ in "
                f"their {fact}: {_show(wanted)} and {_show(found)}. Make them alike (gdalwarp), or "
                "predict them one by one."
            )


def _place(infos: Sequence[RasterInfo]) -> list[_Placed]:
    """Return where each raster lies, from the first one's corner; may be negative."""
    grid = infos[0].georef.transform
    placed = []
    for info in infos:
        own = info.georef.transform
        steps = (own.a, own.b, own.d, own.e)
        # Over the raster's whole extent the two grids must stay together.
        drift = max(
            abs(mine - theirs) * max(info.width, info.height)
            for mine, theirs in zip(steps, (grid.a, grid.b, grid.d, grid.e), strict=True)
        ) / max(map(abs, steps))
        col, row = ~grid @ (own.c, own.f)
        shift = max(abs(col - round(col)), abs(row - round(row)))
        if drift > GRID_TOLERANCE_PX or shift > GRID_TOLERANCE_PX:
            raise GeoreferenceError(
                f"a mosaic needs rasters on one grid; {info.name!r} has pixels of "
                f"{abs(own.a):.6g} x {abs(own.e):.6g} that lie {shift:.2f} px beside those of "
                f"{infos[0].name!r} ({abs(grid.a):.6g} x {abs(grid.e):.6g}). Bring them to one "
                "grid (gdalwarp -tap), or predict them one by one."
            )
        placed.append(_Placed(info, Window(round(row), round(col), info.height, info.width)))
    return placed


def _check_same_ground(finest: RasterInfo, other: RasterInfo) -> None:
    if finest.georef.crs != other.georef.crs:
        raise InputError(
            f"a stack needs files of one scene; {finest.name!r} is in "
            f"{_show(finest.georef.crs)}, {other.name!r} in {_show(other.georef.crs)}. "
            "Warp them to one grid first."
        )
    corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
    here = [finest.georef.transform @ (x * finest.width, y * finest.height) for x, y in corners]
    there = [other.georef.transform @ (x * other.width, y * other.height) for x, y in corners]
    pixel = math.hypot(finest.georef.transform.a, finest.georef.transform.d)
    apart = float(np.abs(np.subtract(here, there)).max()) / pixel
    if apart > 0.5:
        raise GeoreferenceError(
            f"a stack needs files that show the same ground; the corners of {other.name!r} lie "
            f"{apart:.1f} px from those of {finest.name!r}. Crop or warp them to one extent."
        )


def _dataset(
    like: RasterInfo, transform: Affine, height: int, width: int, bands: Sequence[str]
) -> str:
    crs = like.georef.crs
    srs = f"  <SRS>{escape(crs.to_wkt())}</SRS>\n" if crs else ""
    numbers = ", ".join(repr(float(v)) for v in transform.to_gdal())
    kind = like.georef.area_or_point
    tags = f'  <Metadata><MDI key="AREA_OR_POINT">{kind}</MDI></Metadata>\n' if kind else ""
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">\n{srs}'
        f"  <GeoTransform>{numbers}</GeoTransform>\n{tags}{''.join(bands)}</VRTDataset>\n"
    )


def _band(
    info: RasterInfo, band: int, number: int, placed: Sequence[_Placed], *, plain: bool = False
) -> str:
    """Return band ``number`` of the whole: band ``band`` of every raster, laid over each other.

    ``plain`` leaves nodata, scale and offset out.
    """
    dtype = info.dtypes[band - 1]
    if dtype not in GDAL_NAMES:
        raise InputError(
            f"{info.name!r}: a mosaic or stack holds integers and float32 or float64; band {band} "
            f"is {dtype}. Convert it first (gdal_translate -ot Float32)."
        )
    nodata, scaling = info.nodata[band - 1], info.scaling[band - 1]
    text = f'  <VRTRasterBand dataType="{GDAL_NAMES[dtype]}" band="{number}">\n'
    text += f"    <Description>{escape(info.descriptions[band - 1])}</Description>\n"
    text += f"    <ColorInterp>{info.colors[band - 1].capitalize()}</ColorInterp>\n"
    if nodata is not None and not plain:
        text += f"    <NoDataValue>{nodata!r}</NoDataValue>\n"
    if scaling is not None and not plain:
        text += f"    <Offset>{scaling[1]!r}</Offset>\n    <Scale>{scaling[0]!r}</Scale>\n"
    for p in placed:
        # Where a raster has nothing to say, what lies below it stays.
        keep = "      <UseMaskBand>true</UseMaskBand>\n" if len(placed) > 1 else ""
        if len(placed) > 1 and nodata is None and dtype.startswith("float"):
            keep = "      <NODATA>nan</NODATA>\n" + keep
        text += _source(p, str(band), keep)
    return text + "  </VRTRasterBand>\n"


def _mask(infos: Sequence[RasterInfo], placed: Sequence[_Placed]) -> str:
    """Return the mask of the whole, where nodata or alpha would not tell what is covered."""
    told = any(i.alpha is not None or None not in i.nodata for i in infos)
    if not placed or (told and not any(i.has_mask for i in infos)):
        return ""
    sources = "".join(_source(p, "mask,1", "      <NODATA>0</NODATA>\n") for p in placed)
    return (
        '  <MaskBand>\n  <VRTRasterBand dataType="Byte">\n'
        f"{sources}  </VRTRasterBand>\n  </MaskBand>\n"
    )


def _source(placed: _Placed, band: str, keep: str) -> str:
    info, w = placed.info, placed.window
    # GDAL's own name of the file: rasterio's addresses (https://, zip://) mean nothing in a VRT.
    name = str(Path(info.name).resolve()) if Path(info.name).exists() else info.files[0]
    same = (info.height, info.width) == (w.height, w.width)
    resampling = "" if same or band.startswith("mask") else ' resampling="bilinear"'
    return (
        f"    <ComplexSource{resampling}>\n"
        f'      <SourceFilename relativeToVRT="0">{escape(name)}</SourceFilename>\n'
        f"      <SourceBand>{band}</SourceBand>\n"
        f'      <SrcRect xOff="0" yOff="0" xSize="{info.width}" ySize="{info.height}"/>\n'
        f'      <DstRect xOff="{w.col}" yOff="{w.row}" xSize="{w.width}" ySize="{w.height}"/>\n'
        f"{keep}    </ComplexSource>\n"
    )


def _show(value: object) -> str:
    text = getattr(value, "to_string", lambda: str(value))()
    return text if len(text) < 80 else text[:77] + "..."
