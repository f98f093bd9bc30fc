"""Published sets in their official layouts, made small, and the few real files that there are."""

import dataclasses

import numpy as np
import pytest

from geoseg.config.run import ClassConfig, DataConfig, FilesConfig, SplitConfig
from geoseg.data.build import build_split
from geoseg.data.published import PUBLISHED
from geoseg.data.sample import IGNORE
from geoseg.errors import InputError, UsageError
from tests.data.chip_files import picture
from tests.data.published_files import LAYOUTS, pair_writer, picture_writer, write_published


@pytest.fixture
def put(make_raster):
    return picture_writer(make_raster)


@pytest.fixture
def put_pair(make_raster):
    return pair_writer(make_raster)


def section(kind, root, **fields):
    return DataConfig(kind=kind, root=str(root), **fields)


def masks_of(split):
    return [split.dataset[k]["mask"].flatten().tolist() for k in range(len(split.dataset))]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_splits_are_folders(put_pair, tmp_path, kind):
    image, label, folders = LAYOUTS[kind]
    for k, (split, folder) in enumerate(folders.items()):
        stem = f"{split}{k}"
        put_pair(image.format(folder, stem), label.format(folder, stem), [1, 2, 255, 3], seed=k)
    shift = 1 if kind == "ade20k" else 0
    for split in folders:
        found = build_split(section(kind, tmp_path), split)
        assert len(found.names) == 1
        assert split in found.names[0]
        assert masks_of(found) == [[1 - shift, 2 - shift, IGNORE, 3 - shift]]
        assert found.classes == PUBLISHED[kind].classes
        assert found.notes == ()


def test_numbers_and_names_of_classes():
    sizes = {kind: len(known.classes) for kind, known in PUBLISHED.items()}
    assert sizes == {
        "landcoverai": 5,
        "landcoverai_scenes": 5,
        "ade20k": 150,
        "voc": 21,
        "cityscapes": 19,
        "coco_stuff": 171,
        "camvid": 11,
    }
    some = {
        "ade20k": (149, "flag", "#5C00FF"),
        "voc": (15, "person", "#C08080"),
        "cityscapes": (13, "car", "#00008E"),
        "coco_stuff": (170, "wood", "#404000"),
        "camvid": (10, "bicyclist", "#0080C0"),
        "landcoverai": (2, "woodland", "#267300"),
    }
    for kind, (index, name, color) in some.items():
        found = PUBLISHED[kind].classes[index]
        assert (found.id, found.name, found.color) == (index, name, color)
        assert [c.id for c in PUBLISHED[kind].classes] == list(range(sizes[kind]))


def test_ade20k_drops_label_zero(put_pair, tmp_path):
    put_pair("images/training/a.jpg", "annotations/training/a.png", [0, 1, 150, 255])
    assert masks_of(build_split(section("ade20k", tmp_path), "train")) == [[IGNORE, 0, 149, IGNORE]]


def test_cityscapes_label_ids_become_train_ids(put_pair, tmp_path):
    ids = [7, 33, 8, 0, 29, 6, 255, 26]
    put_pair("leftImg8bit/val/bonn/b_leftImg8bit.png", "gtFine/val/bonn/b_gtFine_labelIds.png", ids)
    found = build_split(section("cityscapes", tmp_path), "val")
    assert found.names == ("bonn/b",)
    assert masks_of(found) == [[0, 18, 1, IGNORE, IGNORE, IGNORE, IGNORE, 13]]


def test_real_cityscapes_ids_agree(shared_data, tmp_path):
    root = shared_data / "cityscapes-sample"
    by_train_ids = build_split(section("cityscapes", root), "val")
    copied = tmp_path / "copy"
    for path in root.rglob("*.png"):
        if "TrainIds" not in path.name:
            target = copied / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    by_ids = build_split(section("cityscapes", copied), "val")
    # The sample was made smaller twice, once for each kind of ids, so that edges differ a little.
    pairs = zip(masks_of(by_ids)[0], masks_of(by_train_ids)[0], strict=True)
    assert np.mean([a == b for a, b in pairs]) > 0.99


def test_coco_stuff_maps_become_train_ids(put_pair, tmp_path):
    ids = [0, 10, 12, 24, 26, 27, 30, 91, 92, 181, 11, 255]
    put_pair("images/val2017/a.jpg", "stuffthingmaps/val2017/a.png", ids)
    found = build_split(section("coco_stuff", tmp_path), "val")
    assert masks_of(found) == [[0, 10, 11, 23, 24, 25, 26, 80, 81, 170, IGNORE, IGNORE]]


def test_photographs_of_one_band_are_repeated(put, put_pair, tmp_path):
    put("images/val2017/a.jpg", picture(size=(1, 4), bands=1))
    put("annotations/val2017/a_labelTrainIds.png", np.zeros((1, 4), np.uint8))
    put_pair("images/val2017/b.jpg", "annotations/val2017/b_labelTrainIds.png", [0, 1])
    found = build_split(section("coco_stuff", tmp_path), "val")
    assert found.bands == ("red", "green", "blue")
    assert found.dataset[0]["image"].shape == (3, 1, 4)


def write_voc(put_pair, root):
    write_published(put_pair, "voc", root, below="VOC2012/")
    every = root / "VOC2012/ImageSets/Segmentation/trainval.txt"
    every.write_text("a\nb\nc\nd\n")


def test_voc_lists(put_pair, tmp_path):
    write_voc(put_pair, tmp_path)
    for root in (tmp_path, tmp_path / "VOC2012"):
        assert build_split(section("voc", root), "train").names == ("a", "b")
    assert build_split(section("voc", tmp_path), "val").names == ("c", "d")
    every = section("voc", tmp_path, train_list="trainval")
    assert build_split(every, "train").names == ("a", "b", "c", "d")
    with pytest.raises(UsageError, match="has train, val, trainaug, trainval; got 'all'"):
        build_split(section("voc", tmp_path, train_list="all"), "train")


