import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.config.run import ClassConfig
from geoseg.data.patch_reader import HandlePool
from geoseg.data.sample import IGNORE
from geoseg.errors import InputError, RasterReadError
from geoseg.raster.reader import open_raster
from geoseg.types import Window
from tests.conftest import ROOT
from tests.data.marks import (
    centre_of,
    config,
    is_marked,
    north_up,
    pairs_of,
    patch,
    rotated,
    south_up,
    whole,
)

ZOO = ROOT / "tests/data/zoo"
IMAGES = {
    "north-up": (north_up(0.3), (300, 300)),
    "south-up": (south_up(0.3, 300), (300, 300)),
    "rotated": (rotated(0.3), (300, 300)),
}
LABELS = {
    "same pixels": (None, None, "EPSG:32633"),
    "half the size": (north_up(0.6), (150, 150), "EPSG:32633"),
    "three times the size": (north_up(0.1), (900, 900), "EPSG:32633"),
    "south-up": (south_up(0.3, 300), (300, 300), "EPSG:32633"),
    "rotated": (rotated(0.3, -40.0), (300, 300), "EPSG:32633"),
    "a third of a pixel aside": (north_up(0.3, left=499999.9), (310, 310), "EPSG:32633"),
    "another zone": (Affine(0.3, 0, 28800, 0, -0.3, 5014000), (3000, 3000), "EPSG:32634"),
    "degrees": (Affine(3e-6, 0, 15.0, 0, -3e-6, 45.1535), (500, 500), "EPSG:4326"),
}


def find(crs, transform, shape):
    """Return a transform of this pixel size in whose raster the mark is."""
    import pyproj

    from tests.data.marks import MARK

    x, y = pyproj.Transformer.from_crs("EPSG:32633", crs, always_xy=True).transform(
        *MARK.centroid.coords[0]
    )
    moved = Affine.translation(x, y) @ Affine.scale(transform.a, transform.e)
    return moved @ Affine.translation(-shape[1] / 2, -shape[0] / 2)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("image", IMAGES)
def test_a_mark_lies_at_the_same_place_in_image_and_label(make_raster, tmp_path, image, label):
    transform, shape = IMAGES[image]
    their, their_shape, crs = LABELS[label]
    if their is None:
        their, their_shape = transform, shape
    if crs != "EPSG:32633":
        their_shape = (320, 320)
        their = find(crs, their, their_shape)
    marked = is_marked(transform, shape)
    make_raster(marked.astype(np.uint8) * 200, "images/a.tif", transform=transform)
    there = is_marked(their, their_shape, crs)
    make_raster(there.astype(np.uint8), "labels/a.tif", transform=their, crs=crs)

    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels"))

    assert set(np.unique(sample["mask"])) <= {0, 1, IGNORE}
    np.testing.assert_allclose(
        centre_of(sample["mask"].numpy() == 1),
        centre_of(sample["image"][0].numpy() == 200),
        atol=0.5,
    )


def test_labels_of_half_the_size_are_never_interpolated(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    ids = rng.choice([1, 5, 9], (64, 64)).astype(np.uint8)
    make_raster(np.zeros((128, 128), np.uint8), "images/a.tif", transform=north_up(0.3))
    make_raster(ids, "labels/a.tif", transform=north_up(0.6))
    classes = tuple(ClassConfig(i, f"class {i}") for i in (1, 5, 9))
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels", classes=classes))
    wanted = np.searchsorted([1, 5, 9], ids).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(sample["mask"], wanted)


def test_real_labels_of_half_the_size_are_never_interpolated(shared_data, make_raster, tmp_path):
    folder = shared_data / "openearthmap-samples"
    image = folder / "images/wielkopolskie_9.tif"
    truth = next(p for p in folder.rglob("wielkopolskie_9*") if "images" not in p.parts)
    with open_raster(str(truth)) as dataset:
        colors = dataset.read([1, 2, 3]).astype(int)
        packed = (colors[0] << 16) + (colors[1] << 8) + colors[2]
    found, ids = np.unique(packed, return_inverse=True)
    ids = ids.reshape(packed.shape).astype(np.uint8)
    with rasterio.open(image) as dataset:
        ratio = dataset.width / ids.shape[1]
        transform, crs = dataset.transform @ Affine.scale(ratio), dataset.crs.to_wkt()
    (tmp_path / "images").mkdir()
    shutil.copy(image, tmp_path / "images/a.tif")
    make_raster(ids, "labels/a.tif", transform=transform, crs=crs)
    classes = tuple(ClassConfig(i, f"class {i}") for i in range(len(found)))
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels", classes=classes))
    np.testing.assert_array_equal(sample["mask"], ids.repeat(2, 0).repeat(2, 1))


def test_averaged_overviews_of_labels_are_never_read(make_raster, tmp_path):
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200
    path = make_raster(
        stripes, "labels/a.tif", transform=north_up(0.15), tiled=True, blockxsize=64, blockysize=64
    )
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], rasterio.enums.Resampling.average)
    make_raster(np.zeros((64, 64), np.uint8), "images/a.tif", transform=north_up(0.6))
    classes = (ClassConfig(0, "a"), ClassConfig(200, "b"))
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels", classes=classes))
    assert set(np.unique(sample["mask"])) <= {0, 1}


