"""From the data section to splits: divided by place, the same at every run."""

import dataclasses

import numpy as np
import pytest

from geoseg.config.run import FilesConfig, SplitConfig
from geoseg.data.build import build_split
from geoseg.data.chips import Chip
from geoseg.data.divide import choose_subset, divide, halve
from geoseg.errors import InputError, UsageError
from tests.data.chip_files import CLASSES, PLAIN, folder_data, halves, picture, write_pairs

CHIPS = tuple(Chip(f"s{k // 3}_{k}", f"{k}.jpg", f"{k}.png", scene=f"s{k // 3}") for k in range(30))


def names(chips):
    return [chip.name for chip in chips]


def test_given_splits_are_taken_as_they_are(make_raster):
    train = write_pairs(make_raster, ("a", "b"), "train")
    val = write_pairs(make_raster, ("c",), "val")
    test = write_pairs(make_raster, ("d",), "test")
    data = folder_data(train, val=val, test=test)
    found = {name: build_split(data, name) for name in ("train", "val", "test")}
    assert {name: s.names for name, s in found.items()} == {
        "train": ("a", "b"),
        "val": ("c",),
        "test": ("d",),
    }
    split = found["train"]
    assert split.bands == ("red", "green", "blue")
    assert split.dtype == "uint8"
    assert [(c.id, c.name, c.color) for c in split.classes] == [
        (c.id, c.name, c.color) for c in CLASSES
    ]
    assert split.sampler is None
    with pytest.raises(InputError, match="there are no test data. Give data.test"):
        build_split(dataclasses.replace(data, test=None), "test")


def test_one_set_is_divided_without_overlap(make_raster):
    data = folder_data(write_pairs(make_raster, tuple("abcdefghij")))
    data = dataclasses.replace(data, split=SplitConfig(val_share=0.2, test_share=0.3))
    found = [set(build_split(data, name).names) for name in ("train", "val", "test")]
    assert [len(f) for f in found] == [5, 2, 3]
    assert set.union(*found) == set("abcdefghij")
    assert build_split(data, "val").names == build_split(data, "val").names
    other = dataclasses.replace(data, split=SplitConfig(val_share=0.2, test_share=0.3, seed=1))
    assert set(build_split(other, "val").names) != found[1]


def test_a_test_set_of_its_own_leaves_the_training_files_alone(make_raster):
    train = write_pairs(make_raster, tuple("abcde"), "train")
    test = write_pairs(make_raster, ("z",), "test")
    data = folder_data(train, test=test, split=SplitConfig(test_share=0.4))
    assert build_split(data, "test").names == ("z",)
    assert len(build_split(data, "train").names) == 4


def test_scenes_stay_whole():
    found = {s: divide(CHIPS, SplitConfig(val_share=0.3), s) for s in ("train", "val")}
    scenes = {s: {c.scene for c in chips} for s, chips in found.items()}
    assert not scenes["train"] & scenes["val"]
    assert len(scenes["val"]) == 3
    assert names(found["train"]) == [c.name for c in CHIPS if c.scene in scenes["train"]]


def test_chips_are_only_split_when_asked_for_and_with_a_note(make_raster):
    by_chip = divide(CHIPS, SplitConfig(by="chip", val_share=0.3), "val")
    assert len(by_chip) == 9
    assert {c.scene for c in by_chip} & {
        c.scene for c in divide(CHIPS, SplitConfig(by="chip", val_share=0.3), "train")
    }
    train = write_pairs(make_raster, tuple("abcde"))
    assert build_split(folder_data(train), "val").notes == ()
    notes = build_split(folder_data(train, split=SplitConfig(by="chip")), "val").notes
    assert "neighbouring chips fall on both sides" in notes[0]


