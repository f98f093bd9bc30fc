import json
import os
import sqlite3
import subprocess
import sys

import geopandas
import numpy as np
import pyarrow.parquet
import pyogrio
import pytest
import shapely

from geoseg.errors import InputError, InterruptedRunError, OutputExistsError, UsageError
from geoseg.vector import publish, write
from geoseg.vector.classes import ClassTable
from geoseg.vector.fields import Features
from geoseg.vector.geometry import Geometries
from geoseg.vector.publish import LOCK, check_output, staged
from geoseg.vector.styles import qml_text, store_style
from geoseg.vector.write import DRIVERS, LayerPlan, write_layer
from tests.vector.batches import batch_of, box

FIELDS = ["class_id", "class_name", "area_m2", "perim_m", "confidence", "on_edge", "geometry"]
CLASSES = ClassTable({1: "Wald", 2: "Gebäude & Höfe"}, {1: "#00ff00"})
PLAN = LayerPlan("layer", "EPSG:4326", multi=False, classes=CLASSES)
SUFFIXES = list(DRIVERS)


def features(*polygons, class_ids):
    batch = batch_of(list(polygons), class_ids)
    numbers = np.arange(len(polygons)) + 0.5
    numbers[0] = np.nan
    turned = Geometries.of(batch).turned()
    batch.on_edge[1:] = True
    return Features(batch, turned, numbers, numbers)


BATCHES = [
    features(box(0, 0, 2, 2) - box(0.5, 0.5, 1, 1), box(3, 3, 4, 4), class_ids=[1, 2]),
    features(box(5, 5, 6, 6), class_ids=[2]),
]