@pytest.fixture
def one_scene(make_raster, tmp_path):
    """Return a maker of one scene whose labels are all 1, and what is read of it."""

    def make(values, *, label=None, index=None, fields=None, **raster):
        make_raster(values, "images/a.tif", **raster)
        ones = np.ones(values.shape[-2:], np.uint8)
        make_raster(ones if label is None else label, "labels/a.tif")
        pairs = pairs_of(tmp_path / "images", tmp_path / "labels", **(fields or {}))
        return pairs[patch(pairs, index)] if index else whole(pairs)

    return make


def test_uint16_of_five_bands_keeps_its_values_and_the_order_asked_for(one_scene):
    values = np.random.default_rng(0).integers(0, 65536, (5, 20, 30), np.uint16)
    sample = one_scene(values, fields={"dtype": "uint16", "bands": (4, 2, 1)})
    assert sample["image"].dtype.is_floating_point
    np.testing.assert_array_equal(sample["image"], values[[3, 1, 0]])
    assert sample["valid"].all()


def test_nodata_is_not_valid_and_ignored(one_scene):
    values = np.full((3, 20, 30), 7, np.uint8)
    values[:, :5] = 0
    values[0, 10] = 0  # a dark pixel: only one band
    sample = one_scene(values, nodata=0)
    assert not sample["valid"][:5].any()
    assert sample["valid"][5:].all()
    assert (sample["mask"][:5] == IGNORE).all()
    assert (sample["mask"][5:] == 1).all()


def test_alpha_is_not_a_band_but_says_what_is_valid(one_scene):
    values = np.full((4, 20, 30), 7, np.uint8)
    values[3, :, :4] = 0
    sample = one_scene(values, colors=("red", "green", "blue", "alpha"))
    assert sample["image"].shape == (3, 20, 30)
    assert not sample["valid"][:, :4].any()
    assert sample["valid"][:, 4:].all()


def test_an_internal_mask_says_what_is_valid(one_scene):
    known = np.full((20, 30), 255, np.uint8)
    known[3] = 0
    sample = one_scene(np.ones((3, 20, 30), np.uint8), mask=known)
    assert sample["valid"].all(axis=1).tolist() == [row != 3 for row in range(20)]


def test_gaps_of_single_bands_do_not_count_until_the_mean_is_known(one_scene):
    values = np.ones((2, 20, 30), np.float32)
    values[0, 4] = np.nan
    values[:, 5] = np.nan
    fields = {"dtype": "float32"}
    sample = one_scene(values, fields=fields)
    assert not sample["valid"][4:6].any()
    sample = one_scene(values, fields={**fields, "mean": (3.0, 4.0), "std": (1.0, 1.0)})
    assert sample["valid"][4].all()
    assert not sample["valid"][5].any()
    assert (sample["image"][0, 4] == 3).all()


def test_a_declared_scale_is_applied_as_in_a_prediction(one_scene):
    values = np.full((1, 20, 30), 5000, np.uint16)
    sample = one_scene(values, scales=(0.0001,), offsets=(-0.1,), fields={"dtype": "uint16"})
    np.testing.assert_allclose(sample["image"], 0.4, rtol=1e-6)


def test_what_lies_beyond_the_scene_is_neither_valid_nor_labelled(one_scene):
    values = np.arange(1, 601, dtype=np.uint16).reshape(1, 20, 30)
    sample = one_scene(values, index=Window(-4, 25, 16, 16), fields={"dtype": "uint16"})
    inside = np.zeros((16, 16), bool)
    inside[4:, :5] = True
    np.testing.assert_array_equal(sample["valid"], inside)
    np.testing.assert_array_equal(sample["mask"] == 1, inside)
    np.testing.assert_array_equal(sample["image"][0, 4:, :5], values[0, :12, 25:])
    assert (sample["image"][0][~inside] == 0).all()


def test_a_patch_wholly_beyond_the_scene_is_empty(one_scene):
    sample = one_scene(np.ones((1, 20, 30), np.uint8), index=Window(40, 0, 8, 8))
    assert not sample["valid"].any()
    assert (sample["mask"] == IGNORE).all()


def test_nodata_of_labels_is_ignored(one_scene, make_raster, tmp_path):
    label = np.ones((20, 30), np.uint8)
    label[:3] = 77
    make_raster(np.ones((1, 20, 30), np.uint8), "images/a.tif")
    make_raster(label, "labels/a.tif", nodata=77)
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels"))
    assert (sample["mask"][:3] == IGNORE).all()
    assert (sample["mask"][3:] == 1).all()
    assert sample["valid"].all()


def test_a_mask_of_labels_is_ignored(make_raster, tmp_path):
    known = np.full((20, 30), 255, np.uint8)
    known[:, 3] = 0
    make_raster(np.ones((1, 20, 30), np.uint8), "images/a.tif")
    make_raster(np.ones((20, 30), np.uint8), "labels/a.tif", mask=known)
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels"))
    assert (sample["mask"] == IGNORE).all(axis=0).tolist() == [col == 3 for col in range(30)]


