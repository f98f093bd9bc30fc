"""A data set's description: what it holds, and each kind of problem in a sentence."""

import dataclasses
import json

import numpy as np
import pytest
from affine import Affine

from geoseg.config.run import ClassConfig, DataConfig, FilesConfig, SplitConfig
from geoseg.data import describe_data
from geoseg.data.find import find_data, name_classes
from geoseg.errors import InputError, InterruptedRunError
from geoseg.listener import Listener
from tests.data.chip_files import CLASSES, PLAIN, folder_data, halves, picture, write_pairs


@pytest.fixture
def clean(make_raster):
    """Return a section of two training pairs and one validation pair without any problem."""
    train = write_pairs(make_raster, ("a", "b"), "train")
    make_raster(picture(9), "val/images/c.png", driver="PNG", **PLAIN)
    make_raster(halves(), "val/masks/c.png", driver="PNG", **PLAIN)
    root = train.images.removesuffix("train/images")
    return folder_data(train, val=FilesConfig(f"{root}val/images", f"{root}val/masks"))


def place(x, y=0.0):
    return {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 500000 + x, 0, -0.5, 5000000 + y)}


def write_placed(make_raster, folder, **places):
    """Write pairs of 8 x 8 px, 4 x 4 m, whose left edges lie at the given metres."""
    for name, x in places.items():
        make_raster(picture(int(x), (8, 8)), f"{folder}/images/{name}.tif", **place(x))
        path = make_raster(halves(size=(8, 8)), f"{folder}/masks/{name}.tif", **place(x))
    root = path.parent.parent
    return FilesConfig(str(root / "images"), str(root / "masks"))


def problems(data):
    return list(describe_data(data).problems)


def test_a_clean_set_has_counts_sizes_and_no_problems(clean):
    report = describe_data(clean)
    assert report.problems == ()
    assert [c.name for c in report.classes] == ["other", "house"]
    assert report.bands == ("red", "green", "blue")
    train, val = report.splits
    assert (train.name, train.samples, train.counts, train.ignored_px) == ("train", 2, (80, 80), 0)
    assert (val.name, val.samples, val.counts, val.pixels) == ("val", 1, (40, 40), 80)
    assert train.smallest_px == train.largest_px == (10, 8)
    assert train.gsd_m is None
    assert train.single_class == 0
    images = np.concatenate([picture(k).reshape(3, -1) for k in range(2)], axis=1)
    assert train.mean == pytest.approx(images.mean(axis=1))
    assert train.std == pytest.approx(images.std(axis=1))
    assert json.loads(json.dumps(report.to_json()))["splits"][0]["counts"] == [80, 80]


def test_values_without_class_are_counted_over_all_masks(clean, make_raster):
    make_raster(halves(0, 7), "train/masks/a.png", driver="PNG", **PLAIN)
    found = problems(clean)
    assert found == [
        "train: 1 masks hold values without a class ('a'): expected class ids 0, 1; got 7 (40 px). "
        "Add a class with this id to data.classes, or put it into data.ignore."
    ]
    assert describe_data(clean).splits[0].ignored_px == 40


def test_shapes_that_differ_and_broken_files_are_listed(clean, make_raster):
    make_raster(halves(size=(8, 12)), "train/masks/a.png", driver="PNG", **PLAIN)
    broken = make_raster(halves(), "train/masks/b.png", driver="PNG", **PLAIN)
    broken.write_bytes(b"no picture")
    found = problems(clean)
    assert "expected 10 x 8 px as its image" in found[0]
    assert "b.png' cannot be opened" in found[1]
    assert found[2].startswith("train: no pixel of other, house, so a model cannot learn it.")
    assert len(found) == 3


def test_masks_without_labels_and_absent_classes(clean, make_raster):
    make_raster(halves(255, 255), "train/masks/a.png", driver="PNG", **PLAIN)
    make_raster(halves(1, 1), "train/masks/b.png", driver="PNG", **PLAIN)
    make_raster(halves(0, 0), "val/masks/c.png", driver="PNG", **PLAIN)
    found = problems(clean)
    assert "train: 1 masks have no labelled pixel ('a'). They teach nothing" in found[0]
    assert found[1].startswith("train: no pixel of other, so a model cannot learn it")
    assert found[2] == "val: no pixel of house, so it cannot be scored there."
    assert describe_data(clean).splits[1].single_class == 1