def test_divisions_that_leave_nothing_are_refused():
    with pytest.raises(UsageError, match="data.split.by: cell needs georeferenced scenes"):
        divide(CHIPS, SplitConfig(by="cell"), "val")
    with pytest.raises(InputError, match=r"1 scene\(s\) cannot be divided into train, 1 for val"):
        divide(CHIPS[:3], SplitConfig(), "val")
    with pytest.raises(InputError, match=r"no val data. Give data.val, or a data.split.val_share"):
        divide(CHIPS, SplitConfig(val_share=0.0), "val")
    with pytest.raises(InputError, match="there are no test data"):
        divide(CHIPS, SplitConfig(), "test")


def test_the_subset_is_the_draw_of_the_published_recipes():
    np.random.seed(123)  # noqa: NPY002  # as the recipes drew
    expected = np.random.choice(30, 30 // 8, replace=False)  # noqa: NPY002
    found = choose_subset(CHIPS, 1 / 8, 123)
    assert sorted(names(found)) == sorted(CHIPS[i].name for i in expected)
    assert choose_subset(CHIPS, 1.0, 123) == CHIPS
    assert len(choose_subset(CHIPS, 0.001, 123)) == 1
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(InputError, match="expected a share above 0 and at most 1"):
            choose_subset(CHIPS, share, 123)


def test_the_subset_is_of_the_training_split_alone(make_raster):
    train = write_pairs(make_raster, tuple("abcdefgh"), "train")
    val = write_pairs(make_raster, tuple("klm"), "val")
    data = folder_data(train, val=val, subset=0.25)
    assert len(build_split(data, "train").names) == 2
    assert len(build_split(data, "val").names) == 3


def test_halves_are_disjoint_and_complete():
    val, test = halve(CHIPS, "val", 123), halve(CHIPS, "test", 123)
    assert len(val) == len(test) == 15
    assert sorted(names(val) + names(test)) == sorted(names(CHIPS))
    assert names(val) != names(halve(CHIPS, "val", 124))


def test_bands_are_counted_on_the_first_image_and_can_be_named(make_raster):
    image = make_raster(picture(bands=5), "i/a.tif", descriptions=tuple("vwxyz"))
    make_raster(halves(), "m/a.tif")
    files = FilesConfig(str(image.parent), str(image.parent.parent / "m"))
    data = folder_data(files, val=files)
    assert build_split(data, "train").bands == ("band1", "band2", "band3", "band4", "band5")
    two = dataclasses.replace(data, bands=(4, 1), band_names=("nir", "red"))
    split = build_split(two, "train")
    assert split.bands == ("nir", "red")
    assert split.dataset[0]["image"].shape[0] == 2
    with pytest.raises(InputError, match="expected 2 names, one per band; got 1"):
        build_split(dataclasses.replace(two, band_names=("nir",)), "train")


def test_what_a_folder_needs_is_said(make_raster):
    files = write_pairs(make_raster)
    with pytest.raises(InputError, match="data.train: expected the images and labels of the tra"):
        build_split(dataclasses.replace(folder_data(files), train=None), "train")
    with pytest.raises(InputError, match="data.classes: expected the classes of the masks"):
        build_split(folder_data(files, classes=None), "train")


def test_the_transform_is_called_on_each_sample(make_raster):
    files = write_pairs(make_raster)
    seen = []
    split = build_split(
        folder_data(files, val=files), "train", transform=lambda s: seen.append(s["name"]) or s
    )
    assert split.dataset[1]["name"] == "b"
    assert seen == ["b"]


def test_real_chips_of_the_project(make_raster, request):
    root = request.path.parent / "dubai"
    data = folder_data(
        FilesConfig(f"{root}/*.jpg", f"{root}/*.png"),
        classes=tuple(dataclasses.replace(CLASSES[0], id=k, name=f"c{k}") for k in range(5)),
        split=SplitConfig(val_share=0.25),
    )
    train, val = build_split(data, "train"), build_split(data, "val")
    assert sorted(train.names + val.names) == ["0", "1", "2", "3"]
    assert train.dataset[0]["image"].shape == (3, 224, 224)
    assert PLAIN["crs"] is None
