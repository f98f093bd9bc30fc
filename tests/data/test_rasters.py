import shutil
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch

from geoseg.config.run import ClassConfig, FilesConfig, SamplingConfig, SplitConfig
from geoseg.data.build import build_split
from geoseg.data.leaks import check_leak
from geoseg.data.rasters import build_raster_split
from geoseg.data.sample import IGNORE
from geoseg.data.samplers import BalancedPatchSampler, CoveringPatchSampler
from geoseg.errors import (
    BandMismatchError,
    DtypeMismatchError,
    GeoreferenceError,
    InputError,
    UsageError,
)
from tests.conftest import ROOT
from tests.data.marks import CLASSES, config, is_marked, north_up, pairs_of, whole

ZOO = ROOT / "tests/data/zoo"


@pytest.fixture
def folder(make_raster, tmp_path):
    """Return a folder of four scenes with labels, apart on the ground."""
    rng = np.random.default_rng(0)
    for i in range(4):
        place = {"transform": north_up(0.3, left=500000 + 100 * i)}
        values = rng.integers(0, 255, (3, 80, 70), np.uint8)
        make_raster(values, f"images/{i}.tif", **place)
        make_raster((values[0] > 99).astype(np.uint8), f"labels/{i}_mask.tif", **place)
    return tmp_path


def test_a_split_has_what_the_contract_says(folder):
    data = config(folder / "images", folder / "labels")
    train, val = (build_split(data, name, patch_px=32) for name in ("train", "val"))
    assert isinstance(train.sampler, BalancedPatchSampler)
    assert isinstance(val.sampler, CoveringPatchSampler)
    assert [c.name for c in train.classes] == ["other", "mark"]
    assert train.bands == ("red", "green", "blue")
    assert train.dtype == "uint8"
    assert len(train.names) == 3
    assert len(val.names) == 1
    assert not set(train.names) & set(val.names)
    assert len(train.sampler) == 3 * 9
    assert len(val.sampler) == 9
    assert check_leak(train, val) == ()
    sample = train.dataset[next(iter(train.sampler))]
    assert sample["image"].shape == (3, 32, 32)


def test_the_transform_sees_the_sample_after_reading(folder):
    def flip(sample):
        return {**sample, "image": sample["image"].flip(-1)}

    data = config(folder / "images", folder / "labels")
    plain, flipped = (
        build_raster_split(data, "val", transform=t, patch_px=32) for t in (None, flip)
    )
    index = next(iter(plain.sampler))
    assert (plain.dataset[index]["image"].flip(-1) == flipped.dataset[index]["image"]).all()


def test_each_scene_keeps_its_own_resolution(make_raster, tmp_path):
    for name, size_m, shape in (("fine", 0.25, (64, 64)), ("coarse", 0.5, (32, 32))):
        values = np.random.default_rng(1).integers(0, 255, (3, *shape), np.uint8)
        transform = north_up(size_m, left=500000 + 100 * shape[0])
        make_raster(values, f"images/{name}.tif", transform=transform, crs="EPSG:2180")
        label = np.random.default_rng(2).integers(0, 2, shape, np.uint8)
        make_raster(label, f"masks/{name}.tif", transform=transform, crs="EPSG:2180")
    data = config(tmp_path / "images/*.tif", tmp_path / "masks/*.tif")
    split = build_raster_split(replace(data, split=SplitConfig(val_share=0)), "train", patch_px=16)
    assert len(split.sampler) == 16 + 4
    for number, scene in enumerate(split.dataset.scenes):
        with rasterio.open(scene.path) as dataset:
            assert (whole(split.dataset, number)["image"].numpy() == dataset.read()).all()
        with rasterio.open(scene.path.replace("images", "masks")) as dataset:
            assert (whole(split.dataset, number)["mask"].numpy() == dataset.read(1)).all()