def test_a_missing_partner_is_a_problem_of_its_split(clean, make_raster):
    make_raster(picture(5), "train/images/x.png", driver="PNG", **PLAIN)
    found = describe_data(clean)
    assert [s.name for s in found.splits] == ["val"]
    assert "train: data.train: no label found for" in found.problems[0]


def test_the_same_image_twice_is_a_leak_or_a_double(clean, make_raster):
    make_raster(picture(0), "val/images/c.png", driver="PNG", **PLAIN)
    assert problems(clean) == [
        "leak: 1 images of val are also in train, first 'c' = 'a'. Take them out of one of the "
        "splits."
    ]
    make_raster(picture(0), "train/images/b.png", driver="PNG", **PLAIN)
    make_raster(picture(9), "val/images/c.png", driver="PNG", **PLAIN)
    assert problems(clean) == [
        "train: 1 images occur more than once, first 'b' = 'a'. They count double."
    ]


def test_chips_of_one_scene_are_a_leak(make_raster):
    train = write_pairs(make_raster, ("ulm_part001", "ulm_part002"), "train")
    make_raster(picture(9), "val/images/ulm_part003.png", driver="PNG", **PLAIN)
    make_raster(halves(), "val/masks/ulm_part003.png", driver="PNG", **PLAIN)
    root = train.images.removesuffix("train/images")
    data = folder_data(train, val=FilesConfig(f"{root}val/images", f"{root}val/masks"))
    found = problems(data)
    assert len(found) == 1
    assert found[0].startswith("leak: val: 1 of 1 validation chips seem to be cut from scenes")


def test_overlapping_ground_is_a_leak_and_neighbours_are_not(make_raster):
    train = write_placed(make_raster, "train", a_1=0.0, a_2=4.0)
    beside = write_placed(make_raster, "beside", a_3=8.0)
    report = describe_data(folder_data(train, val=beside))
    assert report.problems == ()
    assert report.splits[0].gsd_m == pytest.approx((0.5, 0.5), rel=1e-3)
    over = write_placed(make_raster, "over", a_4=6.0, a_5=40.0)
    assert problems(folder_data(train, val=over)) == [
        "leak: 1 images of val overlap images of train on the ground, first 'a_4' and 'a_2': "
        "scores will be too good. Split by place."
    ]


def test_only_splits_that_are_expected_are_looked_for(make_raster):
    whole = folder_data(write_pairs(make_raster, tuple("abcd")))
    assert [s.name for s in describe_data(whole).splits] == ["train", "val"]
    alone = dataclasses.replace(whole, split=SplitConfig(val_share=0.0))
    assert [s.name for s in describe_data(alone).splits] == ["train"]


def test_nothing_that_can_be_read_is_still_a_report(tmp_path):
    report = describe_data(DataConfig("ade20k", root=str(tmp_path)))
    assert report.splits == ()
    assert len(report.problems) == 2


def test_scenes_are_counted_once(make_raster):
    train = write_placed(make_raster, "train", scene_1=0.0)
    val = write_placed(make_raster, "val", scene_2=40.0)
    report = describe_data(DataConfig("raster", train=train, val=val, classes=CLASSES), workers=0)
    assert report.problems == ()
    assert [s.counts for s in report.splits] == [(32, 32), (32, 32)]
    assert report.splits[0].gsd_m == pytest.approx((0.5, 0.5), rel=1e-3)
    assert report.splits[0].largest_px == (8, 8)
    assert report.splits[0].mean == pytest.approx(picture(0, (8, 8)).mean(axis=(1, 2)))


class Heard(Listener):
    """Notes what it hears, and stops once it has heard of so many samples."""

    def __init__(self, stop_after=None):
        self.plan, self.progressed, self.stop_after = {}, [], stop_after

    def start(self, plan):
        self.plan = plan

    def progress(self, done, total, pixels):
        self.progressed.append((done, total))

    def check(self):
        if self.stop_after == len(self.progressed):
            raise InterruptedRunError("stopped")


