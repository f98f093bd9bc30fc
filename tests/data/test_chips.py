"""Pairs of files -> samples: every pixel as in the file, what is missing ignored."""

import pickle

import numpy as np
import pytest
import torch

from geoseg.config.run import ClassConfig, FilesConfig
from geoseg.data.build import build_split
from geoseg.data.chips import Chip, ChipDataset, ImageRule
from geoseg.data.labels import LabelRule
from geoseg.data.sample import IGNORE, collate_samples
from geoseg.data.statistics import class_counts
from geoseg.errors import (
    BandMismatchError,
    DtypeMismatchError,
    InputError,
    RasterReadError,
)
from geoseg.types import Window
from tests.data.chip_files import PLAIN, folder_data, halves, picture, write_pairs

RULE = LabelRule(((0, 0), (1, 1), (255, IGNORE)))


def dataset(image, label, *, window=None, rule=RULE, transform=None, **images):
    chip = Chip("a", str(image), str(label), window)
    return ChipDataset([chip], rule, ImageRule(**images), transform=transform)


def test_a_sample_holds_raw_values_channels_and_validity(make_raster):
    values = picture()
    image = make_raster(values, "a.png", driver="PNG", **PLAIN)
    label = make_raster(halves(), "m.png", driver="PNG", **PLAIN)
    sample = dataset(image, label)[0]
    assert sample["image"].dtype == torch.float32
    assert (sample["image"].numpy() == values).all()
    assert sample["mask"].dtype == torch.int64
    assert (sample["mask"].numpy() == halves()).all()
    assert sample["valid"].dtype == torch.bool
    assert sample["valid"].all()
    assert sample["name"] == "a"
    batch = collate_samples([sample, sample])
    assert batch["image"].shape == (2, 3, 8, 10)
    assert batch["name"] == ["a", "a"]


def test_alpha_makes_pixels_invalid_and_is_no_band(make_raster):
    values = picture(bands=4)
    values[3] = 255
    values[3, 0, 0] = 0
    colors = ("red", "green", "blue", "alpha")
    image = make_raster(values, "a.png", driver="PNG", colors=colors, **PLAIN)
    sample = dataset(image, make_raster(halves(), "m.png", driver="PNG", **PLAIN))[0]
    assert sample["image"].shape == (3, 8, 10)
    assert not sample["valid"][0, 0]
    assert sample["valid"].sum() == 79
    assert sample["mask"][0, 0] == IGNORE
    assert sample["mask"][0, 1] == 0


def test_nodata_masks_and_nan_make_pixels_invalid(make_raster):
    values = picture().astype(np.uint16)
    values[:, 0, 0] = 0
    values[0, 1, 1] = 0  # one band alone is dark, not missing
    image = make_raster(values, "a.tif", nodata=0)
    label = make_raster(halves(), "m.tif")
    sample = dataset(image, label, dtype="uint16")[0]
    assert not sample["valid"][0, 0]
    assert sample["valid"][1, 1]
    assert sample["mask"][0, 0] == IGNORE

    mask = np.full((8, 10), 255, np.uint8)
    mask[2, 2] = 0
    masked = make_raster(picture(), "b.tif", mask=mask)
    assert not dataset(masked, label)[0]["valid"][2, 2]

    floats = picture().astype(np.float32)
    floats[:, 3, 3] = np.nan
    sample = dataset(make_raster(floats, "c.tif"), label, dtype="float32")[0]
    assert not sample["valid"][3, 3]
    assert sample["mask"][3, 3] == IGNORE


def test_bands_can_be_chosen(make_raster):
    values = picture(bands=5)
    label = make_raster(halves(), "m.tif")
    image = make_raster(values, "a.tif")
    assert dataset(image, label)[0]["image"].shape[0] == 5
    sample = dataset(image, label, bands=(4, 2), count=2)[0]
    assert (sample["image"].numpy() == values[[3, 1]]).all()
    with pytest.raises(BandMismatchError, match=r"expected bands 1, 9 .* got 5 band\(s\)"):
        dataset(image, label, bands=(1, 9))[0]


def test_another_number_of_bands_than_the_first_image_is_refused(make_raster):
    label = make_raster(halves(), "m.tif")
    grey = make_raster(picture(bands=1), "g.tif")
    with pytest.raises(BandMismatchError, match="expected 3 bands as in the first image; got 1"):
        dataset(grey, label, count=3)[0]
    sample = dataset(grey, label, count=3, repeat_grey=True)[0]
    assert sample["image"].shape[0] == 3
    assert (sample["image"] == sample["image"][0]).all()


