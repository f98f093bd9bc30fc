"""What a raster is, whether a model can take it, and which of its pixels count."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg.errors import BandMismatchError, DtypeMismatchError, RasterReadError
from geoseg.raster import check_input, inspect_raster, open_raster
from geoseg.raster.info import content_sample
from geoseg.raster.reader import read_window
from geoseg.spec import BandSpec
from geoseg.types import Window
from tests.conftest import make_spec

RGB = np.random.default_rng(0).integers(1, 255, (3, 20, 30)).astype(np.uint8)


def info_of(path):
    with open_raster(str(path)) as dataset:
        return inspect_raster(dataset, str(path))


def read(path, spec, bands=None):
    with open_raster(str(path)) as dataset:
        info = inspect_raster(dataset, str(path))
        selection = check_input(info, spec, bands)
        return read_window(dataset, selection, Window(0, 0, info.height, info.width))


def refusal(path, spec, bands=None):
    with pytest.raises((BandMismatchError, DtypeMismatchError)) as caught:
        check_input(info_of(path), spec, bands)
    return str(caught.value)


def test_a_fitting_raster_is_read_as_it_is(make_raster):
    values, valid = read(make_raster(RGB), make_spec(3))
    assert np.array_equal(values, RGB)
    assert valid is None


def test_header(make_raster):
    info = info_of(make_raster(RGB, scales=(0.1, 0.1, 1.0), offsets=(5.0, 0.0, 0.0), nodata=7))
    assert (info.height, info.width, info.count, info.alpha) == (20, 30, 3, None)
    assert info.scaling == ((0.1, 5.0), (0.1, 0.0), None)
    assert info.nodata == (7.0, 7.0, 7.0)
    assert info.georef.is_complete


def test_alpha_masks_and_is_no_band(make_raster):
    alpha = np.full((1, 20, 30), 255, np.uint8)
    alpha[:, :5] = 0
    alpha[:, 5:8] = 1
    path = make_raster(np.concatenate([RGB, alpha]), colors=("red", "green", "blue", "alpha"))
    values, valid = read(path, make_spec(3))
    assert np.array_equal(values, RGB)
    assert np.array_equal(valid, alpha[0] > 0)


def test_internal_and_external_masks(make_raster):
    mask = np.full((20, 30), 255, np.uint8)
    mask[3:9] = 0
    assert np.array_equal(read(make_raster(RGB, mask=mask), make_spec(3))[1], mask > 0)
    path = make_raster(RGB, "external.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert path.with_name("external.tif.msk").exists()
    assert np.array_equal(read(path, make_spec(3))[1], mask > 0)


def test_nodata_in_all_bands_is_a_hole_and_in_one_a_dark_sample(make_raster):
    values = RGB.copy()
    values[:, 0] = 0
    values[0, 1] = 0
    read_back, valid = read(make_raster(values, nodata=0), make_spec(3))
    assert not valid[0].any()
    assert valid[1:].all()
    assert np.array_equal(read_back[:, 1:], values[:, 1:])


def test_the_any_band_rule(make_raster):
    values = RGB.copy()
    values[0, 1] = 0
    _, valid = read(make_raster(values, nodata=0), make_spec(3, nodata_rule="any_band"))
    assert not valid[1].any()
    assert valid[2:].all()


def test_gaps_of_single_signed_or_float_bands_get_the_mean(make_raster):
    values = RGB.astype(np.int16)
    values[1, 4] = -9999
    spec = make_spec(3, mean=100.4, std=10.0, dtype="int16")
    read_back, valid = read(make_raster(values, nodata=-9999), spec)
    assert valid is None
    assert (read_back[1, 4] == 100).all()
    floats = RGB.astype(np.float32)
    floats[0, 2] = np.nan
    floats[1, 3] = np.inf
    floats[:, 5] = np.nan
    spec = make_spec(3, mean=100.5, std=10.0, dtype="float32")
    read_back, valid = read(make_raster(floats, "f.tif"), spec)
    assert (read_back[0, 2] == 100.5).all()
    assert (read_back[1, 3] == 100.5).all()
    assert not valid[5].any()
    assert valid[[2, 3]].all()


def test_a_nodata_value_that_the_type_rounds_is_found(make_raster):
    values = np.full((1, 5, 5), 3, np.float32)
    values[0, 0] = np.float32(-3.4e38)
    spec = make_spec(1, dtype="float32")
    _, valid = read(make_raster(values, nodata=-3.4e38), spec)
    assert not valid[0].any()
    assert valid[1:].all()


def test_band_count(make_raster):
    four = np.concatenate([RGB, RGB[:1]])
    colors = ("red", "green", "blue", "undefined")
    message = refusal(make_raster(four, colors=colors), make_spec(3))
    assert "expects 3 band(s) (red, green, blue)" in message
    assert message.endswith("Give --bands 1,2,3.")
    grey = ("gray", "undefined", "undefined", "undefined")
    message = refusal(make_raster(four, "greys.tif", colors=grey), make_spec(3))
    assert "Say which bands they are, for example --bands 1,2,3" in message
    message = refusal(make_raster(RGB[:1], "grey.tif"), make_spec(3))
    assert "single-band image does not hold these colours" in message
    message = refusal(make_raster(RGB, "rgb.tif"), make_spec(5))
    assert "Use a model for 3 band(s), or a raster that has them all" in message
    assert (
        read(make_raster(four, "four.tif", colors=colors), make_spec(3), (3, 2, 1))[0].shape[0] == 3
    )


def test_band_order(make_raster):
    path = make_raster(RGB, colors=("blue", "green", "red"))
    message = refusal(path, make_spec(3))
    assert "in the order red, green, blue" in message
    assert "has blue, green, red. Give --bands 3,2,1." in message
    assert np.array_equal(read(path, make_spec(3), (3, 2, 1))[0], RGB[::-1])
    described = make_raster(RGB, "d.tif", descriptions=("NIR", "red", "green"))
    message = refusal(described, make_spec(3, names=("red", "green", "nir")))
    assert "has nir, red, green. Give --bands 2,3,1." in message


def test_bands_that_do_not_exist(make_raster):
    assert "bands from 1 to 3" in refusal(make_raster(RGB), make_spec(3), (1, 2, 4))
    assert "--bands names 2" in refusal(make_raster(RGB), make_spec(3), (1, 2))


def test_palettes(make_raster):
    path = make_raster(RGB[:1], photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (255, 0, 0, 255)})
    assert "is a palette image. Expand it first (gdal_translate" in refusal(path, make_spec(3))
    assert "palette image" in refusal(path, make_spec(1))
    assert read(path, make_spec(1), (1,))[0].shape == (1, 20, 30)


def test_dtypes(make_raster):
    path = make_raster(RGB.astype(np.uint16))
    message = refusal(path, make_spec(3))
    assert "expects uint8 values" in message
    assert "gdal_translate -ot Byte -scale LOW HIGH 0 255" in message
    scaled = make_raster(RGB.astype(np.uint16), "s.tif", scales=(1e-4,) * 3)
    selection = check_input(info_of(scaled), make_spec(3))
    assert selection.scaling == ((1e-4, 0.0),) * 3
    assert "the file's scale 0.0001 and offset 0 are applied" in selection.notes[0]
    assert check_input(info_of(path), make_spec(3, dtype="any")).dtype == "uint16"
    double = make_raster(RGB.astype(np.float64), "double.tif")
    assert check_input(info_of(double), make_spec(3, dtype="float32")).dtype == "float64"
    complex_ = make_raster(RGB[:1].astype(np.complex64), "c.tif")
    assert "Convert to amplitude" in refusal(complex_, make_spec(1, dtype="float32"))


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(RasterReadError, match=r"'nothing.tif' cannot be opened: .*Check the path"):
        info_of("nothing.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(RasterReadError, match="not recognized as being in a supported file format"):
        info_of(tmp_path / "text.tif")


def test_damaged_pixels_are_named(make_raster):
    path = make_raster(np.random.default_rng(1).integers(0, 255, (1, 200, 200)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(RasterReadError, match=r"rows 0 to 200 and columns 0 to 200 cannot be read"):
        read(path, make_spec(1))


def test_the_fill_is_the_mean_in_raw_values(make_raster):
    bands = tuple(BandSpec(n, mean=0.3, std=0.1, scale=0.01, offset=0.1) for n in "rgb")
    spec = make_spec(3)
    spec = type(spec)(**{**vars(spec), "bands": bands})
    selection = check_input(info_of(make_raster(RGB)), spec)
    assert selection.fill == pytest.approx((20.0, 20.0, 20.0))


def test_a_changed_file_is_noticed(make_raster):
    path = make_raster(RGB)
    before = content_sample(info_of(path))
    assert content_sample(info_of(path)) == before
    values = RGB.copy()
    values[0, 0, 0] += 1
    make_raster(values)
    assert content_sample(info_of(path)) != before


def test_statistics_that_a_gis_program_writes_beside_a_raster_do_not_count(make_raster):
    path = make_raster(RGB)
    before = content_sample(info_of(path))
    statistics = '<MDI key="STATISTICS_MEAN">7</MDI>'
    Path(f"{path}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1"><Metadata>{statistics}</Metadata></PAMRasterBand>'
        "</PAMDataset>"
    )
    assert len(info_of(path).files) == 2
    assert content_sample(info_of(path)) == before