def test_voc_takes_sbd_masks_where_the_challenge_has_none(put_pair, tmp_path):
    write_voc(put_pair, tmp_path)
    put_pair("VOC2012/JPEGImages/x.jpg", "VOC2012/SegmentationClassAug/x.png", [20, 255])
    put_pair("unused.jpg", "VOC2012/SegmentationClassAug/a.png", [9, 9])
    lists = tmp_path / "VOC2012/ImageSets/Segmentation"
    (lists / "trainaug.txt").write_text("x\na\n")
    split = build_split(section("voc", tmp_path, train_list="trainaug"), "train")
    assert masks_of(split) == [[20, IGNORE], [0, 0]]


def test_voc_halves_of_the_validation_split(put_pair, tmp_path):
    write_voc(put_pair, tmp_path)
    data = section("voc", tmp_path, val_halves=True)
    found = {name: build_split(data, name).names for name in ("train", "val", "test")}
    assert found["train"] == ("a", "b")
    assert sorted(found["val"] + found["test"]) == ["c", "d"]
    with pytest.raises(InputError, match="labels of the test split are not public"):
        build_split(section("voc", tmp_path), "test")


def test_camvid_lists_keep_the_authors_paths(put_pair, tmp_path):
    for split in ("train", "val"):
        put_pair(f"{split}/0001_{split}.png", f"{split}annot/0001_{split}.png", [0, 10, 11])
        (tmp_path / f"{split}.txt").write_text(
            f"/SegNet/CamVid/{split}/0001_{split}.png /SegNet/CamVid/{split}annot/0001_{split}.png"
        )
    found = build_split(section("camvid", tmp_path), "train")
    assert found.names == ("train/0001_train",)
    assert masks_of(found) == [[0, 10, IGNORE]]
    notes = build_split(section("camvid", tmp_path), "val").notes
    assert "1 of 1 scenes of this split also have chips in the training split" in notes[0]


def test_real_samples(shared_data):
    voc = build_split(section("voc", shared_data / "voc"), "train")
    assert voc.dataset[0]["mask"].unique().tolist() == [0, 2, 15, IGNORE]
    ade = build_split(section("ade20k", shared_data / "ade20k"), "val")
    assert len(ade.names) == 2
    assert set(ade.dataset[0]["mask"].unique().tolist()) <= {*range(150), IGNORE}
    camvid = build_split(section("camvid", shared_data / "camvid"), "val")
    assert camvid.names[0] == "val/0016E5_07959"
    assert camvid.dataset[0]["image"].shape == (3, 360, 480)


def test_missing_data_say_where_to_get_them_and_how_they_should_lie(put_pair, tmp_path):
    for kind, known in PUBLISHED.items():
        with pytest.raises(InputError) as caught:
            build_split(section(kind, tmp_path / "nowhere"), "train")
        message = str(caught.value)
        assert message.startswith(f"{known.title}: there is no folder ")
        assert f"Get it from {known.source}, and give as data.root" in message
        assert message.endswith(f"{known.layout}.")
        with pytest.raises(InputError, match="there is no"):
            build_split(section(kind, tmp_path), "train")
        with pytest.raises(InputError, match="data.root: expected the folder of"):
            build_split(DataConfig(kind=kind), "train")
    put_pair("images/training/a.jpg", "annotations/training/b.png", [1, 2])
    put_pair("images/training/b.jpg", "annotations/training/b.png", [1, 2])
    with pytest.raises(InputError, match=r"1 of 4 files are not there, first '.*training/a.png'"):
        build_split(section("ade20k", tmp_path), "train")


def test_options_that_a_published_set_does_not_have_are_refused(put_pair, tmp_path):
    write_voc(put_pair, tmp_path)
    data = section("voc", tmp_path)
    with pytest.raises(UsageError, match="data.train: Pascal VOC 2012 lists its own files"):
        build_split(dataclasses.replace(data, train=FilesConfig("a", "b")), "train")
    with pytest.raises(UsageError, match="data.ignore and data.labels_as: .* its own label rule"):
        build_split(dataclasses.replace(data, ignore=(0,)), "train")
    with pytest.raises(UsageError, match="data.val_halves: .*CamVid.* has a test split"):
        build_split(section("camvid", tmp_path, val_halves=True), "val")


def test_classes_of_ones_own_use_the_ids_of_the_files(put_pair, tmp_path):
    put_pair("images/training/a.jpg", "annotations/training/a.png", [0, 1, 2, 7])
    classes = (ClassConfig(2, "building"), ClassConfig(1, "wall"))
    data = section("ade20k", tmp_path, classes=classes, ignore=(0, 7))
    assert masks_of(build_split(data, "train")) == [[IGNORE, 1, 0, IGNORE]]


def test_a_published_set_can_be_divided_anew_by_scene(put_pair, tmp_path):
    for folder, city in (("train", "ulm"), ("train", "bonn"), ("val", "kiel"), ("val", "jena")):
        for k in range(2):
            put_pair(
                f"leftImg8bit/{folder}/{city}/{k}_leftImg8bit.png",
                f"gtFine/{folder}/{city}/{k}_gtFine_labelTrainIds.png",
                [k],
            )
    data = section("cityscapes", tmp_path, official_split=False, split=SplitConfig(val_share=0.5))
    train, val = (build_split(data, name).names for name in ("train", "val"))
    assert len(train) == len(val) == 4
    assert not {n.partition("/")[0] for n in train} & {n.partition("/")[0] for n in val}