def test_another_data_type_is_refused(make_raster):
    image = make_raster(picture().astype(np.uint16), "a.tif")
    with pytest.raises(DtypeMismatchError, match="expected uint8 values .* got uint16. Set data.d"):
        dataset(image, make_raster(halves(), "m.tif"))[0]


def test_a_palette_image_is_refused(shared_data):
    image = shared_data / "dubai-landcover/train/masks/tile4_part001.png"
    with pytest.raises(BandMismatchError, match="got a palette image. Expand it first"):
        dataset(image, image)[0]


def test_image_and_mask_of_different_sizes_are_refused(make_raster):
    image = make_raster(picture(), "a.tif")
    label = make_raster(halves(size=(8, 12)), "m.tif")
    with pytest.raises(InputError, match=r"expected 10 x 8 px as its image .* got 12 x 8 px"):
        dataset(image, label)[0]


def test_files_that_are_not_there_are_named(make_raster, tmp_path):
    label = make_raster(halves(), "m.tif")
    with pytest.raises(RasterReadError, match="nothing.png' cannot be opened"):
        dataset(tmp_path / "nothing.png", label)[0]
    with pytest.raises(RasterReadError, match="nothing.png' cannot be opened"):
        dataset(label, tmp_path / "nothing.png", count=1)[0]


@pytest.mark.parametrize("driver", ["PNG", "JPEG", "GTiff"])
@pytest.mark.parametrize("bands", [1, 3])
def test_files_cut_short_are_refused(make_raster, driver, bands):
    size = (64, 64)
    name = f"torn.{driver.lower().removeprefix('g')[:4]}"
    torn = make_raster(picture(size=size, bands=bands), name, driver=driver, **PLAIN)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    label = make_raster(halves(size=size), "m.tif")
    with pytest.raises(RasterReadError, match=r"torn.*cannot be (read|opened)"):
        dataset(torn, label)[0]
    image = make_raster(picture(size=size), "a.tif")
    with pytest.raises(RasterReadError, match=r"torn.*cannot be (read|opened)"):
        dataset(image, torn)[0]


def test_bytes_after_the_end_of_a_png_do_no_harm(make_raster):
    values = picture()
    image = make_raster(values, "a.png", driver="PNG", **PLAIN)
    image.write_bytes(image.read_bytes() + b"written by some tool")
    sample = dataset(image, make_raster(halves(), "m.tif"))[0]
    assert (sample["image"].numpy() == values).all()


def test_an_unknown_label_names_the_file(make_raster):
    image = make_raster(picture(), "a.tif")
    label = make_raster(halves(0, 7), "m.tif")
    with pytest.raises(InputError, match=r"m.tif': expected class ids 0, 1; got 7 \(40 px\)"):
        dataset(image, label)[0]


def test_a_window_is_cut_from_both_files(make_raster):
    values, mask = picture(), halves()
    image, label = make_raster(values, "a.tif"), make_raster(mask, "m.tif")
    sample = dataset(image, label, window=Window(2, 3, 4, 5))[0]
    assert (sample["image"].numpy() == values[:, 2:6, 3:8]).all()
    assert (sample["mask"].numpy() == mask[2:6, 3:8]).all()


def test_the_transform_sees_the_sample(make_raster):
    def shout(sample):
        return {**sample, "name": sample["name"].upper()}

    image, label = make_raster(picture(), "a.tif"), make_raster(halves(), "m.tif")
    assert dataset(image, label, transform=shout)[0]["name"] == "A"


def test_a_data_set_can_be_sent_to_worker_processes(make_raster):
    split = build_split(folder_data(write_pairs(make_raster, ("a", "b", "c"))), "train")
    sent = pickle.loads(pickle.dumps(split.dataset))
    assert (sent[1]["image"] == split.dataset[1]["image"]).all()


def test_real_masks_are_read_as_the_readme_says(shared_data):
    root = shared_data / "dubai-landcover/val"
    classes = (
        ("building", "#3C1098", 3.9),
        ("land", "#8429F6", 42.2),
        ("road", "#6EC1E4", 5.9),
        ("vegetation", "#FEDD3A", 3.5),
        ("water", "#E2A929", 43.9),
    )
    data = folder_data(
        FilesConfig(f"{root}/images", f"{root}/masks"),
        classes=tuple(ClassConfig(k, n, c) for k, (n, c, _) in enumerate(classes)),
        labels_as="colors",
        ignore=("#9B9B9B", "#000000"),
        val=FilesConfig(f"{root}/images", f"{root}/masks"),
    )
    split = build_split(data, "val")
    counts = class_counts(split)
    pixels = sum(split.dataset[k]["mask"].numel() for k in range(len(split.dataset)))
    assert [round(100 * n / pixels, 1) for n in counts] == [share for *_, share in classes]
