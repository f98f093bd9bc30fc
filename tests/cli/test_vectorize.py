"""``geoseg vectorize``, ``predict --vector``: exit codes, messages, events, how it is stopped."""

import json
import shutil
import signal
import subprocess
import sys

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pandas.testing import assert_frame_equal

from geoseg.errors import InterruptedRunError
from tests.conftest import ROOT


def events(done):
    return [json.loads(line) for line in done.lines]


def read(path):
    return pyogrio.read_dataframe(path, layer=path.stem)


@pytest.fixture
def class_map(make_raster):
    ids = np.zeros((60, 70), np.uint8)
    ids[10:30, 10:30], ids[40, 40] = 1, 2
    return make_raster(ids, "map.tif", nodata=255)


def test_polygons_in_one_command(geoseg, class_map, tmp_path):
    out = tmp_path / "layer.gpkg"
    done = geoseg("vectorize", class_map, out)
    assert (done.code, done.lines) == (0, [str(out)])
    assert "layer.gpkg: polygons of 70 x 60 px" in done.err
    assert "class 1: 1 polygons, 36.0288 m2 in the map, 36.0288 m2 in polygons" in done.err
    assert read(out)["class_id"].value_counts().to_dict() == {0: 1, 1: 1, 2: 1}


def test_events_are_the_only_thing_on_stdout(geoseg, class_map, tmp_path):
    out = tmp_path / "layer.fgb"
    done = geoseg("vectorize", class_map, out, "--min-area", "0.5", "--progress", "json")
    found = events(done)
    assert (done.code, done.err) == (0, "")
    assert found[0]["event"] == "start"
    assert found[0]["command"] == "vectorize"
    assert {e["event"] for e in found[1:-1]} == {"progress", "log"}
    result = found[-1]
    assert (result["event"], result["outputs"]) == ("result", {"vector": str(out)})
    assert (result["features"], result["pixels"], result["unit"]) == (2, 4200, "m2")
    assert [(c["id"], c["pixels"], c["features"]) for c in result["classes"]] == [
        (0, 3799, 1),
        (1, 400, 1),
        (2, 1, 0),
    ]


def corners(path):
    layer = read(path)
    outline = layer[layer["class_id"] == 1].geometry.iloc[0].exterior
    return len(outline.coords) - 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--smooth", "MAP", "OUT"),
        ("MAP", "OUT", "--smooth"),
        ("MAP", "--smooth", "OUT", "--classes", "1"),
        ("MAP", "OUT", "--smooth", "--overwrite"),
        ("MAP", "OUT", "--smooth", "0.3"),
        ("--smooth=auto", "MAP", "OUT"),
    ],
)
def test_smooth_needs_no_length(geoseg, class_map, tmp_path, arguments):
    out = tmp_path / "layer.gpkg"
    places = {"MAP": class_map, "OUT": out}
    done = geoseg("vectorize", *(places.get(a, a) for a in arguments))
    assert done.code == 0, done.err
    assert corners(out) > 4


def test_without_smooth_corners_stay(geoseg, class_map, tmp_path):
    assert geoseg("vectorize", class_map, tmp_path / "layer.gpkg").code == 0
    assert corners(tmp_path / "layer.gpkg") == 4


def test_what_cannot_be_is_said(geoseg, class_map, tmp_path):
    out = tmp_path / "layer.gpkg"
    for arguments, code, said in [
        ((class_map, tmp_path / "layer.kml"), 2, "ends with .gpkg"),
        ((class_map, out, "--smooth", "-1"), 2, "metres from 0 on"),
        ((class_map, out, "--classes", "roof"), 2, "no class 'roof'"),
        ((class_map, out, "--connectivity", "6"), 2, "'4', '8'"),
        ((tmp_path / "none.tif", out), 3, "cannot be opened"),
        ((class_map, tmp_path / "l.geojson", "--dst-crs", "EPSG:32633"), 2, "RFC 7946"),
        ((class_map, out, "--max-memory", "1MB"), 4, "--max-memory is 1 MB"),
    ]:
        done = geoseg("vectorize", *arguments)
        assert (done.code, said in done.err) == (code, True), done.err
    assert list(tmp_path.glob("l*")) == []
    done = geoseg("vectorize", tmp_path / "none.tif", out, "--progress", "json")
    assert events(done)[-1]["kind"] == "RasterReadError"


def test_replacing_needs_overwrite(geoseg, class_map, tmp_path):
    out = tmp_path / "layer.gpkg"
    assert geoseg("vectorize", class_map, out).code == 0
    done = geoseg("vectorize", class_map, out)
    assert (done.code, "Give --overwrite" in done.err) == (2, True)
    assert geoseg("vectorize", class_map, out, "--overwrite", "--classes", "1,2").code == 0
    assert sorted(read(out)["class_id"]) == [1, 2]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, "stdin"])
