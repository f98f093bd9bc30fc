"""Overviews of a raster: each level from the one before, two by two pixels to one.

GDAL makes them too, and takes longer over that than over all the rest of a Cloud-Optimized GeoTIFF.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window as RasterioWindow

from geoseg import _native
from geoseg.raster.gdal import check_complete, quiet_georeference
from geoseg.raster.layer import Layer

# What one job reads: about this much of one band, in whole strips of the files ...
JOB_BYTES = 8 * 2**20
# ... and all jobs at a time: as many threads as keep to it.
JOBS_BYTES = 4 * JOB_BYTES
STRIP_ROWS = 64
# As this package's writer of VRTs and GDAL's own put it; masks within are indented deeper.
BAND_END = "\n  </VRTRasterBand>\n"

Values = NDArray[np.generic]


@contextmanager
def with_overviews(
    source: Path, out: Path, layer: Layer, *, least_px: int, threads: int
) -> Iterator[Path]:
    """Give a VRT of a raster that has overviews; it and they are removed afterwards.

    Args:
        source: the raster; read, not changed.
        out: the files, made beside ``source``, have names that begin with its name.
        layer: its type, its nodata, and how values are put together.
        least_px: the last level is the first that is not larger than this, in both directions.
        threads: jobs at the same time at most; the values do not depend on it.
    """
    with ExitStack() as stack:
        stack.enter_context(quiet_georeference())

        def own(suffix: str) -> Path:
            path = source.with_name(f"{out.name}.{suffix}")
            stack.callback(path.unlink, missing_ok=True)
            # A killed run may have left one. With a VRT that it replaces, GDAL deletes what the
            # VRT names: the overviews just made.
            path.unlink(missing_ok=True)
            return path

        with rasterio.open(source) as dataset:
            height, width = dataset.shape
        levels: list[Path] = []
        while max(height, width) > least_px:
            height, width = (height + 1) // 2, (width + 1) // 2
            level = own(f"ovr-{len(levels) + 1}.tif")
            before = levels[-1] if levels else source
            _write_level(before, level, layer, height=height, width=width, threads=threads)
            levels.append(level)
        yield _with_levels(source, levels, layer.bands, own("vrt"))


def halve(values: Values, nodata: int, rule: str) -> Values:
    """Return an array at half its resolution.

    Args:
        values: (H, W), uint8 or uint16. The last row or column of an odd number stands for two.
        nodata: does not count; four of it make nodata.
        rule: ``MODE``, the most frequent of two by two, the first in reading order of equals; or
            ``AVERAGE``, their mean, rounded, halves up.

    Returns:
        (ceil(H / 2), ceil(W / 2)), the same type.
    """
    if _native.library() is None:
        return halve_reference(values, nodata, rule)
    out = np.empty([-(-side // 2) for side in values.shape], values.dtype)
    _native.halve(np.ascontiguousarray(values), nodata, rule, out)
    return out


def halve_reference(values: Values, nodata: int, rule: str) -> Values:
    """Do the same: the specification of the kernel."""
    even = np.pad(values, [(0, side % 2) for side in values.shape], mode="edge")
    four = np.stack([even[y::2, x::2] for y in (0, 1) for x in (0, 1)])
    counts = four != nodata
    known = counts.any(axis=0)
    if rule == "AVERAGE":
        total = np.where(counts, four, 0).sum(axis=0, dtype=np.int64)
        number = np.maximum(counts.sum(axis=0), 1)
        found = (2 * total + number) // (2 * number)
    else:
        votes = (four[:, None] == four[None]).sum(axis=1) * counts  # of each one's own value
        found = np.take_along_axis(four, votes.argmax(axis=0)[None], axis=0)[0]
    return np.where(known, found, nodata).astype(values.dtype)


def _write_level(
    source: Path, out: Path, layer: Layer, *, height: int, width: int, threads: int
) -> None:
    """Write the raster of ``source`` at half its resolution, strip by strip."""
    with (
        rasterio.open(out, "w", **layer.profile(height, width)) as level,
        closing(_halved_rows(source, layer, threads)) as found,
    ):
        for band, row, rows in found:
            level.write(rows, band, window=RasterioWindow(0, row, width, len(rows)))
    check_complete(out)


def _halved_rows(source: Path, layer: Layer, threads: int) -> Generator[tuple[int, int, Values]]:
    """Yield band, first row and rows (H, W) of a raster at half its resolution, in order."""
    with ExitStack() as stack:
        first = stack.enter_context(rasterio.open(source))
        height, width = first.shape
        strip_bytes = 2 * STRIP_ROWS * width * np.dtype(layer.dtype).itemsize
        strips = max(1, JOB_BYTES // strip_bytes)
        most = max(1, min(threads, JOBS_BYTES // (strips * strip_bytes)))
        # A handle belongs to one thread.
        handles = [first, *(stack.enter_context(rasterio.open(source)) for _ in range(most - 1))]
        workers = [stack.enter_context(ThreadPoolExecutor(1)) for _ in handles]
        waiting: deque[tuple[int, int, Future[Values]]] = deque()
        step = 2 * STRIP_ROWS * strips
        jobs = ((band, row) for band in first.indexes for row in range(0, height, step))
        for i, (band, row) in enumerate(jobs):
            if len(waiting) == len(workers):
                yield _done(waiting.popleft())
            turn = i % len(workers)
            window = RasterioWindow(0, row, width, min(step, height - row))
            job = workers[turn].submit(_read_halved, handles[turn], band, window, layer)
            waiting.append((band, row // 2, job))
        while waiting:
            yield _done(waiting.popleft())


def _done(waiting: tuple[int, int, Future[Values]]) -> tuple[int, int, Values]:
    band, row, job = waiting
    return band, row, job.result()


def _read_halved(dataset: DatasetReader, band: int, window: RasterioWindow, layer: Layer) -> Values:
    return halve(dataset.read(band, window=window), layer.nodata, layer.overviews)


def _with_levels(source: Path, levels: Sequence[Path], count: int, vrt: Path) -> Path:
    """Write a VRT of a raster of ``count`` bands, beside it, whose bands have these overviews."""
    if source.suffix == ".vrt":
        text = source.read_text("utf-8")
    else:
        copy_raster(str(source), str(vrt), driver="VRT")
        text = vrt.read_text("utf-8")
    *bands, end = text.split(BAND_END)
    assert len(bands) == count, f"{len(bands)} of {count} bands found in {vrt.name}"
    text = ""
    for number, band in enumerate(bands, 1):
        added = (_overview(level.name, number) for level in levels)
        text += "".join([band, *added, BAND_END])
    vrt.write_text(text + end, encoding="utf-8")
    return vrt


def _overview(name: str, band: int) -> str:
    return (
        "\n    <Overview>\n"
        f'      <SourceFilename relativeToVRT="1">{escape(name)}</SourceFilename>\n'
        f"      <SourceBand>{band}</SourceBand>\n"
        "    </Overview>"
    )
