"""What every use of rasterio needs: its errors, their cause in GDAL's words, its warning."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError

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
    """Return GDAL's own words for an error, without the final stop."""
    cause: BaseException = error
    while isinstance(cause, RasterioIOError) and cause.__cause__ is not None:
        cause = cause.__cause__
    text = getattr(cause, "errmsg", None) or str(cause)
    return " ".join(text.split()).rstrip(".") or type(cause).__name__


@contextmanager
def quiet_georeference() -> Iterator[None]:
    """Silence rasterio's warning about a missing georeference, which geoseg judges itself.

    For the main thread: the filters are the process's own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