def test_cells_divide_one_raster_without_sharing_a_label(make_raster, tmp_path):
    make_raster(np.ones((1, 400, 400), np.uint8), "a.tif")
    frame = geopandas.GeoDataFrame(
        {"kind": ["mark"]}, geometry=[shapely.box(500000, 4999880, 500120, 5000000)], crs=32633
    )
    frame.to_file(tmp_path / "labels.gpkg")
    data = config(tmp_path / "a.tif", tmp_path / "labels.gpkg", class_field="kind")
    data = replace(data, split=SplitConfig(by="cell", cell_m=20, val_share=0.3))
    train, val = (build_raster_split(data, name, patch_px=64) for name in ("train", "val"))
    assert train.bands == ("band1",)
    assert check_leak(train, val) == ()
    labelled = torch.zeros(2, 400, 400, dtype=torch.int64)
    for k, split in enumerate((train, val)):
        for index in CoveringPatchSampler(split.dataset, 64):
            row, col = index.window[:2]
            mask = split.dataset[index]["mask"][: 400 - row, : 400 - col] != IGNORE
            labelled[k, row : row + 64, col : col + 64] += mask
    assert (labelled.sum(dim=0) == 1).all()
    assert 0.2 < (labelled[1] == 1).float().mean() < 0.4


def test_files_of_their_own_are_not_divided(folder):
    own = FilesConfig(str(folder / "images/3.tif"), str(folder / "labels/3_mask.tif"))
    data = config(folder / "images", folder / "labels", val=own)
    train, val = (build_raster_split(data, name) for name in ("train", "val"))
    assert (len(train.names), len(val.names)) == (4, 1)
    (sentence,) = check_leak(train, val)
    assert "100.0% of the validation's, most of it in" in sentence
    with pytest.raises(InputError, match=r"there are no test data\. Give data\.test"):
        build_raster_split(data, "test")


def test_no_share_is_no_split(folder):
    data = replace(config(folder / "images", folder / "labels"), split=SplitConfig(val_share=0))
    assert len(build_raster_split(data, "train").names) == 4
    with pytest.raises(InputError, match=r"no val data\. Give data\.val, or a data\.split\.val_sh"):
        build_raster_split(data, "val")


def test_division_by_chip_says_that_it_leaks(folder):
    data = replace(config(folder / "images", folder / "labels"), split=SplitConfig(by="chip"))
    assert "neighbouring files" in build_raster_split(data, "train").notes[0]


def test_only_the_names_listed_are_taken(folder):
    (folder / "names.txt").write_text("2\n0.tif\n")
    files = FilesConfig(
        str(folder / "images"), str(folder / "labels"), names=str(folder / "names.txt")
    )
    data = replace(config("", ""), train=files, split=SplitConfig(val_share=0))
    assert [name[-5:] for name in build_raster_split(data, "train").names] == ["2.tif", "0.tif"]
    (folder / "names.txt").write_text("9\n")
    with pytest.raises(InputError, match=r"data.train.names: '9' not found among the 4 images"):
        build_raster_split(data, "train")


def test_labels_outside_of_the_region_of_interest_are_ignored(folder):
    roi = shapely.box(500006, 4999990, 500012, 4999997)
    path = folder / "roi.geojson"
    geopandas.GeoSeries([roi], crs=32633).to_crs(4326).to_file(path)
    files = FilesConfig(str(folder / "images"), str(folder / "labels"), roi=str(path))
    data = replace(config("", ""), train=files, split=SplitConfig(val_share=0))
    split = build_raster_split(data, "train", patch_px=32)
    assert len(split.names) == 1
    sample = whole(split.dataset)
    rows, cols = np.nonzero((sample["mask"] != IGNORE).numpy())
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (10, 32, 20, 39)
    assert sample["valid"].all()
    elsewhere = geopandas.GeoSeries([shapely.box(0, 0, 1, 1)], crs=4326)
    elsewhere.to_file(path)
    with pytest.raises(InputError, match=r"data\.train\.roi: no image has ground inside of"):
        build_raster_split(data, "train")


