"""The Processing algorithms in real QGIS with the real engine, on a piece of the real scene."""

import json
import re

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from shapely.geometry import box

from tests.qgis.engines import real_engine
from tests.qgis.session import MODEL, SCENE, geoseg, qgis_environment, run_script, write_long_image

pytestmark = pytest.mark.qgis
IDS = {"segment", "vectorize", "teach", "evaluate", "describe"}
FIRST = ("segment", "held_open", "one_band", "without_crs", "describe")
SECOND = ("cancel", "resume", "cancel_temporary", "modeler")
THIRD = ("teach", "list_taught", "evaluate")
FOURTH = ("vectorize", "polygons")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return real_engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and polygons, under a name with a blank and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("data") / "Bäume und Häuser 樹"
    folder.mkdir()
    write_pieces(folder)
    write_long_image(folder / "long.tif")
    return folder


@pytest.fixture(scope="module")
def run(folder, engine, qgis_python, tmp_path_factory):
    """Return a function that runs steps of real_runs.py in one QGIS."""
    environment = qgis_environment(tmp_path_factory.mktemp("profile"), engine)

    def run_steps(steps):
        return run_script(
            qgis_python, "real_runs.py", folder, MODEL, *steps, environment=environment
        )

    return run_steps


@pytest.fixture(scope="module")
def maps(run):
    return run(FIRST)


@pytest.fixture(scope="module")
def stopped(run):
    return run(SECOND)


@pytest.fixture(scope="module")
def taught(run):
    return run(THIRD)


@pytest.fixture(scope="module")
def polygons(run, maps):
    return run(FOURTH)


def write_pieces(folder):
    with rasterio.open(SCENE) as scene:
        window = Window(700, 700, 320, 288)
        values = scene.read(window=window)
        profile = {
            "driver": "GTiff",
            "dtype": "uint8",
            "width": 320,
            "height": 288,
            "crs": scene.crs,
            "transform": scene.window_transform(window),
        }
    for name, count, crs in (("image", 3, True), ("one_band", 1, True), ("no_crs", 3, False)):
        own = {**profile, "count": count, "crs": profile["crs"] if crs else None}
        with rasterio.open(folder / f"{name}.tif", "w", **own) as written:
            written.write(values[:count])
    left, top = profile["transform"].c, profile["transform"].f
    step = 288 * profile["transform"].a / 8
    squares = [
        box(left + i * step, top - (j + 1) * step, left + (i + 0.8) * step, top - j * step)
        for i in range(8)
        for j in range(8)
    ]
    names = ["building" if i % 3 else "background" for i in range(len(squares))]
    geopandas.GeoDataFrame({"class": names}, geometry=squares, crs=profile["crs"]).to_file(
        folder / "labels.gpkg", layer="labels"
    )


def pixels(path):
    with rasterio.open(path) as raster:
        return raster.read()


def test_the_provider_lists_the_five_algorithms(maps):
    found = {name for name in maps["algorithms"] if name.startswith("geoseg:")}
    assert found == {f"geoseg:{name}" for name in IDS}


def test_a_map_has_the_bytes_of_the_command_line(maps, folder, engine):
    assert maps["segment"]["error"] == ""
    geoseg(
        engine,
        *("predict", MODEL, folder / "image.tif", folder / "map.tif"),
        *("--confidence", folder / "confidence.tif", "--progress", "none"),
    )
    for name in ("map.tif", "confidence.tif", "map.qml", "map.tif.aux.xml"):
        assert (folder / f"qgis {name}").read_bytes() == (folder / name).read_bytes()
    assert maps["segment"]["outputs"]["OUTPUT"] == str(folder / "qgis map.tif")


def test_progress_ends_at_100_and_the_model_warns_that_it_is_a_demonstration(maps):
    assert maps["segment"]["percents"][-1] == 100
    assert any("Demonstration model" in line for line in maps["segment"]["lines"])


def test_a_map_that_the_project_shows_is_not_replaced_under_it(maps, folder):
    assert maps["held_open"]["outputs"]["OUTPUT"] == str(folder / "qgis map_2.tif")
    assert (folder / "qgis map_2.tif").read_bytes() == (folder / "qgis map.tif").read_bytes()
    assert any("instead" in line for line in maps["held_open"]["lines"])


def test_a_raster_with_too_few_bands_is_refused_with_the_engines_sentence(maps, folder):
    assert re.search(r"expects 3 band.*has 1 uint8 band", maps["one_band"]["error"])
    assert not list(folder.glob("refused*"))


