"""What every use of rasterio needs: its errors, their cause in GDAL's words, its warning."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window as RasterioWindow

# rasterio lets some of GDAL's errors through unwrapped, and has no public name for them.
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)

# By default GDAL waits for a silent server without end, and gives up at the first error 503.
NETWORK = {
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",  # s below
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",  # byte/s
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",  # s, doubled each time
}


def network_environment() -> rasterio.Env:
    """Return settings for opening remote files; what the user has set for GDAL stays."""
    return rasterio.Env(**{key: value for key, value in NETWORK.items() if key not in os.environ})


def cause_of(error: BaseException) -> str:
    """Return GDAL's own words for an error as they go into a sentence: without the final stop."""
    cause: BaseException = error
    while isinstance(cause, RasterioIOError) and cause.__cause__ is not None:
        cause = cause.__cause__
    text = getattr(cause, "errmsg", None) or str(cause)
    # What pyogrio appends to a message of GDAL's, it appends after the stop.
    return " ".join(text.split()).replace(".; ", "; ").rstrip(" .:") or type(cause).__name__


@contextmanager
def quiet_georeference() -> Iterator[None]:
    """Silence rasterio's warning about a missing georeference, which geoseg judges itself.

    For the main thread: the filters are the process's own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def check_complete(path: Path) -> None:
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
