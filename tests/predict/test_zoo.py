"""Every odd or broken raster gives a georeferenced map or one clear sentence, never anything else.

Each file is run twice: with the shipped model, and with a 1x1 convolution of the file's own bands
and data type. Without a CRS both are refused, and run again with ``--gsd native``.
"""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from geoseg.errors import (
    BandMismatchError,
    GeoreferenceError,
    GsdMismatchError,
    InputError,
    RasterReadError,
)
from geoseg.predict import PredictOptions, plan_raster, predict_raster
from geoseg.raster import inspect_raster, open_raster
from geoseg.raster.gdal import quiet_georeference
from geoseg.segmenter import Segmenter
from geoseg.spec import TileSpec
from geoseg.types import BBox
from tests.conftest import SHARED, make_spec

SHIPPED = "demo-buildings-banepa"
HERE = Path(__file__).parents[1] / "data" / "zoo"

MAP = "map"
BANDS, GSD = BandMismatchError, GsdMismatchError
NO_GEO, UNREADABLE = GeoreferenceError, RasterReadError

# file: (shipped model, model of its own bands), under --gsd auto
OUTCOMES = {
    "1km176280474802010MAPCON.tiny.tif": (GSD, MAP),
    "2012_30cm_592_5454.tiny.tif": (GSD, MAP),
    "RGB.byte.gcp.vrt": (NO_GEO, NO_GEO),
    "RGB.byte.tif": (GSD, MAP),
    "RGBA.uint16.tif": (BANDS, MAP),
    "all-nodata.tif": (BANDS, MAP),
    "bigtiff_four_strip_be_short.tif": (BANDS, NO_GEO),
    "byte.tif": (BANDS, MAP),
    "byte_ZSTD_tiled.tif": (BANDS, MAP),
    "byte_gcp.tif": (BANDS, NO_GEO),
    "byte_nogeoref.tif": (BANDS, NO_GEO),
    "byte_rpc.tif": (BANDS, NO_GEO),
    "byte_truncated.tif": (BANDS, UNREADABLE),
    "cog_cmap.tif": (BANDS, BANDS),
    "cog_dateline.tif": (BANDS, MAP),
    "cog_gcps.tif": (BANDS, NO_GEO),
    "cogeo.tif": (MAP, MAP),
    "corrupt.tif": (UNREADABLE, UNREADABLE),
    "dop20c_32587_5922.tif": (NO_GEO, NO_GEO),
    "dummy_fotomap_small.tif": (GSD, MAP),
    "epsg_2853_with_us_feet.tif": (BANDS, MAP),
    "float16.tif": (BANDS, MAP),
    "gadas-world.tif": (NO_GEO, NO_GEO),
    "geomatrix.tif": (BANDS, MAP),
    "huge4GB.tif": (BANDS, NO_GEO),
    "image_2000px.tif": (MAP, MAP),
    "image_webp.tif": (GSD, MAP),
    "int12.tif": (BANDS, MAP),
    "int16_big_endian.tif": (BANDS, MAP),
    "inverted_lat.tif": (BANDS, MAP),
    "lzw_corrupted.tif": (BANDS, NO_GEO),
    "m_3607824_se_17_1_20160620_sub.tif": (BANDS, MAP),
    "m_4709963_se_14_1_20200831.tif": (BANDS, MAP),
    "many_blocks_truncated.tif": (BANDS, NO_GEO),
    "nan32_nodata.tif": (BANDS, MAP),
    "negative_scaley.tif": (BANDS, MAP),
    "nz_habitat_anticross_4326_1deg.tif": (BANDS, MAP),
    "oddsize1bit.tif": (BANDS, BANDS),
    "red.tif": (GSD, MAP),
    "rgbsmall_DEFLATE_tiled_separate.tif": (GSD, MAP),
    "rgbsmall_JPEG_ycbcr.tif": (GSD, MAP),
    "rgbsmall_cmyk.tif": (NO_GEO, NO_GEO),
    "rotated.tif": (BANDS, NO_GEO),
    "sample_geotiff.tif": (BANDS, MAP),
    "segmentation_test_0_input.tif": (BANDS, MAP),
    "sparse.tiff": (MAP, MAP),
    "stefan_full_rgba.tif": (NO_GEO, NO_GEO),
    "test_average_palette.tif": (BANDS, BANDS),
    "test_tiled.tif": (MAP, MAP),
    "test_with_mask_8bit.tif": (BANDS, NO_GEO),
    "unsupported_codec_unknown.tif": (UNREADABLE, UNREADABLE),
}
# Without a CRS, under --gsd native, with the model of its own bands, where that is not a map.
NATIVE = {
    "RGB.byte.gcp.vrt": GeoreferenceError,  # CRS and control points: no GeoTIFF holds both
    "huge4GB.tif": UNREADABLE,
    "lzw_corrupted.tif": UNREADABLE,
    "many_blocks_truncated.tif": UNREADABLE,
}
# Far larger than what they hold: a small part is run, and the whole is planned.
LARGE = {"sparse.tiff": BBox(2046000, 5821000, 2046350, 5821350)}