def placed_scenes(make_raster):
    train = write_placed(make_raster, "scenes", scene_1=0.0, scene_3=80.0)
    val = write_placed(make_raster, "val_scenes", scene_2=40.0)
    return DataConfig("raster", train=train, val=val, classes=CLASSES)


@pytest.mark.parametrize("kind", ["chips", "scenes"])
def test_every_sample_is_told_and_a_stop_is_none_of_the_problems(clean, make_raster, kind):
    data = clean if kind == "chips" else placed_scenes(make_raster)
    heard = Heard()
    report = describe_data(data, listener=heard)
    assert heard.progressed == [(1, 3), (2, 3), (3, 3)]
    assert (heard.plan["unit"], heard.plan["samples"]) == ("samples", 3)
    assert heard.plan["sentence"] == "3 samples of train, val are read"
    assert report == describe_data(data)
    for stop_after in (0, 2):
        heard = Heard(stop_after)
        with pytest.raises(InterruptedRunError):
            describe_data(data, listener=heard)
        assert len(heard.progressed) == stop_after


def test_a_folder_says_its_layout(make_raster, tmp_path):
    for split in ("train", "val"):
        write_pairs(make_raster, ("a",), split)
    make_raster(halves(3, 5), "val/masks/a.png", driver="PNG", **PLAIN)
    data = find_data(str(tmp_path))
    assert data.train == FilesConfig(f"{tmp_path}/train/images", f"{tmp_path}/train/masks")
    assert data.val == FilesConfig(f"{tmp_path}/val/images", f"{tmp_path}/val/masks")
    assert data.test is None
    assert data.classes == tuple(ClassConfig(k, f"class {k}") for k in (0, 1, 3, 5))
    assert find_data(str(tmp_path / "train")).split.val_share == 0


def test_splits_within_images_and_labels(make_raster, tmp_path):
    for split in ("train", "val"):
        make_raster(picture(), f"images/{split}/a.png", driver="PNG", **PLAIN)
        make_raster(halves(), f"labels/{split}/a.png", driver="PNG", **PLAIN)
    data = find_data(str(tmp_path))
    assert data.train == FilesConfig(f"{tmp_path}/images/train", f"{tmp_path}/labels/train")
    assert data.val == FilesConfig(f"{tmp_path}/images/val", f"{tmp_path}/labels/val")


def test_colors_become_classes(make_raster):
    files = write_pairs(make_raster)
    colors = np.zeros((3, 8, 10), np.uint8)
    colors[0, 4:] = 0x11
    make_raster(colors, "set/masks/a.png", driver="PNG", **PLAIN)
    data = name_classes(folder_data(files, classes=None))
    assert data.labels_as == "colors"
    # b.png is grey: its 0 and 1 are colours, too.
    assert [c.color for c in data.classes] == ["#000000", "#010101", "#110000"]
    assert [c.id for c in data.classes] == [0, 1, 2]


def test_labels_of_too_many_values_are_no_classes(make_raster):
    files = write_pairs(make_raster)
    make_raster(np.arange(80).reshape(8, 10).astype(np.uint8), "set/masks/a.png", driver="PNG")
    with pytest.raises(InputError, match="labels of at most 64 different values; got more"):
        name_classes(folder_data(files, classes=None))


def test_published_layouts_are_recognised(shared_data):
    found = {
        name: find_data(str(shared_data / name)).kind
        for name in ("voc", "ade20k", "camvid", "cityscapes-sample", "banepa-buildings")
    }
    assert found == {
        "voc": "voc",
        "ade20k": "ade20k",
        "camvid": "camvid",
        "cityscapes-sample": "cityscapes",
        "banepa-buildings": "folder",
    }


def test_a_folder_of_something_else_says_what_is_looked_for(tmp_path):
    with pytest.raises(InputError, match="expected a published data set, or folders images and m"):
        find_data(str(tmp_path))