def test_labels_are_found_by_place_where_names_differ(make_raster, tmp_path):
    for i in range(2):
        transform = north_up(0.3, left=500000 + 18 * i)
        make_raster(np.ones((1, 60, 60), np.uint8), f"images/{i}.tif", transform=transform)
    label = np.zeros((60, 120), np.uint8)
    label[:, 60:] = 1
    make_raster(label, "labels/all of it.tif")
    pairs = pairs_of(tmp_path / "images", tmp_path / "labels")
    assert (whole(pairs, 0)["mask"] == 0).all()
    assert (whole(pairs, 1)["mask"] == 1).all()


def test_two_dates_of_one_place_keep_their_own_labels(make_raster, tmp_path):
    for i in range(2):
        make_raster(np.full((1, 60, 60), i + 5, np.uint8), f"images/{i}.tif")
        make_raster(np.full((60, 60), i, np.uint8), f"labels/{i}.tif")
    pairs = pairs_of(tmp_path / "images", tmp_path / "labels")
    for i in range(2):
        sample = whole(pairs, i)
        assert (sample["image"] == i + 5).all()
        assert (sample["mask"] == i).all()


def test_an_image_without_any_label_is_named(folder, make_raster):
    make_raster(np.ones((3, 9, 9), np.uint8), "images/lone.tif", transform=north_up(1, left=0))
    data = config(folder / "images", folder / "labels")
    with pytest.raises(InputError, match=r"no label raster has the name .*lone\.tif'\. Add"):
        build_raster_split(data, "train")


def test_images_without_a_polygon_are_left_out_and_counted(folder):
    polygon = shapely.box(500001, 4999990, 500009, 4999998)
    geopandas.GeoDataFrame({"id": [1]}, geometry=[polygon], crs=32633).to_file(folder / "l.gpkg")
    data = config(folder / "images", folder / "l.gpkg", class_field="id")
    split = build_raster_split(replace(data, split=SplitConfig(val_share=0)), "train")
    assert split.notes == ("3 image(s) without labelled ground are left out",)


def test_pixels_without_a_place_pair_with_the_very_same_pixels(make_raster, tmp_path):
    marked = is_marked(north_up(0.3), (300, 300))
    make_raster(marked.astype(np.uint8), "images/a.tif", crs=None, transform=None)
    make_raster(marked.astype(np.uint8), "labels/a.tif", crs=None, transform=None)
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels"))
    np.testing.assert_array_equal(sample["mask"], marked)
    data = config(tmp_path / "images", tmp_path / "labels", split=SplitConfig(val_share=0))
    split = build_raster_split(data, "train", patch_px=64)
    assert {split.dataset[index]["mask"].max().item() for index in split.sampler} <= {0, 1}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"name": "labels/b.tif"}, r"a\.tif' has no CRS, and no label raster has its name"),
        (
            {"shape": (30, 40)},
            r"a\.tif' has no CRS, and its label .*a\.tif' is not on its pixels: 60 x 60 px and "
            r"40 x 30 px",
        ),
        ({"transform": north_up(0.4)}, r"is not on its pixels: 60 x 60 px and 60 x 60 px, transf"),
    ],
)
def test_images_without_crs_are_refused_unless_labels_have_their_pixels(
    make_raster, tmp_path, label, message
):
    make_raster(np.ones((1, 60, 60), np.uint8), "images/a.tif", crs=None)
    values = np.ones(label.get("shape", (60, 60)), np.uint8)
    place = {"transform": label.get("transform", north_up(0.3)), "crs": None}
    make_raster(values, label.get("name", "labels/a.tif"), **place)
    with pytest.raises(GeoreferenceError, match=message):
        pairs_of(tmp_path / "images", tmp_path / "labels")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("byte_gcp.tif", r"byte_gcp\.tif' is placed by ground control points only\. Warp it"),
        ("byte_rpc.tif", r"byte_rpc\.tif' is placed by RPC coefficients only"),
        ("byte_nogeoref.tif", r"byte_nogeoref\.tif' has no CRS, and no label raster"),
    ],
)
def test_images_that_are_not_placed_are_refused_by_name(folder, file, message):
    with pytest.raises(GeoreferenceError, match=message):
        build_raster_split(config(ZOO / file, folder / "labels"), "train")