def path_of(name):
    for folder in (HERE, SHARED / "geotiff-zoo"):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"zoo file not run, it is not part of the project: {name}")


def own_model(path):
    """Return a 1x1 convolution of the file's own bands and data type."""
    with open_raster(str(path)) as dataset:
        info = inspect_raster(dataset, str(path))
    bands = len(info.image_bands)
    torch.manual_seed(0)
    spec = make_spec(
        bands,
        3,
        names=tuple(f"b{i}" for i in range(bands)),
        dtype=info.dtypes[0],
        tile=TileSpec(256, 0, halo_px=0, min_px=1),
    )
    return Segmenter(nn.Conv2d(bands, 3, 1), spec).eval()


def run(model, path, out, **options):
    options = PredictOptions(bounds=LARGE.get(path.name), **options)
    predict_raster(model, path, out, options=options)


def check_map(path, out, *, whole):
    """The map lies where the raster lies, and is empty just where the raster is."""
    with quiet_georeference(), rasterio.open(path) as given, rasterio.open(out) as made:
        assert made.crs == given.crs
        points = [(p.row, p.col, p.x, p.y) for p in given.gcps[0]]
        assert [(p.row, p.col, p.x, p.y) for p in made.gcps[0]] == points
        if not whole:
            return
        assert made.shape == given.shape
        assert made.transform == given.transform
        expected = given.dataset_mask() > 0
        if given.dtypes[0].startswith("float"):
            expected &= np.isfinite(given.read()).any(axis=0)
        assert np.array_equal(made.read(1) != made.nodata, expected)


def check_refusal(error, name):
    message = str(error)
    assert "\n" not in message
    assert name in message or "the raster has" in message
    assert message.endswith(".")
    assert len(message) > 60


@pytest.mark.parametrize("name", sorted(OUTCOMES))
@pytest.mark.parametrize("which", ["shipped", "own"])
def test_outcome(name, which, tmp_path):
    path, out = path_of(name), tmp_path / "out.tif"
    expected = OUTCOMES[name][which == "own"]
    if expected is MAP:
        run(SHIPPED if which == "shipped" else own_model(path), path, out)
        check_map(path, out, whole=name not in LARGE)
        return
    with pytest.raises(InputError) as caught:
        run(SHIPPED if which == "shipped" else own_model(path), path, out)
    assert caught.type is expected
    check_refusal(caught.value, name)
    assert not out.exists()


NATIVE_NAMES = sorted(n for n, o in OUTCOMES.items() if NO_GEO in o)


@pytest.mark.parametrize("name", NATIVE_NAMES)
def test_without_georeference_a_map_is_made_on_request(name, tmp_path):
    path, out = path_of(name), tmp_path / "out.tif"
    if name in NATIVE:
        with pytest.raises(NATIVE[name]) as caught:
            run(own_model(path), path, out, gsd="native")
        check_refusal(caught.value, name)
        return
    run(own_model(path), path, out, gsd="native")
    check_map(path, out, whole=True)


def test_the_table_names_every_file():
    folder = SHARED / "geotiff-zoo"
    folder = folder if folder.is_dir() else HERE
    found = {p.name for p in folder.iterdir() if p.suffix in {".tif", ".tiff", ".vrt"}}
    assert found <= set(OUTCOMES)
    assert found == set(OUTCOMES) or folder is HERE


def test_a_sparse_giant_is_planned_in_bounded_memory():
    plan = plan_raster(SHIPPED, path_of("sparse.tiff"), "out.tif")
    assert plan["mpx"] == pytest.approx(419.4, abs=0.1)
    assert plan["memory_bytes"] < 4e9
    assert plan["panels"] > 10