def read(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return pyogrio.read_dataframe(path, layer=pyogrio.list_layers(path)[0][0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_has_the_same_fields_and_values(tmp_path, suffix):
    path = tmp_path / f"layer{suffix}"
    write_layer(path, PLAN, iter(BATCHES))
    layer = read(path).sort_values("area_m2", na_position="first", ignore_index=True)
    layer = layer.sort_values(["on_edge", "class_id"], ignore_index=True)
    assert list(layer.columns) == FIELDS
    assert layer.crs.to_epsg() == 4326
    assert layer["class_id"].tolist() == [1, 2, 2]
    assert layer["class_name"].tolist() == ["Wald", "Gebäude & Höfe", "Gebäude & Höfe"]
    assert layer["on_edge"].tolist() == [False, False, True]
    assert layer["area_m2"].isna().tolist() == [True, True, False]
    assert shapely.area(layer.geometry.values).tolist() == [3.75, 1.0, 1.0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_layer_has_the_schema(tmp_path, suffix):
    path = tmp_path / f"layer{suffix}"
    write_layer(path, PLAN, iter([]))
    layer = read(path)
    assert len(layer) == 0
    if suffix != ".geojson":  # which has no schema
        assert list(layer.columns) == FIELDS
    assert layer.crs.to_epsg() == 4326


def test_geoparquet_says_what_it_holds(tmp_path):
    path = tmp_path / "layer.parquet"
    write_layer(path, PLAN, iter(BATCHES))
    file = pyarrow.parquet.ParquetFile(path)
    geo = json.loads(file.metadata.metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert column["bbox"] == [0.0, 0.0, 6.0, 6.0]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert file.metadata.num_row_groups == 1


def test_row_groups_are_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "ROW_GROUP_BYTES", 500)
    path = tmp_path / "layer.parquet"
    write_layer(path, PLAN, iter(BATCHES * 3))
    assert pyarrow.parquet.ParquetFile(path).metadata.num_row_groups == 3  # of six batches


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_a_crs_the_layer_has_none(tmp_path, suffix):
    if suffix == ".geojson":
        pytest.skip("refused before it is written")
    path = tmp_path / f"layer{suffix}"
    write_layer(path, LayerPlan("layer", None, multi=True, classes=CLASSES), iter(BATCHES))
    assert read(path).crs is None or "Undefined" in read(path).crs.name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_of_the_features_is_passed_on(tmp_path, suffix):
    def stopped():
        yield BATCHES[0]
        raise InterruptedRunError("stop")

    with pytest.raises(InterruptedRunError, match="stop"):
        write_layer(tmp_path / f"layer{suffix}", PLAN, stopped())


def test_a_shapefile_over_2_gb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "SHAPEFILE_LIMIT_BYTES", 600)
    with pytest.raises(InputError, match="2 GB that a shapefile can hold. Write .gpkg"):
        write_layer(tmp_path / "layer.shp", PLAN, iter(BATCHES * 3))


def test_a_shapefile_s_size_is_counted_to_the_byte(tmp_path, monkeypatch):
    path = tmp_path / "layer.shp"
    write_layer(path, PLAN, iter(BATCHES))
    monkeypatch.setattr(write, "SHAPEFILE_LIMIT_BYTES", path.stat().st_size)
    write_layer(tmp_path / "fits.shp", PLAN, iter(BATCHES))
    monkeypatch.setattr(write, "SHAPEFILE_LIMIT_BYTES", path.stat().st_size - 1)
    with pytest.raises(InputError):
        write_layer(tmp_path / "none.shp", PLAN, iter(BATCHES))


def test_a_name_that_a_shapefile_cannot_hold_is_refused(tmp_path):
    plan = LayerPlan("layer", None, multi=False, classes=ClassTable({1: "ä" * 128}))
    with pytest.raises(InputError, match="at most 254 bytes"):
        write_layer(tmp_path / "layer.shp", plan, iter(BATCHES))


def test_a_shapefile_s_names_are_utf8(tmp_path):
    write_layer(tmp_path / "layer.shp", PLAN, iter(BATCHES))
    assert (tmp_path / "layer.cpg").read_text() == "UTF-8"


def test_the_style_in_a_geopackage_is_the_layer_s_default(tmp_path):
    path = tmp_path / "layer.gpkg"
    write_layer(path, PLAN, iter(BATCHES))
    store_style(path, "layer", qml_text(CLASSES, [2, 1]))
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchall()
    connection.close()
    assert rows[0][:3] == ("layer", "geom", 1)
    assert 'label="Gebäude &amp; Höfe"' in rows[0][3]
    assert 'value="0,255,0,255"' in rows[0][3]
    assert [name for name, _ in pyogrio.list_layers(path)] == ["layer", "layer_styles"]


def stage(out, *names, overwrite=False):
    with staged(out, overwrite=overwrite) as folder:
        for name in names:
            (folder / name).write_text(f"new {name}")


def test_outputs_are_moved_whole(tmp_path):
    out = tmp_path / "deep" / "layer.shp"
    stage(out, "layer.shp", "layer.dbf", "layer.qml", "tmp.rows")
    assert {p.name for p in out.parent.iterdir()} == {"layer.shp", "layer.dbf", "layer.qml"}


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with staged(tmp_path / "layer.gpkg", overwrite=False) as folder:
            (folder / "layer.gpkg").write_text("half")
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_left_is_removed_and_a_run_at_work_is_not(tmp_path):
    out = tmp_path / "layer[1].gpkg"
    killed, mine = tmp_path / ".layer[1].gpkg.abc.part", tmp_path / ".layer[1].gpkg.mine.part"
    for folder in (killed, mine):
        folder.mkdir()
    (killed / LOCK).touch()
    os.utime(killed / LOCK, (0, 0))
    with staged(out, overwrite=False) as at_work:
        (at_work / out.name).write_text("first")
        with pytest.raises(OutputExistsError):
            with staged(out, overwrite=False) as second:
                out.touch()
        assert not second.exists()
        assert at_work.exists()
        assert not killed.exists()
        out.unlink()
    assert out.read_text() == "first"
    assert set(tmp_path.iterdir()) == {out, mine}


def test_replacing_needs_overwrite_and_takes_all_sidecars(tmp_path):
    out = tmp_path / "layer.shp"
    for name in ("layer.shp", "layer.dbf", "layer.sbn", "layer.txt"):
        (tmp_path / name).write_text("old")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        stage(out, "layer.shp", "layer.dbf")
    assert (tmp_path / "layer.dbf").read_text() == "old"
    stage(out, "layer.shp", "layer.dbf", overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"layer.shp", "layer.dbf", "layer.txt"}
    assert out.read_text() == "new layer.shp"


def test_a_bad_name_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"ends with .gpkg, .shp, .geojson, .fgb, .parquet"):
        check_output(tmp_path / "layer.kml", overwrite=False)
    with pytest.raises(UsageError, match="is an input of this run"):
        source = tmp_path / "layer.gpkg"
        check_output(source, overwrite=True, inputs=[source])


def test_a_raster_keeps_its_own_style(tmp_path):
    out = tmp_path / "map.fgb"
    assert publish.style_file(out, overwrite=False) == tmp_path / "map.qml"
    (tmp_path / "map.qml").touch()
    assert publish.style_file(out, overwrite=False) is None
    assert publish.style_file(out, overwrite=True) == tmp_path / "map.qml"
    (tmp_path / "map.tif").touch()
    assert publish.style_file(out, overwrite=True) is None


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from geoseg.cli.main import main
main(["vectorize", *sys.argv[1:], "--progress", "none"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet"])
def test_a_process_whose_writing_fails_ends_and_leaves_nothing(make_raster, tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 5, (700, 700)).astype(np.uint8)
    class_map = make_raster(noise, "map.tif", nodata=255)
    folder = tmp_path / "out"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(class_map), str(folder / f"layer{suffix}")],
        capture_output=True,
        text=True,
        timeout=120,  # a thread that is not told to end would keep the process for ever
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []
