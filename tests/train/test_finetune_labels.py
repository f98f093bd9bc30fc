"""Labels are checked before a run is made, in the words of who gave them."""

import json
import re

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from geoseg.cli.finetune import score_sentence
from geoseg.cli.main import main
from geoseg.config.run import DataConfig
from geoseg.data.patch_reader import grid_of
from geoseg.data.scenes import describe_images, describe_raster
from geoseg.errors import GeoreferenceError, InputError, MachineError
from geoseg.spec import ClassSpec
from geoseg.train.finetune import finetune
from geoseg.train.finetune_plan import FinetuneOptions
from geoseg.train.label_place import find_on_raster
from geoseg.train.lesson import read_lesson
from geoseg.train.lesson_raster import (
    choose_cells,
    choose_held_out,
    read_raster_lesson,
    write_cells,
)
from tests.conftest import NORTH_UP

MODEL = "demo-buildings-banepa"
QUICK = {"steps": 1, "batch_size": 2, "crop_px": 64, "device": "cpu"}
KNOWN = (ClassSpec(0, "background", "#d9d9d9"), ClassSpec(1, "building", "#d7301f"))
HEIGHT, WIDTH = 260, 300
BARE = {"transform": None, "crs": None}


def ids_of_a_scene():
    ids = np.full((HEIGHT, WIDTH), 255, np.uint8)
    ids[20:240, 10:280] = 0
    ids[40:220:3, 30:260] = 1
    return ids


@pytest.fixture
def make_scene(make_raster):
    def make(name="scene.tif", **profile):
        values = np.random.default_rng(3).integers(0, 255, (3, HEIGHT, WIDTH), np.uint8)
        return make_raster(values, name, **profile)

    return make


@pytest.fixture
def scene(make_scene):
    return make_scene()


@pytest.fixture
def make_ids(make_raster):
    def make(values=None, name="drawn.tif", **profile):
        values = ids_of_a_scene() if values is None else values
        return make_raster(values, name, **({"nodata": 255} | profile))

    return make


def squares(shift=0.0):
    corner = NORTH_UP @ (20, 20)
    boxes = [
        shapely.box(
            corner[0] + 8 * i + shift, corner[1] - 6, corner[0] + 8 * i + 6 + shift, corner[1]
        )
        for i in range(6)
    ]
    return geopandas.GeoDataFrame(
        {"note": ["a"] * 6, "class": ["building", "background"] * 3}, geometry=boxes, crs=32633
    )


def read_ids(scene, labels, **options):
    data = DataConfig(kind="raster", ignore_index=255)
    image = describe_images([str(scene)], data)[str(scene)]
    return read_raster_lesson(labels, image, KNOWN, data, **({"largest_px": 512} | options))


def test_cells_fit_a_small_scene_and_are_apart(scene, make_ids, tmp_path):
    lesson = read_ids(scene, make_ids())
    assert lesson.cell_px == 64
    assert re.match(r"\d of 20 labelled cells of 64 px are held out", lesson.notes[0])
    taught, scored = write_cells(lesson, tmp_path)
    with rasterio.open(taught.labels[0]) as one, rasterio.open(scored.labels[0]) as other:
        one, other = one.read(1, masked=True), other.read(1, masked=True)
    assert not (~one.mask & ~other.mask).any()
    both = np.where(one.mask, other.data, one.data)
    assert (both == ids_of_a_scene()).all()
    assert set(one.compressed()) == set(other.compressed()) == {0, 1}


def test_a_scene_too_small_is_taught_whole_and_says_so(make_raster, make_ids, tmp_path):
    scene = make_raster(np.ones((3, 100, 100), np.uint8), "tiny.tif")
    ids = np.zeros((100, 100), np.uint8)
    ids[:50] = 1
    lesson = read_ids(scene, make_ids(ids))
    assert not lesson.held_out.any()
    assert lesson.notes[0].startswith("nothing is held out: 4 labelled cells of 64 px are too few")
    assert len(write_cells(lesson, tmp_path)) == 1


def test_no_notes_where_nothing_was_to_be_held_out(scene, make_ids):
    lesson = read_ids(scene, make_ids(), hold_out=0)
    assert (lesson.held_out.any(), lesson.notes) == (False, ())


def test_cells_grow_to_the_largest_of_which_there_are_enough():
    counts = np.ones((32, 32, 2), int)
    assert choose_cells(counts, 512)[1] == 512
    assert choose_cells(counts[:7, :5], 512)[1] == 128
    joined, _ = choose_cells(counts[:7, :5], 512)
    assert joined.shape == (4, 3, 2)
    assert joined.sum() == 7 * 5 * 2


def test_a_class_in_one_cell_stays_in_the_lesson():
    counts = np.zeros((5, 5, 2), int)
    counts[..., 0] = 100
    counts[2, 3, 1] = 50
    for seed in range(20):
        held = choose_held_out(counts, 0.5, seed)
        assert not held[2, 3]
        assert held.sum() == 13  # 1250 of 2550 pixels are not yet half of them


def test_pixels_without_a_value_of_the_raster_do_not_count(make_scene, make_ids):
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    scene = make_scene(mask=empty)
    with pytest.raises(InputError, match="expected labels on the raster's ground; got none"):
        read_ids(scene, make_ids())


@pytest.mark.parametrize(
    ("raster", "labels"), [(BARE, BARE), ({}, BARE), (BARE, {}), ({"crs": None}, {"crs": None})]
)
def test_without_crs_labels_lie_on_the_rasters_pixels(
    make_scene, make_ids, tmp_path, raster, labels
):
    scene = make_scene(**raster)
    lesson = read_ids(scene, make_ids(name="of another name.tif", **labels))
    written = write_cells(lesson, tmp_path)[0].labels[0]
    grid = grid_of(describe_raster(written))
    assert grid == grid_of(describe_raster(str(scene)))


def test_other_sizes_are_refused_with_both(make_scene, make_ids):
    small = make_ids(ids_of_a_scene()[:100, :200], **BARE)
    with pytest.raises(GeoreferenceError, match="200 x 100 px and the raster is 300 x 260 px"):
        read_ids(make_scene(**BARE), small)


def test_other_transforms_without_crs_are_refused_with_both(make_scene, make_ids):
    moved = make_ids(crs=None, transform=Affine.translation(9, 0) @ NORTH_UP)
    with pytest.raises(GeoreferenceError, match="has the transform .* and the raster .* Make them"):
        read_ids(make_scene(crs=None), moved)


def test_a_label_raster_elsewhere_is_refused_with_both_boxes(scene, make_ids):
    far = make_ids(transform=Affine.translation(1e5, 0) @ NORTH_UP)
    with pytest.raises(InputError, match="overlap the raster; .*drawn.tif' covers .* and the rast"):
        read_ids(scene, far)


def test_polygons_elsewhere_are_refused_with_both_boxes(scene):
    grid = grid_of(describe_raster(str(scene)))
    assert find_on_raster(squares(), "drawn.gpkg", grid).all()
    with pytest.raises(InputError, match="'drawn.gpkg' covers .* and the raster covers .* CRS of"):
        find_on_raster(squares(1e5), "drawn.gpkg", grid)


def test_polygons_beside_the_raster_are_left_out_and_counted(scene, tmp_path):
    frame = squares()
    frame.loc[5, "geometry"] = shapely.affinity.translate(frame.geometry[5], 1e4)
    frame.to_file(tmp_path / "drawn.gpkg")
    grid = grid_of(describe_raster(str(scene)))
    lesson = read_lesson(tmp_path / "drawn.gpkg", KNOWN, class_field="class", ground=grid)
    assert len(lesson.train) + len(lesson.held_out) == 5
    assert lesson.notes == ("1 of 6 polygons lie beside the raster",)


