"""Parts are ordinary GeoTIFFs, the map a COG with its legend."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from geoseg.errors import DiskFullError, MachineError
from geoseg.raster import PartsWriter, finish_cog
from geoseg.raster import writer as writer_module
from geoseg.raster.georef import Georef
from geoseg.raster.layer import Layer, pam_text, qml_text
from geoseg.raster.writer import machine_errors
from geoseg.spec import ClassSpec
from geoseg.types import Window
from tests.conftest import ROTATED

GEOREF = Georef(CRS.from_epsg(32633), ROTATED, "Area")
CLASSES = (
    ClassSpec(0, 'rest & "odd" <b>', "#000000"),
    ClassSpec(3, "Gebäude", "#ff8000"),
)
CLASS_MAP = Layer("class_map", "uint8", 255, classes=CLASSES)
SCORES = Layer(
    "probabilities",
    "uint8",
    255,
    bands=2,
    band_names=("a", "b"),
    scale=1 / 254,
    overviews="AVERAGE",
)


def write(folder, values, windows, layer=CLASS_MAP):
    """Write panels of an array (bands, H, W) and return the writer and the finished windows."""
    writer = PartsWriter(folder, [layer], *values.shape[1:], GEOREF)
    for i, w in enumerate(windows):
        writer.open_panel(i, w)
        part = values[:, w.row : w.row_end, w.col : w.col_end]
        half = w.height // 2
        writer.write_rows(0, {layer.name: part[:, :half]})
        writer.write_rows(half, {layer.name: part[:, half:]})
        writer.commit_panel()
    return writer, dict(enumerate(windows))


@pytest.fixture
def values():
    return np.random.default_rng(0).choice([0, 3, 255], (1, 700, 900)).astype(np.uint8)


WINDOWS = [Window(0, 0, 400, 900), Window(400, 0, 300, 500), Window(400, 500, 300, 400)]


def test_panels_and_the_vrt_over_them(tmp_path, values):
    writer, done = write(tmp_path, values, WINDOWS)
    vrt = writer.write_vrt(CLASS_MAP, done, {"GEOSEG_MODEL": "x & y"})
    with rasterio.open(vrt) as dataset:
        assert np.array_equal(dataset.read(), values)
        assert dataset.transform == ROTATED
        assert dataset.tags()["GEOSEG_MODEL"] == "x & y"
        assert dataset.colormap(1)[3] == (255, 128, 0, 255)
    with rasterio.open(writer.panel_path(CLASS_MAP, 2)) as panel:
        assert panel.transform @ (0, 0) == pytest.approx(ROTATED @ (500, 400))


def test_an_unfinished_map_opens_with_nodata_where_nothing_is(tmp_path, values):
    writer, done = write(tmp_path, values, WINDOWS[:1])
    with rasterio.open(writer.write_vrt(CLASS_MAP, done, {})) as dataset:
        read = dataset.read()
    assert np.array_equal(read[:, :400], values[:, :400])
    assert (read[:, 400:] == 255).all()


def test_the_cog(tmp_path, values):
    writer, done = write(tmp_path, values, WINDOWS)
    vrt = writer.write_vrt(CLASS_MAP, done, {})
    out = finish_cog(vrt, tmp_path / "out.tif", CLASS_MAP, threads=2)
    valid, errors, warnings = cog_validate(out, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(out) as dataset:
        assert np.array_equal(dataset.read(), values)
        assert dataset.transform == ROTATED
        assert dataset.crs == GEOREF.crs
        assert dataset.nodata == 255
        assert dataset.overviews(1) == [2]
    again = finish_cog(vrt, tmp_path / "again.tif", CLASS_MAP, threads=1)
    assert again.read_bytes() == out.read_bytes()


def test_overviews_of_classes_hold_classes_only(tmp_path):
    checker = np.where(np.indices((1100, 1100)).sum(0) % 3, 3, 0).astype(np.uint8)[None]
    writer, done = write(tmp_path, checker, [Window(0, 0, 1100, 1100)])
    out = finish_cog(
        writer.write_vrt(CLASS_MAP, done, {}), tmp_path / "o.tif", CLASS_MAP, threads=1
    )
    with rasterio.open(out, overview_level=0) as dataset:
        assert set(np.unique(dataset.read())) <= {0, 3}


def test_scores_are_scaled_and_averaged(tmp_path):
    values = np.zeros((2, 600, 600), np.uint8)
    values[0, ::2] = 200
    writer, done = write(tmp_path, values, [Window(0, 0, 600, 600)], SCORES)
    out = finish_cog(writer.write_vrt(SCORES, done, {}), tmp_path / "o.tif", SCORES, threads=1)
    with rasterio.open(out) as dataset:
        assert dataset.scales == (1 / 254, 1 / 254)
        assert dataset.descriptions == ("a", "b")
        assert np.array_equal(dataset.read(), values)
    with rasterio.open(out, overview_level=0) as dataset:
        assert set(np.unique(dataset.read(1))) == {100}


def test_more_than_255_classes(tmp_path):
    layer = Layer("class_map", "uint16", 65535, classes=(ClassSpec(300, "c", "#112233"),))
    values = np.full((1, 100, 100), 300, np.uint16)
    writer, done = write(tmp_path, values, [Window(0, 0, 100, 100)], layer)
    out = finish_cog(writer.write_vrt(layer, done, {}), tmp_path / "o.tif", layer, threads=1)
    with rasterio.open(out) as dataset:
        assert (dataset.dtypes, dataset.nodata) == (("uint16",), 65535)
        assert (dataset.read() == 300).all()


def test_no_georeference_at_all(tmp_path, values):
    none = Georef(None, rasterio.Affine.identity())
    writer = PartsWriter(tmp_path, [CLASS_MAP], 700, 900, none)
    with writer_module_quiet():
        writer.open_panel(0, Window(0, 0, 700, 900))
        writer.write_rows(0, {"class_map": values})
        writer.commit_panel()
        vrt = writer.write_vrt(CLASS_MAP, {0: Window(0, 0, 700, 900)}, {})
        out = finish_cog(vrt, tmp_path / "o.tif", CLASS_MAP, threads=1)
        with rasterio.open(out) as dataset:
            assert dataset.crs is None
            assert np.array_equal(dataset.read(), values)


def writer_module_quiet():
    from geoseg.raster.gdal import quiet_georeference

    return quiet_georeference()


def test_the_legend_has_the_classes_and_nothing_else():
    entries = ET.fromstring(qml_text(CLASS_MAP)).findall(".//paletteEntry")
    found = [(e.get("value"), e.get("label"), e.get("color")) for e in entries]
    assert found == [("0", 'rest & "odd" <b>', "#000000"), ("3", "Gebäude", "#ff8000")]
    pam = ET.fromstring(pam_text(CLASS_MAP))
    names = [c.text or "" for c in pam.findall(".//Category")]
    assert names == ['rest & "odd" <b>', "", "", "Gebäude"]
    assert pam.findall(".//Entry")[3].attrib == {"c1": "255", "c2": "128", "c3": "0", "c4": "255"}


def test_a_panel_that_was_not_committed_leaves_nothing(tmp_path, values):
    writer = PartsWriter(tmp_path, [CLASS_MAP], 700, 900, GEOREF)
    writer.open_panel(0, WINDOWS[0])
    writer.write_rows(0, {"class_map": values[:, :10]})
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "_free_bytes", lambda _: 1000)
    with pytest.raises(DiskFullError, match="disk .* is full .*give --resume"):
        with machine_errors(tmp_path):
            raise OSError(28, "No space left on device")
    monkeypatch.setattr(writer_module, "_free_bytes", lambda _: 10**12)
    with pytest.raises(MachineError, match=r"cannot be written: .*Permission denied"):
        with machine_errors(tmp_path):
            raise PermissionError(13, "Permission denied")
