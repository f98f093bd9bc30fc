"""Writes finished panels as ordinary GeoTIFFs, a VRT over them, and the final COG with sidecars."""

import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import DatasetWriter
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import DiskFullError, MachineError
from geoseg.raster.gdal import GDAL_ERRORS, cause_of, check_complete
from geoseg.raster.georef import Georef
from geoseg.raster.layer import Layer, vrt_text
from geoseg.raster.overviews import with_overviews
from geoseg.types import Window

BLOCK_PX = 512
# Maps of real classes end up a third larger than at level 6; noisy ones take a fifth of the time.
DEFLATE_LEVEL = "3"
# Left free on the disk: a full system disk harms more than this run.
SPARE_DISK_BYTES = 16 * 2**20


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
            with self._machine_errors():
                place = _place(self.georef, window)
                self._open[layer.name] = rasterio.open(
                    self._partial(layer), "w", **layer.profile(window.height, window.width), **place
                )

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
                check_complete(partial)
                record[final.name] = file_record(partial)
                _sync(partial)
                partial.replace(final)
            sync_folder(self.folder)
        return record

    def abandon(self) -> None:
        """Drop the open panel."""
        while self._open:
            # What cannot be flushed any more is thrown away anyway.
            with suppress(*GDAL_ERRORS):
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
    """Copy a complete VRT into a Cloud-Optimized GeoTIFF with overviews.

    Args:
        vrt: over all panels, or another raster.
        out: written in place, in the same folder; the caller renames it.
        layer: decides on overviews.
        threads: for compression; the bytes do not depend on it.
    """
    options = {
        "COMPRESS": "DEFLATE",
        "LEVEL": DEFLATE_LEVEL,
        "PREDICTOR": "NO",
        "BLOCKSIZE": str(BLOCK_PX),
        "OVERVIEW_RESAMPLING": layer.overviews,
        "OVERVIEWS": "FORCE_USE_EXISTING",
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": str(threads),
    }
    with machine_errors(out.parent):
        with with_overviews(vrt, out, layer, least_px=BLOCK_PX, threads=threads) as source:
            copy_raster(str(source), str(out), driver="COG", **options)
        check_complete(out)
        _sync(out)
    return out


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
    except GDAL_ERRORS as error:
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


def _place(georef: Georef, window: Window) -> dict[str, Any]:
    """Return what gives a panel its place, so that it opens in QGIS by itself."""
    place: dict[str, Any] = {}
    if georef.crs is not None:
        place["crs"] = georef.crs
    if georef.has_transform:
        place["transform"] = georef.transform @ Affine.translation(window.col, window.row)
    return place


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _free_bytes(folder: Path) -> int:
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free
