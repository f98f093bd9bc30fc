"""A raster is scored through the path of predict, and all files are made or a sentence."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine

from geoseg.checkpoint import load_model, read_spec
from geoseg.config import PredictOptions
from geoseg.data.sample import IGNORE
from geoseg.errors import InputError, InterruptedRunError, OutputExistsError, UsageError
from geoseg.evaluate import EvaluateOptions, evaluate_raster
from geoseg.evaluate import scene as scene_module
from geoseg.evaluate.boundary import BoundaryCounts
from geoseg.evaluate.labels import LabelOptions
from geoseg.evaluate.metrics import class_scores, count_pairs
from geoseg.evaluate.points import PointOptions
from geoseg.listener import Listener
from geoseg.predict import predict_raster
from geoseg.raster import mosaic
from geoseg.raster.gdal import quiet_georeference
from geoseg.segmenter import Segmenter
from geoseg.spec import ClassSpec
from tests.conftest import NORTH_UP, Levels, levels_model, make_spec

SHAPE = (90, 130)
FILES = {"class_map.tif", "class_map.qml", "class_map.tif.aux.xml", "error_map.tif"}
FILES |= {"error_map.qml", "error_map.tif.aux.xml", "errors.gpkg", "cells.gpkg", "metrics.json"}
FILES |= {"report.html"}


@pytest.fixture
def truth():
    """Channels: areas of 4 classes, of which 3 is not labelled somewhere."""
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 4, (9, 13)), np.ones((10, 10), int)).astype(np.uint8)


@pytest.fixture
def image(truth, make_raster):
    """An image in which an identity model sees the truth with errors, and nodata."""
    rng = np.random.default_rng(1)
    seen = np.where(rng.random(SHAPE) < 0.2, rng.integers(0, 4, SHAPE), truth).astype(np.uint8)
    seen[:8, :8] = 99
    return make_raster(seen, "image.tif", nodata=99)


@pytest.fixture
def labels(truth, make_raster):
    values = truth.copy()
    values[40:60] = 255
    return make_raster(values, "labels.tif")


def model(**fields):
    return levels_model(4, gsd_m=(0.1, 1.0), **fields)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_scores_are_those_of_the_map_that_predict_makes(image, labels, tmp_path):
    out = tmp_path / "eval"
    record = evaluate_raster(model(), image, labels, out, options=EvaluateOptions(cell_m=6.0))
    predict_raster(model(), image, tmp_path / "plain.tif")
    assert (out / "class_map.tif").read_bytes() == (tmp_path / "plain.tif").read_bytes()
    predicted, target = read(out / "class_map.tif"), read(labels)
    target = np.where((predicted == 255) | (target == 255), IGNORE, target)
    counts = count_pairs(torch.from_numpy(target), torch.from_numpy(predicted), 4).numpy()
    assert record.confusion == tuple(map(tuple, counts.tolist()))
    assert record.scores["miou"] == pytest.approx(np.mean(class_scores(counts)["iou"]))
    assert record.pixels == counts.sum() == (target != IGNORE).sum()
    assert record.ignored_pixels == 20 * 130 + 8 * 8
    assert [c.pixels for c in record.classes] == counts.sum(axis=1).tolist()
    boundary = BoundaryCounts(4)
    distance = tuple(record.settings["boundary_distance_px"])
    boundary.update(target, predicted, distance, outside_is_border=False)
    assert record.scores["mean_boundary_iou"] == pytest.approx(np.mean(boundary.iou()))


def test_the_folder_holds_maps_tables_and_a_report(image, labels, tmp_path):
    out = tmp_path / "eval"
    record = evaluate_raster(model(), image, labels, out)
    assert {p.name for p in out.iterdir()} == FILES
    found = json.loads((out / "metrics.json").read_text("utf-8"))
    assert found == record.to_dict()
    assert found["kind"] == "raster"
    assert found["files"]["report"] == "report.html"
    errors = read(out / "error_map.tif")
    assert (errors != 255).sum() == record.pixels
    assert (errors == 0).sum() == sum(record.confusion[k][k] for k in range(4))
    polygons = geopandas.read_file(out / "errors.gpkg", layer="errors")
    assert polygons.area.sum() == pytest.approx(0.3**2 * (record.pixels - (errors == 0).sum()))
    assert found["files"]["errors"] == "errors.gpkg"
    assert '<a href="errors.gpkg">errors.gpkg</a>' in (out / "report.html").read_text("utf-8")
    cells = geopandas.read_file(out / "cells.gpkg")
    assert cells["pixels"].sum() == record.pixels
    assert record.cells.cells == len(cells)
    kinds = [p.kind for p in record.pictures]
    assert kinds[0] == "overview"
    assert set(kinds) == {"overview", "best"} or "worst" in kinds
    assert all(p.image.shape[:2] == p.target.shape == p.predicted.shape for p in record.pictures)
    assert max(max(p.target.shape) for p in record.pictures[1:]) <= 384


def test_areas_are_descriptive_and_of_the_whole_map(image, labels, tmp_path):
    record = evaluate_raster(model(), image, labels, tmp_path / "eval")
    predicted = read(tmp_path / "eval" / "class_map.tif")
    pixel_m2 = (0.3 / 0.9996) ** 2
    expected = [(predicted == k).sum() * pixel_m2 for k in range(4)]
    assert record.area.kind == "descriptive"
    np.testing.assert_allclose([r.mapped_m2 for r in record.area.rows], expected, rtol=1e-4)
    assert record.classes[2].area_m2 == record.area.rows[2].mapped_m2


def test_blocks_change_nothing(image, labels, tmp_path, monkeypatch):
    one = evaluate_raster(model(), image, labels, tmp_path / "one")
    monkeypatch.setattr(scene_module, "BLOCK_PX", 32)
    many = evaluate_raster(model(), image, labels, tmp_path / "many")
    assert (
        read(tmp_path / "one" / "error_map.tif") == read(tmp_path / "many" / "error_map.tif")
    ).all()
    assert many.confusion == one.confusion
    assert many.scores == pytest.approx(one.scores)
    assert str(many.cells) == str(one.cells)  # NaN is no other NaN
    assert many.classes[1].area_m2 == pytest.approx(one.classes[1].area_m2, rel=1e-5)
    for a, b in zip(one.pictures, many.pictures, strict=True):
        assert (a.target == b.target).all()
        assert (a.predicted == b.predicted).all()


def test_no_more_than_a_block_is_read_at_once(image, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(scene_module, "BLOCK_PX", 32)
    sizes = []
    original = scene_module.ClassMap.read

    def spy(self, dataset, window):
        sizes.append(max(window.height, window.width))
        return original(self, dataset, window)

    monkeypatch.setattr(scene_module.ClassMap, "read", spy)
    record = evaluate_raster(model(), image, labels, tmp_path / "eval")
    walked = sizes[: 3 * 5]
    assert max(walked) <= 32 + 2 * record.settings["boundary_distance_px"][0]


class Doubled(Levels):
    """An identity network that is too sure of itself by a factor."""

    def forward(self, x):
        return 3.0 * super().forward(x)


def test_the_temperature_is_fitted_on_blended_logits_and_stored(image, labels, tmp_path):
    too_sure = Segmenter(Doubled(4), model().spec).eval()
    warm = tmp_path / "warm.safetensors"
    options = EvaluateOptions(store_temperature=warm)
    first = evaluate_raster(too_sure, image, labels, tmp_path / "one", options=options)
    found = first.calibration
    assert found.temperature == 1.0
    assert found.best_temperature > 1.5
    assert found.nll_after < found.nll
    assert found.stored_in == str(warm)
    assert read_spec(warm).temperature == found.best_temperature
    cooled = Segmenter(Doubled(4), read_spec(warm)).eval()
    second = evaluate_raster(cooled, image, labels, tmp_path / "two")
    assert second.calibration.temperature == found.best_temperature
    assert second.calibration.nll == pytest.approx(found.nll_after)
    assert second.calibration.best_temperature == pytest.approx(found.best_temperature)
    assert second.confusion == first.confusion


def test_confidences_of_the_record_are_those_of_the_map(image, labels, tmp_path):
    too_sure = Segmenter(Doubled(4), model().spec).eval()
    record = evaluate_raster(too_sure, image, labels, tmp_path / "eval")
    options = PredictOptions(confidence=tmp_path / "c.tif")
    predict_raster(too_sure, image, tmp_path / "map.tif", options=options)
    confidence, predicted, target = (
        read(p) for p in (tmp_path / "c.tif", tmp_path / "map.tif", labels)
    )
    scored = (predicted != 255) & (target != 255)
    assert record.calibration.pixels == scored.sum()
    sure = (confidence[scored] / 254).mean()
    bins = [b for b in record.calibration.bins if b.count]
    assert sum(b.count * b.confidence for b in bins) / scored.sum() == pytest.approx(sure, abs=3e-3)
    right = (predicted == target)[scored].mean()
    assert sum(b.count * b.accuracy for b in bins) / scored.sum() == pytest.approx(right)


def test_polygons_and_an_area_of_interest(image, truth, tmp_path):
    def box(row, col, row_end, col_end):
        corners = [(col, row), (col_end, row), (col_end, row_end), (col, row_end)]
        return shapely.Polygon([NORTH_UP @ corner for corner in corners])

    frame = geopandas.GeoDataFrame(
        {"kind": ["class 2", "1"]}, geometry=[box(0, 0, 30, 40), box(30, 0, 60, 40)], crs=32633
    )
    frame.to_file(tmp_path / "labels.gpkg")
    aoi = geopandas.GeoDataFrame(geometry=[box(20, 10, 70, 60)], crs=32633)
    aoi.to_file(tmp_path / "aoi.gpkg")
    options = EvaluateOptions(
        predict=PredictOptions(aoi=tmp_path / "aoi.gpkg"),
        labels=LabelOptions("kind", background=0),
    )
    record = evaluate_raster(
        model(), image, tmp_path / "labels.gpkg", tmp_path / "eval", options=options
    )
    assert record.pixels == 50 * 50
    assert [c.pixels for c in record.classes] == [50 * 50 - 40 * 30, 30 * 30, 10 * 30, 0]
    assert record.pictures[0].image.shape == (50, 50, 3)
    window = read(image)[20:70, 10:60]
    assert (record.pictures[0].image[..., 0] == window).all()


def test_points_of_a_declared_sample_give_areas_with_intervals(image, labels, truth, tmp_path):
    rng = np.random.default_rng(5)
    predict_raster(model(), image, tmp_path / "map.tif")
    predicted = read(tmp_path / "map.tif")
    places = [
        place
        for k in range(4)
        for place in rng.permutation(np.argwhere(predicted == k))[:40].tolist()
    ]
    points = [NORTH_UP @ (col + 0.5, row + 0.5) for row, col in places]
    frame = geopandas.GeoDataFrame(
        {"reference": [f"class {truth[r, c]}" for r, c in places]},
        geometry=geopandas.points_from_xy(*zip(*points, strict=True)),
        crs=32633,
    )
    frame.to_file(tmp_path / "points.gpkg")
    options = EvaluateOptions(points=PointOptions(tmp_path / "points.gpkg", "stratified"))
    record = evaluate_raster(model(), image, labels, tmp_path / "eval", options=options)
    assert record.area.kind == "estimated"
    assert record.area.sample_points == 160
    pixel_m2 = (0.3 / 0.9996) ** 2
    for k, row in enumerate(record.area.rows):
        really = ((truth == k) & (predicted != 255)).sum() * pixel_m2
        assert row.area_low_m2 - 60 < really < row.area_high_m2 + 60
        assert row.area_se_m2 > 0
    assert 0.7 < record.area.overall_accuracy < 1


def test_nothing_is_replaced_unless_asked(image, labels, tmp_path):
    evaluate_raster(model(), image, labels, tmp_path / "eval")
    with pytest.raises(OutputExistsError, match=r"class_map.tif' exists. Give --overwrite"):
        evaluate_raster(model(), image, labels, tmp_path / "eval")
    options = EvaluateOptions(overwrite=True)
    evaluate_raster(model(), image, labels, tmp_path / "eval", options=options)


@pytest.mark.parametrize("name", ["errors.gpkg", "cells.gpkg"])
def test_a_layer_that_exists_is_kept_unless_asked(image, labels, tmp_path, name):
    path = tmp_path / "eval" / name
    path.parent.mkdir()
    path.write_text("old")
    with pytest.raises(OutputExistsError, match=rf"{name}' exists. Give --overwrite"):
        evaluate_raster(model(), image, labels, tmp_path / "eval")
    assert path.read_text() == "old"
    options = EvaluateOptions(overwrite=True)
    evaluate_raster(model(), image, labels, tmp_path / "eval", options=options)
    assert len(geopandas.read_file(path, layer=path.stem)) > 0


def test_an_input_is_never_replaced(image, tmp_path, make_raster, truth):
    labels = make_raster(truth, "eval/error_map.tif")
    with pytest.raises(UsageError, match=r"error_map.tif' would replace an input"):
        evaluate_raster(model(), image, labels, tmp_path / "eval")


class StopsOnceMapped(Listener):
    """Stops at the given check after the prediction."""

    def __init__(self, after):
        self.left, self.scoring = after, False

    def log(self, level, message):
        self.scoring = self.scoring or message == "scoring the map"

    def check(self):
        self.left -= self.scoring
        if self.left < 0:
            raise InterruptedRunError("stopped (test)")


@pytest.mark.parametrize(("after", "maps"), [(0, []), (1, ["error_map.tif"])])
def test_a_run_stopped_while_it_scores_says_what_to_do(image, labels, tmp_path, after, maps):
    out = tmp_path / "eval"
    with pytest.raises(InterruptedRunError, match=r"map is finished, its scores are not: give --o"):
        evaluate_raster(model(), image, labels, out, listener=StopsOnceMapped(after))
    assert sorted(p.name for p in out.glob("*") if p.suffix in {".tif", ".gpkg", ".part"}) == [
        "class_map.tif",
        *maps,
    ]
    options = EvaluateOptions(overwrite=True)
    evaluate_raster(model(), image, labels, out, options=options)
    assert {p.name for p in out.iterdir()} == FILES


def test_misfits_are_found_before_the_prediction(image, truth, tmp_path, make_raster):
    class Never(Listener):
        def start(self, plan):
            raise AssertionError("predicted")

    with pytest.raises(InputError, match="expected labels that overlap the map"):
        far = make_raster(truth, "far.tif", crs="EPSG:32653")
        evaluate_raster(model(), image, far, tmp_path / "eval", listener=Never())
    assert not (tmp_path / "eval").exists()


def test_labels_that_are_all_left_out_are_an_error(image, tmp_path, make_raster):
    empty = make_raster(np.full(SHAPE, 255, np.uint8), "empty.tif")
    with pytest.raises(InputError, match=r"no pixel of '.*empty.tif' there has one that is scored"):
        evaluate_raster(model(), image, empty, tmp_path / "eval")
    assert not (tmp_path / "eval").exists()


def test_labels_where_the_map_has_no_answer_are_an_error(image, tmp_path, make_raster):
    values = np.full(SHAPE, 255, np.uint8)
    values[:8, :8] = 1
    labels = make_raster(values, "labels.tif")
    with pytest.raises(InputError, match="no pixel has both"):
        evaluate_raster(model(), image, labels, tmp_path / "eval")
    assert not (tmp_path / "eval" / "error_map.tif").exists()


@pytest.mark.parametrize("kind", ["id", "bands", "color"])
def test_a_fault_of_the_labels_leaves_nothing_behind(image, truth, tmp_path, make_raster, kind):
    values = {
        "id": np.where(np.arange(130) < 129, truth, 9).astype(np.uint8),
        "bands": np.stack([truth, truth + 1]),
        "color": np.stack([truth, truth + 1, truth]),
    }[kind]
    said = {
        "id": r"expected class ids 0, 1, 2, 3; got 9 \(90 px\)",
        "bands": r"got 2 bands that differ. Save one band of class ids, or colours as three bands",
        "color": r"expected labels in the colours of the model's classes, #000040 class 0",
    }[kind]
    with pytest.raises(InputError, match=said):
        evaluate_raster(model(), image, make_raster(values, "bad.tif"), tmp_path / "eval")
    assert not (tmp_path / "eval").exists()
    evaluate_raster(model(), image, make_raster(truth, "labels.tif"), tmp_path / "eval")


def test_labels_read_by_colours_are_said_and_score_as_their_ids(
    image, labels, truth, tmp_path, make_raster
):
    colors = [[0, 0, 64], [37, 91, 64], [74, 182, 64], [111, 17, 64]]  # of the model's classes
    shown = np.array(colors, np.uint8)[truth].transpose(2, 0, 1)
    shown[:, 40:60] = 0
    said = []

    class Hears(Listener):
        def log(self, level, message):
            said.append((level, message))

    by_color = make_raster(shown, "colors.tif")
    record = evaluate_raster(model(), image, by_color, tmp_path / "a", listener=Hears())
    note = "the labels are read by the colours of the classes; not scored: #000000 (2600 px)"
    assert said[0] == ("info", note)
    assert note in record.notes
    by_id = evaluate_raster(model(), image, labels, tmp_path / "b")
    assert record.confusion == by_id.confusion


def test_a_scene_without_a_place_has_neither_cells_nor_areas(truth, tmp_path, make_raster):
    image = make_raster(truth, "bare.tif", crs=None, transform=None)
    labels = make_raster(truth, "truth.tif", crs=None, transform=None)
    options = EvaluateOptions(predict=PredictOptions(gsd="native"))
    record = evaluate_raster(model(), image, labels, tmp_path / "eval", options=options)
    assert record.scores["accuracy"] == 1.0
    assert record.cells is None
    assert record.area is None
    assert "cells" not in record.files
    assert "errors" in record.files
    assert record.notes == ("no CRS: neither areas nor errors by place",)


def test_a_scene_of_control_points_keeps_them(truth, tmp_path, make_raster):
    image = make_raster(truth, "points.tif", crs=None, transform=None)
    corners = [(0, 0, 500000, 5e6), (0, 130, 500039, 5e6), (90, 0, 500000, 4999973)]
    points = [rasterio.control.GroundControlPoint(*corner) for corner in corners]
    with quiet_georeference(), rasterio.open(image, "r+") as dataset:
        dataset.gcps = points, rasterio.CRS.from_epsg(32633)
    labels = make_raster(truth, "truth.tif", crs=None, transform=None)
    options = EvaluateOptions(predict=PredictOptions(gsd="native"))
    record = evaluate_raster(model(), image, labels, tmp_path / "eval", options=options)
    with quiet_georeference(), rasterio.open(tmp_path / "eval" / "error_map.tif") as dataset:
        found, crs = dataset.gcps
    assert [(p.row, p.col, p.x, p.y) for p in found] == corners
    assert crs == rasterio.CRS.from_epsg(32633)
    assert "errors" not in record.files
    assert record.notes[-1].startswith("placed by control points or RPCs only: no polygons")


def test_a_fault_of_the_raster_leaves_nothing_behind(truth, tmp_path, make_raster):
    coarse = NORTH_UP @ Affine.scale(100)
    image = make_raster(truth, "coarse.tif", transform=coarse)
    labels = make_raster(truth, "truth.tif", transform=coarse)
    with pytest.raises(InputError, match=r"the model knows 0.1 to 1 m per pixel"):
        evaluate_raster(model(), image, labels, tmp_path / "eval")
    assert not (tmp_path / "eval").exists()


def test_too_many_classes_are_refused(image, labels, tmp_path):
    spec = make_spec(1, 2)
    many = tuple(ClassSpec(k, f"c{k}", "#000000") for k in range(255))
    wide = Segmenter(Levels(255), replace(spec, classes=many)).eval()
    with pytest.raises(InputError, match=r"a model of at most 254 classes; 'small' has 255"):
        evaluate_raster(wide, image, labels, tmp_path / "eval")


def test_the_shipped_model_on_chips_of_banepa(shared_data: Path, tmp_path):
    folder = shared_data / "banepa-buildings" / "val"
    chips = sorted(map(str, (folder / "images").glob("*.tif")))[:1]
    options = EvaluateOptions(
        predict=PredictOptions(tile_size_px=512), labels=LabelOptions(background="background")
    )
    polygons = folder / "osm_buildings.geojson"
    with mosaic(chips) as vrt:
        record = evaluate_raster(
            "demo-buildings-banepa-segnext_t", vrt, polygons, tmp_path / "eval", options=options
        )
    masks = np.stack([read(folder / "masks" / Path(chip).name) for chip in chips])
    assert abs(record.classes[1].pixels - int((masks == 1).sum())) < 50
    assert record.scores["iou_building"] > 0.6
    assert record.calibration.ece < 0.2
    assert load_model("demo-buildings-banepa-segnext_t").spec.name == record.model
