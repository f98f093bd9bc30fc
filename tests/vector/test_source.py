import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.errors import (
    BandMismatchError,
    DtypeMismatchError,
    GeoreferenceError,
    InputError,
    RasterReadError,
    UsageError,
)
from geoseg.raster.gdal import quiet_georeference
from geoseg.raster.layer import Layer, pam_text
from geoseg.spec import ClassSpec
from geoseg.vector.classes import ClassTable, read_classes
from geoseg.vector.source import ReadAhead, _as_codes, open_class_map, open_confidence
from tests.conftest import NORTH_UP

IDS = np.arange(12).reshape(3, 4)
CLASSES = (ClassSpec(0, "grass", "#00ff00"), ClassSpec(2, "water & ice", "#0000ff"))


def read(path, start=0, stop=3):
    with open_class_map(str(path)) as class_map:
        return class_map.read_rows(start, stop)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32"])
def test_ids_of_any_type_are_read_and_nodata_is_none(make_raster, dtype):
    path = make_raster(IDS.astype(dtype), nodata=5)
    expected = np.where(IDS == 5, -1, IDS)
    assert read(path).dtype == np.int32
    np.testing.assert_array_equal(read(path), expected)
    np.testing.assert_array_equal(read(path, 1, 2), expected[1:2])


def test_a_nodata_value_that_no_pixel_can_have_takes_none_away():
    np.testing.assert_array_equal(
        _as_codes(np.uint32([[55_537, 3]]), -9999.0, "map"), [[55_537, 3]]
    )
    np.testing.assert_array_equal(_as_codes(np.float16([[7, 3]]), -3.4e38, "map"), [[7, 3]])


def test_more_than_255_classes(make_raster):
    ids = np.array([[0, 254, 255], [256, 40_000, 65_535]], np.uint16)
    expected = [[0, 254, 255], [256, 40_000, -1]]
    np.testing.assert_array_equal(read(make_raster(ids, nodata=65_535), 0, 2), expected)


def test_missing_numbers_and_a_mask_are_no_class(make_raster):
    floats = np.array([[0, np.nan], [1, 7]], np.float32)
    np.testing.assert_array_equal(read(make_raster(floats), 0, 2), [[0, -1], [1, 7]])
    ids, mask = np.array([[3, 4]], np.uint8), np.array([[255, 0]], np.uint8)
    np.testing.assert_array_equal(read(make_raster(ids, mask=mask), 0, 1), [[3, -1]])


@pytest.mark.parametrize("value", [-3.0, 0.5, 2.0**31])
def test_what_is_no_id_is_refused(make_raster, value):
    path = make_raster(np.array([[1, value]], np.float32))
    with pytest.raises(DtypeMismatchError, match="whole numbers from 0 to"):
        read(path, 0, 1)


def test_pictures_are_refused(make_raster):
    with pytest.raises(BandMismatchError, match="one band; .* has 3"):
        read(make_raster(np.zeros((3, 4, 4), np.uint8)))
    with pytest.raises(DtypeMismatchError, match="complex64"):
        read(make_raster(np.zeros((4, 4), np.complex64)))


def test_control_points_alone_are_refused(make_raster):
    path = make_raster(IDS.astype(np.uint8), transform=None, crs=None)
    points = [
        rasterio.control.GroundControlPoint(r, c, 10 + c, 50 - r) for r, c in [(0, 0), (3, 4)]
    ]
    with quiet_georeference(), rasterio.open(path, "r+") as dataset:
        dataset.gcps = [*points, rasterio.control.GroundControlPoint(0, 4, 14, 50)], "EPSG:4326"
    with pytest.raises(GeoreferenceError, match="gdalwarp"):
        read(path)


def test_what_cannot_be_opened_or_read_is_said(make_raster, tmp_path):
    with pytest.raises(RasterReadError, match="cannot be opened"):
        read(tmp_path / "none.tif")
    path = make_raster(np.random.default_rng(0).integers(0, 9, (300, 300)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(RasterReadError, match="rows 0 to 300 cannot be read"):
        read(path, 0, 300)


def test_names_and_colours_beside_the_map(make_raster):
    path = make_raster(IDS.astype(np.uint8), nodata=255)
    layer = Layer("class_map", "uint8", 255, classes=CLASSES)
    path.with_name(path.name + ".aux.xml").write_text(pam_text(layer), encoding="utf-8")
    with open_class_map(str(path)) as class_map:
        classes = class_map.classes
    assert (classes.name(0), classes.name(2), classes.name(7)) == (
        "grass",
        "water & ice",
        "class 7",
    )
    assert (classes.color(2), len(classes.color(7))) == ("#0000ff", 7)
    assert classes.ids(["Grass", 2, "11"], "--classes") == {0, 2, 11}
    with pytest.raises(UsageError, match="no class 'gras'; the map has 0 'grass', 2 'water & ice'"):
        classes.ids(["gras"], "--classes")


def test_names_in_an_attribute_table(make_raster):
    path = make_raster(IDS.astype(np.uint8))
    fields = [("Value", 0, 5), ("Class", 2, 2), ("R", 0, 6), ("G", 0, 7), ("B", 0, 8)]
    defined = "".join(
        f'<FieldDefn index="{i}"><Name>{n}</Name><Type>{t}</Type><Usage>{u}</Usage></FieldDefn>'
        for i, (n, t, u) in enumerate(fields)
    )
    row = "".join(f"<F>{v}</F>" for v in (9, "bare rock", 1, 2, 255))
    path.with_name(path.name + ".aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable>'
        f'{defined}<Row index="0">{row}</Row>'
        "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
    )
    with rasterio.open(path) as dataset:
        assert read_classes(dataset) == ClassTable({9: "bare rock"}, {9: "#0102ff"})


def test_confidence_has_its_scale_and_nodata(make_raster):
    class_map = make_raster(IDS.astype(np.uint8), "map.tif")
    stored = np.array([[0, 127, 254, 255]] * 3, np.uint8)
    path = make_raster(stored, "confidence.tif", nodata=255, scales=(1 / 254,))
    with open_class_map(str(class_map)) as source, open_confidence(path, source) as confidence:
        np.testing.assert_allclose(confidence.read_rows(0, 1), [[0, 0.5, 1, np.nan]])


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"values": np.zeros((3, 5), np.uint8)}, "of 4 x 3 px like the map; .* has 5 x 3"),
        ({"transform": NORTH_UP @ Affine.translation(1, 0)}, "lies 1 px off"),
        ({"crs": "EPSG:32634"}, "has another CRS"),
    ],
)
def test_confidence_on_another_grid_is_refused(make_raster, other, match):
    class_map = make_raster(IDS.astype(np.uint8), "map.tif")
    values = other.pop("values", np.zeros((3, 4), np.uint8))
    path = make_raster(values, "confidence.tif", **other)
    with open_class_map(str(class_map)) as source, pytest.raises(InputError, match=match):
        with open_confidence(path, source):
            pass


def test_reading_ahead_changes_nothing():
    class Rows:
        def read_rows(self, start, stop):
            return np.arange(start, stop)[:, None]

    reading = ReadAhead(Rows(), 10, 1)
    for start, stop in [(0, 4), (4, 8), (8, 10), (0, 3), (5, 9)]:
        assert reading.read_rows(start, stop).ravel().tolist() == list(range(start, stop))
    reading.close()