def test_a_rotated_raster_is_read_on_its_own_pixels(tmp_path, make_raster):
    # The zoo's geomatrix is rotated and sheared.
    (tmp_path / "images").mkdir()
    shutil.copy(ZOO / "geomatrix.tif", tmp_path / "images/a.tif")
    with rasterio.open(ZOO / "geomatrix.tif") as dataset:
        values, transform = dataset.read(), dataset.transform
        crs = dataset.crs.to_wkt()
    label = (values[0] > 120).astype(np.uint8)
    make_raster(label, "labels/a.tif", transform=transform, crs=crs)
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels"))
    np.testing.assert_array_equal(sample["image"], values)
    np.testing.assert_array_equal(sample["mask"], label)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"classes": None}, InputError, r"data\.classes: expected the classes of the labels"),
        ({"subset": 0.5}, UsageError, r"data\.subset: scenes have no fixed set of samples"),
        ({"dtype": "uint16"}, DtypeMismatchError, r"expected uint16 values .*; got uint8"),
        ({"bands": (1, 4)}, BandMismatchError, r"expected bands 1, 4 .*; got 3 band"),
        ({"band_names": ("a",)}, InputError, r"data\.band_names: expected 3 names, .*; got 1"),
        ({"train": None}, InputError, r"data\.train: expected the images and labels"),
    ],
)
def test_sections_that_do_not_fit_are_refused(folder, fields, error, message):
    data = replace(config(folder / "images", folder / "labels"), **fields)
    with pytest.raises(error, match=message):
        build_raster_split(data, "train")


def test_images_of_different_bands_are_refused(folder, make_raster):
    make_raster(np.ones((5, 80, 70), np.uint8), "images/3.tif", photometric="minisblack")
    with pytest.raises(BandMismatchError, match=r"3\.tif': expected 3 bands .*; got 5"):
        build_raster_split(config(folder / "images", folder / "labels"), "train")


def test_pixels_of_unknown_length_cannot_be_resampled(make_raster, tmp_path):
    for name in ("images", "labels"):
        make_raster(np.ones((1, 60, 60), np.uint8), f"{name}/a.tif", crs=None)
    data = config(tmp_path / "images", tmp_path / "labels", sampling=SamplingConfig(gsd_m=1.0))
    with pytest.raises(
        GeoreferenceError, match=r"data\.sampling\.gsd_m: expected images with a CRS"
    ):
        build_raster_split(data, "train")


def test_real_chips_that_touch_are_one_scene_and_pair_by_name(shared_data):
    root = shared_data / "banepa-buildings"
    classes = (ClassConfig(0, "background"), ClassConfig(1, "building"))
    data = config(root / "train/images", root / "train/masks", classes=classes)
    with pytest.raises(InputError, match=r"1 scene\(s\), where files that overlap or touch"):
        build_raster_split(data, "train")
    val = FilesConfig(str(root / "val/images"), str(root / "val/masks"))
    train, val = (
        build_raster_split(replace(data, val=val), name, patch_px=256) for name in ("train", "val")
    )
    assert "touch a training file" in check_leak(train, val)[0]
    assert len(val.sampler) == 8 * 4


def test_real_polygons_burn_to_the_masks_that_were_made_of_them(shared_data):
    root = shared_data / "banepa-buildings/train"
    classes = (ClassConfig(0, "background"), ClassConfig(1, "building"))
    rasters = pairs_of(root / "images", root / "masks", classes=classes)
    polygons = pairs_of(
        root / "images", root / "osm_buildings.geojson", classes=classes, background_id=0
    )
    same = [
        (whole(rasters, i)["mask"] == whole(polygons, i)["mask"]).float().mean() for i in range(4)
    ]
    assert min(same) > 0.999


def test_classes_of_the_data_set_may_have_other_ids(folder):
    data = config(folder / "images", folder / "labels", classes=tuple(reversed(CLASSES)))
    split = build_raster_split(replace(data, split=SplitConfig(val_share=0)), "train", patch_px=32)
    sample = whole(split.dataset)
    np.testing.assert_array_equal(sample["mask"] == 0, sample["image"][0] > 99)
