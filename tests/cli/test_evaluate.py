"""``geoseg evaluate``: what it prints, its exit codes, and the messages of wrong use."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import yaml

NAMES = ["class 0", "class 1", "class 2"]


@pytest.fixture
def scene(make_raster):
    values = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    return make_raster(values, "scene.tif")


@pytest.fixture
def labels(make_raster):
    values = np.random.default_rng(1).integers(0, 3, (64, 64)).astype(np.uint8)
    values[:20] = 255
    return make_raster(values, "labels.tif")


@pytest.fixture
def run_file(tmp_path, make_raster):
    rng = np.random.default_rng(2)
    bare = {"crs": None, "transform": None}
    for i in range(2):
        image = rng.integers(0, 255, (3, 64, 64)).astype(np.uint8)
        make_raster(image, f"data/images/{i}.tif", **bare)
        make_raster(rng.integers(0, 3, (64, 64)).astype(np.uint8), f"data/masks/{i}.tif", **bare)
    files = {"images": str(tmp_path / "data/images"), "labels": str(tmp_path / "data/masks")}
    classes = [{"id": k, "name": name} for k, name in enumerate(NAMES)]
    data = {"kind": "folder", "train": files, "val": files, "classes": classes}
    run = {"out": str(tmp_path / "run"), "model": {"name": "segnext_t"}, "data": data}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run), "utf-8")
    return tmp_path / "run.yaml"


def test_a_raster_is_scored_and_the_table_and_files_are_printed(
    geoseg, model, scene, labels, tmp_path
):
    out = tmp_path / "eval"
    done = geoseg("evaluate", model, scene, "--labels", labels, "--out", out, "--progress", "none")
    assert done.code == 0, done.err
    found = json.loads((out / "metrics.json").read_text("utf-8"))
    assert done.lines[0].split() == [
        "class",
        "IoU",
        "recall",
        "precision",
        "boundary",
        "IoU",
        "pixels",
    ]
    assert done.lines[1].startswith("class 0 ")
    assert f"mIoU {found['scores']['miou']:.4f}" in done.out
    printed = [line for line in done.lines if line.startswith(str(out))]
    names = ["class_map.tif", "error_map.tif", "errors.gpkg", "cells.gpkg", "metrics.json"]
    names += ["report.html"]
    assert printed == [str(out / name) for name in names]
    assert all((out / name).exists() for name in names)


def test_json_is_the_content_of_the_file(geoseg, model, scene, labels, tmp_path):
    arguments = ["--labels", labels, "--out", tmp_path / "eval", "--json", "--progress", "none"]
    done = geoseg("evaluate", model, scene, *arguments)
    assert done.code == 0
    assert json.loads(done.out) == json.loads((tmp_path / "eval" / "metrics.json").read_text())


def test_progress_is_one_json_object_a_line(geoseg, model, scene, labels, tmp_path):
    out = tmp_path / "eval"
    done = geoseg("evaluate", model, scene, "--labels", labels, "--out", out, "--progress", "json")
    events = [json.loads(line) for line in done.lines]
    assert events[0]["event"] == "start"
    assert events[0]["command"] == "evaluate"
    assert events[-1]["event"] == "result"
    assert events[-1]["outputs"]["error_map"] == str(out / "error_map.tif")
    assert events[-1]["outputs"]["errors"] == str(out / "errors.gpkg")
    assert [e["event"] for e in events].count("start") == 1
    assert 0 <= events[-1]["scores"]["miou"] <= 1


def test_a_run_file_is_scored_beside_the_run(geoseg, model, run_file, tmp_path):
    done = geoseg("evaluate", model, run_file, "evaluation.flip=true", "--progress", "none")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run" / "evaluation_val" / "metrics.json").read_text("utf-8"))
    assert found["settings"]["flip"] is True
    assert found["samples"] == 2


def test_points_give_areas_with_intervals(geoseg, model, scene, labels, tmp_path):
    first = tmp_path / "first"
    geoseg("evaluate", model, scene, "--labels", labels, "--out", first, "--progress", "none")
    with rasterio.open(first / "class_map.tif") as dataset:
        ids, transform = dataset.read(1), dataset.transform
    places = [p for k in np.unique(ids) for p in np.argwhere(ids == k)[::7][:30].tolist()]
    xs, ys = transform @ np.array([(col + 0.5, row + 0.5) for row, col in places]).T
    reference = [NAMES[(row + col) % 3] for row, col in places]
    points = geopandas.GeoDataFrame(
        {"seen": reference}, geometry=geopandas.points_from_xy(xs, ys), crs=32633
    )
    points.to_file(tmp_path / "points.gpkg")
    arguments = ["--labels", labels, "--out", tmp_path / "eval", "--progress", "none"]
    arguments += ["--sample-points", tmp_path / "points.gpkg", "--reference-field", "seen"]
    undeclared = geoseg("evaluate", model, scene, *arguments)
    assert undeclared.code == 2
    assert "--sample-points needs --sampling-design stratified or simple" in undeclared.err
    done = geoseg("evaluate", model, scene, *arguments, "--sampling-design", "stratified")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text("utf-8"))
    assert found["area"]["kind"] == "estimated"
    assert found["area"]["rows"][0]["area_low_m2"] < found["area"]["rows"][0]["area_m2"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["SCENE", "--out", "eval"], 2, "a raster is evaluated with --labels FILE"),
        (["SCENE", "--labels", "LABELS"], 2, "a raster is evaluated with --out DIR"),
        (["SCENE", "a=b", "--labels", "LABELS", "--out", "e"], 2, "expected one RASTER, or a CONF"),
        (["RUN", "--labels", "LABELS"], 2, "--labels is for a raster; a data set is scored"),
        (["RUN", "--tile-size", "64"], 2, "--tile-size is for a raster"),
        (["RUN", "--tta", "d4"], 2, "--tta is for a raster"),
        (["RUN", "--json", "--progress", "json"], 2, "--json and --progress json both write"),
        (["SCENE", "--labels", "nowhere.tif", "--out", "e"], 3, "'nowhere.tif' cannot be opened"),
        (
            ["SCENE", "--labels", "LABELS", "--out", "e", "--background", "class 0"],
            2,
            "--background is for polygons",
        ),
        (
            ["SCENE", "--labels", "LABELS", "--out", "e", "--cell-size", "0.001"],
            2,
            "--cell-size: expected at least a pixel, 0.3 m; got 0.001 m.",
        ),
        (
            ["SCENE", "--labels", "LABELS", "--out", "e", "--store-temperature", "a.onnx"],
            2,
            "--store-temperature: expected a name that ends with .safetensors; got 'a.onnx'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_use_is_a_sentence(
    geoseg, model, scene, labels, run_file, tmp_path, monkeypatch, arguments, code, said
):
    monkeypatch.chdir(tmp_path)
    names = {"SCENE": scene, "LABELS": labels, "RUN": run_file}
    done = geoseg("evaluate", model, *(names.get(a, a) for a in arguments))
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err