def test_a_raster_without_crs_is_refused_unless_it_runs_at_its_own_pixels(maps, folder):
    assert "CRS" in maps["without_crs"]["refused"]["error"]
    assert maps["without_crs"]["native"]["error"] == ""
    with rasterio.open(folder / "no_crs_map.tif") as written:
        assert written.crs is None


def test_a_model_is_described_with_its_record_its_page_and_whether_it_fits(maps, folder):
    outputs = maps["describe"]["outputs"]
    assert outputs["FITS"] is True
    assert json.loads(outputs["RECORD"])["name"] == MODEL
    page = (folder / "description.html").read_text(encoding="utf-8")
    assert "building" in page
    assert "Demonstration model" in page


def test_cancel_keeps_the_finished_part_and_shows_it(stopped, folder):
    cancelled = stopped["cancel"]
    assert cancelled["outputs"] == {}
    assert cancelled["there"] == ["stopped.tif.parts"]
    ((name, source, is_valid),) = cancelled["layers"]
    assert (name, is_valid) == ("stopped (unfinished)", True)
    assert source.endswith("stopped.tif.parts/class_map.vrt")
    assert any("is kept in" in line for line in cancelled["lines"])


def test_the_same_run_again_goes_on_and_gives_the_same_map(stopped, folder, engine):
    resumed = stopped["resume"]
    assert resumed["error"] == ""
    assert resumed["seen"] == ["panel-00000.class_map.tif"]
    assert resumed["layers"] == []
    assert resumed["there"] == ["stopped.qml", "stopped.tif", "stopped.tif.aux.xml"]
    whole = folder / "whole.tif"
    tiles = ("--tile-size", 512, "--overlap", 64, "--progress", "none")
    geoseg(engine, "predict", MODEL, folder / "long.tif", whole, *tiles)
    assert (folder / "stopped.tif").read_bytes() == whole.read_bytes()


def test_a_cancelled_temporary_map_leaves_nothing(stopped):
    assert stopped["cancel_temporary"]["outputs"] == {}
    assert stopped["cancel_temporary"]["left"] == []


def test_the_modeler_runs_segment_raster(stopped, folder):
    assert stopped["modeler"]["ok"], stopped["modeler"]
    assert set(np.unique(pixels(folder / "model map.tif"))) <= {0, 1}


def test_a_taught_model_has_the_bytes_of_the_command_line(taught, folder, engine):
    assert taught["teach"]["error"] == "", taught["teach"]["lines"]
    same = folder / "elsewhere"
    same.mkdir()
    out = same / "taught in qgis.safetensors"
    options = ("--class-field", "class", "--steps", 2, "--batch-size", 1, "--crop-size", 64)
    words = (MODEL, folder / "image.tif", folder / "labels.gpkg", out, *options)
    geoseg(engine, "finetune", *words, "--progress", "none")
    assert out.read_bytes() == (folder / out.name).read_bytes()


def test_a_taught_model_is_in_the_list_at_once(taught, folder):
    path = str(folder / "taught in qgis.safetensors")
    assert taught["list_taught"]["before"] == [path]
    shipped, *_, added = taught["list_taught"]["rows"]
    assert shipped[:3] == [MODEL, f"{MODEL} (demonstration model)", ["background", "building"]]
    assert added[0] == path
    assert added[2] == ["background", "building"]


def test_an_evaluation_gives_scores_report_and_maps(taught, folder):
    outputs = taught["evaluate"]["outputs"]
    found = folder / "evaluation in qgis"
    scores = json.loads((found / "metrics.json").read_text(encoding="utf-8"))["scores"]
    assert outputs["MIOU"] == scores["miou"]
    assert outputs["REPORT"] == str(found / "report.html")
    assert (found / "error_map.tif").is_file()
    assert outputs["ERRORS"] == str(found / "errors.gpkg")
    assert len(geopandas.read_file(outputs["ERRORS"], layer="errors")) > 0


def test_polygons_have_the_features_of_the_command_line(polygons, folder, engine):
    assert polygons["vectorize"]["error"] == "", polygons["vectorize"]["lines"]
    words = (folder / "qgis map.tif", folder / "polygons.gpkg", "--min-area", 2)
    geoseg(engine, "vectorize", *words, "--progress", "none")
    ours = geopandas.read_file(folder / "qgis polygons.gpkg", layer="qgis polygons")
    theirs = geopandas.read_file(folder / "polygons.gpkg", layer="polygons")
    assert len(ours) > 0
    assert ours.equals(theirs)


def test_segment_raster_makes_polygons_of_its_map(polygons, folder):
    assert polygons["polygons"]["error"] == "", polygons["polygons"]["lines"]
    found = geopandas.read_file(folder / "both.gpkg", layer="both")
    assert set(found["class_name"]) <= {"background", "building"}
