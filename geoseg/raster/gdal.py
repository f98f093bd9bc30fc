"""What every use of rasterio needs: its errors, their cause in GDAL's words, its warning."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError

# rasterio lets some of GDAL's errors through unwrapped, and has no public name for them.
GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError)


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
