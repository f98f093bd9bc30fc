"""What GDAL says, as it goes into geoseg's sentences."""

import pytest
from pyogrio.errors import DataSourceError
from rasterio.errors import RasterioIOError

from geoseg.raster.gdal import cause_of

HINT = "It might help to specify the correct driver, e.g. 'CSV:path'"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RasterioIOError("not recognized as being in a supported file format."), "not recognized"),
        (DataSourceError(f"a.shp: not recognized.; {HINT}."), f"a.shp: not recognized; {HINT}"),
        (DataSourceError("ERROR parsing kml a.kml :\n"), "ERROR parsing kml a.kml"),
        (OSError(""), "OSError"),
    ],
)
def test_gdal_s_words_have_no_stop_of_their_own(error, words):
    said = cause_of(error)
    assert said.startswith(words)
    assert said[-1] not in " .:"
    assert ".;" not in said