def test_without_a_class_field_those_there_are_are_named(tmp_path):
    frame = squares()
    frame["number"] = range(6)
    frame.to_file(tmp_path / "drawn.gpkg")
    with pytest.raises(InputError, match="--class-field; the fields are: class, number.$"):
        read_lesson(tmp_path / "drawn.gpkg", KNOWN)


def three_bands(make_ids):
    return make_ids(np.random.default_rng(0).integers(0, 9, (3, HEIGHT, WIDTH), np.uint8))


def wrong_ids(make_ids):
    ids = ids_of_a_scene()
    ids[30:40, 30:40] = 7
    return make_ids(ids)


def one_class(make_ids):
    return make_ids(np.where(ids_of_a_scene() == 255, 255, 1).astype(np.uint8))


def half_ids(make_ids):
    return make_ids(np.full((HEIGHT, WIDTH), 0.5, np.float32), nodata=None)


def no_crs(make_ids):
    path = make_ids().with_name("drawn.shp")
    squares().to_file(path)
    path.with_suffix(".prj").unlink()
    return path


def far_away(make_ids):
    path = make_ids().with_name("drawn.gpkg")
    squares(1e5).to_file(path)
    return path


def too_small(make_ids):
    path = make_ids().with_name("drawn.gpkg")
    frame = squares()
    frame.geometry = frame.geometry.centroid.buffer(1e-4)
    frame.to_file(path)
    return path


FAULTS = {
    three_bands: "expected one band of class ids; got 3 bands. Give",
    wrong_ids: r"expected class ids 0, 1; got 7 \(100 px\). Reclassify",
    one_class: "expected labels of at least two classes; all are 'building'",
    half_ids: "expected whole numbers as class ids; got 0.5",
    no_crs: "drawn.shp' has none and the raster has one. Assign it",
    far_away: "expected labels that overlap the raster",
    too_small: "the held-out labels cover no pixel centre",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faults_are_said_in_own_words_and_leave_nothing(scene, make_ids, tmp_path, fault):
    labels = fault(make_ids)
    before = sorted(tmp_path.iterdir())
    field = None if labels.suffix == ".tif" else "class"
    options = FinetuneOptions(class_field=field, **QUICK)
    with pytest.raises(InputError, match=FAULTS[fault]) as said:
        finetune(MODEL, scene, labels, tmp_path / "m.safetensors", options=options)
    assert "data." not in str(said.value).replace("data.gpkg", "")
    assert ".run" not in str(said.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_fault_of_the_machine_before_training_leaves_nothing(scene, make_ids, tmp_path):
    options = FinetuneOptions(**(QUICK | {"device": "cuda:99"}))
    with pytest.raises(MachineError, match="expected 100 CUDA"):
        finetune(MODEL, scene, make_ids(), tmp_path / "m.safetensors", options=options)
    assert not (tmp_path / "m.safetensors.run").exists()


def test_a_label_raster_is_scored_before_and_after(make_scene, make_ids, tmp_path, capsys):
    scene, out = make_scene(**BARE), tmp_path / "m.safetensors"
    words = ["finetune", MODEL, scene, make_ids(name="other.tif", **BARE), out, "--steps", "1"]
    words += ["--batch-size", "2", "--crop-size", "64", "--device", "cpu", "--progress", "json"]
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["held_out_polygons"] == 0
    assert lines[-1]["held_out_cells"] > 0
    assert 0 <= lines[-1]["before"]["accuracy"] <= 1
    said = [line["message"] for line in lines if line["event"] == "log"]
    assert any(re.match(r"pixels of \d held-out cells right: .* before, .* after", m) for m in said)


def test_without_anything_held_out_the_map_is_to_judge():
    said = score_sentence(0, "cells", None, None)
    assert said == "no cells were held out: look at the map to judge the model"