def test_labels_by_colour(make_raster, tmp_path):
    colors = np.zeros((3, 20, 30), np.uint8)
    colors[:, :, 10:] = np.array([60, 16, 152])[:, None, None]
    make_raster(np.ones((1, 20, 30), np.uint8), "images/a.tif")
    make_raster(colors, "labels/a.tif")
    classes = (ClassConfig(0, "other", "#000000"), ClassConfig(1, "building", "#3C1098"))
    fields = {"labels_as": "colors", "classes": classes}
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels", **fields))
    assert sample["mask"][0].tolist() == [0] * 10 + [1] * 20


def test_a_value_without_class_names_the_file(one_scene):
    with pytest.raises(InputError, match=r"a\.tif.*expected class ids 0, 1; got 9 \(600 px\)"):
        one_scene(np.ones((1, 20, 30), np.uint8), label=np.full((20, 30), 9, np.uint8))


def test_a_file_that_is_cut_short_is_named(tmp_path, make_raster):
    (tmp_path / "images").mkdir()
    shutil.copy(ZOO / "byte_truncated.tif", tmp_path / "images/a.tif")
    with rasterio.open(ZOO / "byte_truncated.tif") as dataset:
        shape, transform, crs = dataset.shape, dataset.transform, dataset.crs.to_wkt()
    make_raster(np.ones(shape, np.uint8), "labels/a.tif", transform=transform, crs=crs)
    with pytest.raises(RasterReadError, match=r"a\.tif.*cannot be read"):
        whole(pairs_of(tmp_path / "images", tmp_path / "labels"))


def test_labels_that_are_cut_short_are_named(tmp_path, make_raster):
    (tmp_path / "labels").mkdir()
    shutil.copy(ZOO / "byte_truncated.tif", tmp_path / "labels/a.tif")
    with rasterio.open(ZOO / "byte_truncated.tif") as dataset:
        shape, transform, crs = dataset.shape, dataset.transform, dataset.crs.to_wkt()
    make_raster(np.ones(shape, np.uint8), "images/a.tif", transform=transform, crs=crs)
    with pytest.raises(RasterReadError, match=r"a\.tif.*rows 0 to 20 and columns 0 to 20 cannot"):
        whole(pairs_of(tmp_path / "images", tmp_path / "labels"))


def test_scenes_resampled_on_request_keep_a_mark_in_its_place(make_raster, tmp_path):
    marked = is_marked(north_up(0.3), (300, 300))
    values = np.where(marked, 200, 10).astype(np.uint8)
    values[:, :30] = 0
    make_raster(values, "images/a.tif", nodata=0)
    make_raster(marked.astype(np.uint8), "labels/a.tif")
    data = config(tmp_path / "images", tmp_path / "labels")
    sampling = type(data.sampling)(gsd_m=0.6)
    pairs = pairs_of(tmp_path / "images", tmp_path / "labels", sampling=sampling)
    sample = whole(pairs)
    assert sample["mask"].shape == (150, 150)
    np.testing.assert_allclose(
        centre_of(sample["mask"].numpy() == 1),
        centre_of(sample["image"][0].numpy() > 105),
        atol=0.5,
    )
    # Usable pixels beside nodata are not darkened by it.
    assert sample["image"][0][sample["valid"]].min() == 10
    assert not sample["valid"][:, :14].any()


def test_handles_are_lent_to_one_at_a_time_and_used_again(make_raster):
    path = str(make_raster(np.ones((1, 20, 30), np.uint8)))
    pool = HandlePool()
    with pool.lend(path) as first, pool.lend(path) as second:
        assert first is not second
    with pool.lend(path) as again:
        assert again is first or again is second
    pool.close()
    assert first.closed
    assert second.closed


def test_the_handles_used_longest_ago_are_closed(make_raster):
    paths = [str(make_raster(np.ones((1, 4, 4), np.uint8), f"{i}.tif")) for i in range(4)]
    pool = HandlePool(2)
    handles = []
    for path in paths:
        with pool.lend(path) as handle:
            handles.append(handle)
    assert [handle.closed for handle in handles] == [True, True, False, False]


def test_another_process_opens_its_own_handles(make_raster, monkeypatch):
    path = str(make_raster(np.ones((1, 20, 30), np.uint8)))
    pool = HandlePool()
    with pool.lend(path) as first:
        pass
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pool.lend(path) as second:
        assert second is not first


def test_threads_read_the_same_as_one(make_raster, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3, 200, 200), np.uint8)
    make_raster(values, "images/a.tif")
    make_raster((values[0] > 99).astype(np.uint8), "labels/a.tif")
    pairs = pairs_of(tmp_path / "images", tmp_path / "labels")
    indexes = [patch(pairs, Window(row, row, 64, 64)) for row in range(0, 128, 4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(pairs.__getitem__, indexes))
    for sample, index in zip(together, indexes, strict=True):
        one = pairs[index]
        assert (sample["image"] == one["image"]).all()
        assert (sample["mask"] == one["mask"]).all()