def test_a_stopped_run_leaves_nothing(make_raster, tmp_path, how):
    ids = np.random.default_rng(0).integers(0, 3, (4000, 4000)).astype(np.uint8)
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "geoseg", "vectorize", make_raster(ids)]
    command += [folder / "layer.gpkg", "--progress", "json", "--watch-stdin"]
    process = subprocess.Popen(
        [*map(str, command)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert json.loads(process.stdout.readline())["event"] == "start"
        if how == "stdin":
            process.stdin.close()
        else:
            process.send_signal(how)
        lines = process.stdout.read().splitlines()
        said = process.stderr.read()
    assert process.returncode == 130
    assert json.loads(lines[-1])["kind"] == "InterruptedRunError"
    assert said == "geoseg: stopped. Nothing was written.\n"
    assert list(folder.iterdir()) == []


def test_start_up_imports_neither_pandas_nor_torch(class_map, tmp_path):
    code = (
        "import sys; from geoseg.cli.main import cli\n"
        f"cli.main(args=['vectorize', {str(class_map)!r}, {str(tmp_path / 'o.gpkg')!r}, "
        "'--progress', 'none'], standalone_mode=False)\n"
        "heavy = {'pandas', 'geopandas', 'torch', 'pyproj', 'pyarrow.compute'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        # What vectorising leaves behind does not harm who uses them later.
        f"import geopandas; layer = geopandas.read_file({str(tmp_path / 'o.gpkg')!r}, layer='o')\n"
        "assert len(layer) == 3 and layer.crs.to_epsg() == 32633"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_predict_writes_polygons(geoseg, model, scene, tmp_path):
    out, vector = tmp_path / "map.tif", tmp_path / "map.gpkg"
    done = geoseg("predict", model, scene, out, "--vector", vector, "--progress", "json")
    result = events(done)[-1]
    assert (done.code, result["event"]) == (0, "result")
    assert [e["event"] for e in events(done)].count("start") == 1
    assert result["outputs"]["vector"] == str(vector)
    assert result["outputs"]["confidence"] is None
    layer = read(vector)
    assert set(layer["class_name"]) <= {"class 0", "class 1", "class 2"}
    assert layer["confidence"].between(0.3, 1).all()
    assert layer.area.sum() == pytest.approx(130 * 150 * 0.09)
    assert {p.name for p in tmp_path.iterdir()} - {"raster.tif"} == {
        *("map.tif", "map.tif.aux.xml", "map.qml", "map.gpkg"),
    }


def test_predict_keeps_a_confidence_that_was_asked_for(geoseg, model, scene, tmp_path):
    vector, confidence = tmp_path / "v.fgb", tmp_path / "c.tif"
    done = geoseg(
        "predict", model, scene, tmp_path / "m.tif", "--vector", vector, "--confidence", confidence
    )
    assert (done.code, confidence.exists()) == (0, True)
    assert done.lines == [str(tmp_path / "m.tif"), str(confidence), str(vector)]


@pytest.fixture
def stop(geoseg, model, tmp_path, monkeypatch):
    """Return a function that stops a prediction of rasters between its map and the polygons.

    It gives the command.
    """

    def stopped_now(*_, **__):
        raise InterruptedRunError("stopped")

    def run(*rasters):
        words = ("predict", model, *rasters, tmp_path / "m.tif", "--vector", tmp_path / "v.fgb")
        with monkeypatch.context() as patch:
            patch.setattr("geoseg.vector.vectorize_raster", stopped_now)
            done = geoseg(*words, "--progress=none")
        assert (done.code, done.lines) == (130, [])
        assert done.err.startswith("geoseg: stopped. The map is finished: give --resume to make ")
        return words

    return run


@pytest.fixture
def stopped(stop, scene):
    """Return the command of a prediction that was stopped between its map and the polygons."""
    return stop(scene)


def test_polygons_that_were_not_made_are_made_later(geoseg, model, scene, tmp_path, stopped):
    made = (tmp_path / "m.tif").stat().st_mtime_ns
    done = geoseg(*stopped, "--resume", "--progress", "json")
    found = events(done)
    assert (done.code, found[0]["event"], found[-1]["event"]) == (0, "log", "result")
    assert found[0]["message"] == f"{tmp_path / 'm.tif'} is finished: only its polygons are made"
    assert [e["event"] for e in found].count("start") == 1
    assert found[-1]["outputs"]["class_map"] == str(tmp_path / "m.tif")
    assert found[-1]["outputs"]["vector"] == str(tmp_path / "v.fgb")
    assert found[-1]["outputs"]["confidence"] is None
    assert (tmp_path / "m.tif").stat().st_mtime_ns == made
    assert list(tmp_path.glob(".*")) == []
    whole = (tmp_path / "w.tif", "--vector", tmp_path / "w.fgb")
    assert geoseg("predict", model, scene, *whole).code == 0
    assert_frame_equal(read(tmp_path / "v.fgb"), read(tmp_path / "w.fgb"))


def test_polygons_of_another_model_s_map_are_not_made(geoseg, stopped, tmp_path):
    command, _, *rest = stopped
    done = geoseg(command, "demo-buildings-banepa", *rest, "--gsd", "0.13", "--resume")
    assert (done.code, "m.tif' exists. Give --overwrite" in done.err) == (2, True)
    assert not (tmp_path / "v.fgb").exists()


@pytest.mark.parametrize(
    "more", [("--tta", "flips"), ("--probabilities", "p.tif"), ("other raster",), ("other map",)]
)
def test_polygons_of_another_run_s_map_are_not_made(geoseg, scene, stopped, tmp_path, more):
    command, model, _, *rest = stopped
    if more == ("other raster",):
        more, other = (), tmp_path / "other.tif"
        shutil.copy(scene, other)
        scene = other
    elif more == ("other map",):
        more = ()
        assert geoseg(command, model, scene, rest[0], "--tta", "flips", "--overwrite").code == 0
    done = geoseg(command, model, scene, *rest, *more, "--resume")
    assert (done.code, "m.tif' exists. Give --overwrite" in done.err) == (2, True)
    assert not (tmp_path / "v.fgb").exists()


@pytest.mark.parametrize("ways", [("--stack", "--mosaic"), ("--mosaic", "--stack")])
def test_polygons_of_rasters_put_together_otherwise_are_not_made(
    geoseg, scene, stop, tmp_path, ways
):
    before, now = ways
    other = tmp_path / "other.tif"
    shutil.copy(scene, other)
    command = stop(scene, other, "--bands", "1,2,3", before)
    done = geoseg(*(now if word == before else word for word in command), "--resume")
    assert (done.code, "m.tif' exists. Give --overwrite" in done.err) == (2, True)
    assert not (tmp_path / "v.fgb").exists()
    assert geoseg(*command, "--resume").code == 0


def test_polygons_of_another_area_s_map_are_not_made(geoseg, scene, stop, tmp_path):
    with rasterio.open(scene) as dataset:
        bounds, crs = dataset.bounds, dataset.crs
    field = shapely.box(*bounds).buffer(-6)
    geopandas.GeoSeries([field], crs=crs).to_file(tmp_path / "field.geojson")
    command = stop(scene, "--aoi", tmp_path / "field.geojson")
    kept = (tmp_path / "field.geojson").rename(tmp_path / "kept.geojson")
    geopandas.GeoSeries([field.buffer(-1)], crs=crs).to_file(tmp_path / "field.geojson")
    done = geoseg(*command, "--resume")
    assert (done.code, "m.tif' exists. Give --overwrite" in done.err) == (2, True)
    assert not (tmp_path / "v.fgb").exists()
    kept.replace(tmp_path / "field.geojson")
    assert geoseg(*command, "--resume").code == 0
    assert read(tmp_path / "v.fgb").total_bounds == pytest.approx(field.bounds, abs=1)


@pytest.mark.parametrize("where", ["run.finish_map", "vectorize_raster"])
def test_a_run_that_may_replace_polygons_still_may_when_it_resumes(
    geoseg, model, scene, tmp_path, monkeypatch, where
):
    def stop(*_, **__):
        raise InterruptedRunError("stopped")

    vector = tmp_path / "v.fgb"
    vector.write_text("old")
    words = ("predict", model, scene, tmp_path / "m.tif", "--vector", vector)
    with monkeypatch.context() as patch:
        patch.setattr(f"geoseg.{'predict' if '.' in where else 'vector'}.{where}", stop)
        assert geoseg(*words, "--overwrite").code == 130
    assert vector.read_text() == "old"
    done = geoseg(*words, "--resume")
    assert done.code == 0, done.err
    assert len(read(vector)) > 0


def test_predict_refuses_polygons_it_cannot_write(geoseg, model, scene, tmp_path):
    out = tmp_path / "map.tif"
    (tmp_path / "old.gpkg").touch()
    for arguments, said in [
        (("--vector", tmp_path / "v.kml"), "ends with .gpkg"),
        (("--vector", tmp_path / "old.gpkg"), "Give --overwrite"),
        (("--vector", tmp_path / "v.gpkg", "--shard", "1/2"), "--vector needs the whole map"),
    ]:
        done = geoseg("predict", model, scene, out, *arguments)
        assert (done.code, said in done.err) == (2, True), done.err
    other = scene.with_name("other.tif")
    other.write_bytes(scene.read_bytes())
    folder, vector = tmp_path / "maps", tmp_path / "v.gpkg"
    done = geoseg("predict", model, scene, other, folder, "--vector", vector)
    assert (done.code, "--vector names one file; got 2 rasters" in done.err) == (2, True)
    assert not out.exists()
