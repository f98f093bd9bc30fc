"""What a raster's header says, and whether its content is still the same."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader

from geoseg.raster.gdal import quiet_georeference
from geoseg.raster.georef import Georef
from geoseg.types import BandIndexes, Nodata

Scaling = tuple[float, float] | None  # (scale, offset) that a file declares for a band

# Colour interpretations that name what a band shows.
COLOR_NAMES = {"red", "green", "blue", "nir", "rededge", "coastal", "pan", "swir"}
# Samples of a file that tell whether it is still the same.
SAMPLES = 16
SAMPLE_BYTES = 64 * 1024


@dataclass(frozen=True)
class RasterInfo:
    """What a raster's header says."""

    name: str
    driver: str
    height: int
    width: int
    dtypes: tuple[str, ...]
    colors: tuple[str, ...]
    descriptions: tuple[str, ...]
    nodata: tuple[Nodata, ...]
    scaling: tuple[Scaling, ...]
    has_mask: bool
    block_shape: tuple[int, int]
    compression: str
    georef: Georef
    files: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of bands, alpha included."""
        return len(self.dtypes)

    @property
    def alpha(self) -> int | None:
        """The alpha band, 1-based, or None."""
        return self.colors.index("alpha") + 1 if "alpha" in self.colors else None

    @property
    def image_bands(self) -> BandIndexes:
        """All bands but alpha, 1-based."""
        return tuple(i for i in range(1, self.count + 1) if i != self.alpha)

    def band_name(self, band: int) -> str:
        """Return what the file calls a band: its description, else its colour, else a number."""
        description = self.descriptions[band - 1].strip().lower()
        return description or self.known_color(band) or f"band {band}"

    def known_color(self, band: int) -> str | None:
        """Return the colour that a band is tagged with, if any."""
        color = self.colors[band - 1]
        return color if color in COLOR_NAMES else None

    def summary(self) -> str:
        """Return one line for messages: size, bands, data type."""
        names = ", ".join(self.band_name(i) for i in self.image_bands)
        alpha = " and alpha" if self.alpha else ""
        kind = "/".join(dict.fromkeys(self.dtypes))
        return f"{len(self.image_bands)} {kind} band(s) ({names}){alpha}"


def inspect_raster(dataset: DatasetReader, name: str) -> RasterInfo:
    """Return what the header of an open dataset says."""
    gcps, gcps_crs = dataset.gcps
    with quiet_georeference():
        georef = Georef(
            crs=dataset.crs,
            transform=dataset.transform,
            area_or_point=dataset.tags().get("AREA_OR_POINT"),
            gcps=tuple(gcps),
            gcps_crs=gcps_crs,
            rpcs=dataset.rpcs,
        )
    declared = zip(dataset.scales, dataset.offsets, strict=True)
    return RasterInfo(
        name=name,
        driver=dataset.driver,
        height=dataset.height,
        width=dataset.width,
        dtypes=tuple(dataset.dtypes),
        colors=tuple(color.name for color in dataset.colorinterp),
        descriptions=tuple(text or "" for text in dataset.descriptions),
        nodata=tuple(dataset.nodatavals),
        scaling=tuple(None if pair == (1.0, 0.0) else pair for pair in declared),
        has_mask=_has_mask(dataset),
        block_shape=dataset.block_shapes[0],
        # An enumeration, or its plain value for names that rasterio does not list.
        compression=str(getattr(dataset.compression, "value", dataset.compression)).lower(),
        georef=georef,
        files=tuple(dataset.files),
    )


def content_sample(info: RasterInfo) -> str:
    """Return a hash over samples of a raster's files, to notice that an input was exchanged.

    Remote files are known by their header alone. Left out are the files beside a raster into which
    GIS programs write statistics while they show it; what they say of the grid is in the settings.
    """
    digest = hashlib.sha256()
    for name in info.files:
        path = Path(name)
        if not path.is_file() or path.name.endswith(".aux.xml"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            for i in range(SAMPLES):
                file.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _has_mask(dataset: DatasetReader) -> bool:
    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
