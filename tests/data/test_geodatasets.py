import pickle
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from torch.utils.data import DataLoader
from torchgeo.datasets import IntersectionDataset, UnionDataset
from torchgeo.samplers import GriddedPatchSampler, RandomPatchSampler

from geoseg.data.sample import IGNORE, collate_samples
from geoseg.data.scene_pairs import ScenePairs
from geoseg.errors import GeoreferenceError
from geoseg.types import Window
from tests.data.marks import MARK, is_marked, north_up, pairs_of, patch, whole

KEYS = {"image", "mask", "valid", "name"}


@pytest.fixture
def two_scenes(make_raster, tmp_path):
    """Return imagery and labels of two scenes side by side, 60 x 60 px of 0.3 m each."""
    rng = np.random.default_rng(0)
    for i in range(2):
        transform = north_up(0.3, left=500000 + 18 * i)
        values = rng.integers(1, 255, (3, 60, 60), np.uint8)
        make_raster(values, f"images/{i}.tif", transform=transform, nodata=0)
        make_raster((values[0] > 127).astype(np.uint8), f"labels/{i}.tif", transform=transform)
    return pairs_of(tmp_path / "images", tmp_path / "labels")


def test_a_sample_has_what_the_contract_says(two_scenes):
    sample = whole(two_scenes)
    assert set(sample) == KEYS
    assert (sample["image"].dtype, sample["image"].shape) == (torch.float32, (3, 60, 60))
    assert (sample["mask"].dtype, sample["mask"].shape) == (torch.int64, (60, 60))
    assert (sample["valid"].dtype, sample["valid"].shape) == (torch.bool, (60, 60))
    assert sample["name"] == "0 0 0"


def test_torchgeos_samplers_read_the_same_pixels_by_ground(two_scenes):
    assert isinstance(two_scenes, IntersectionDataset)
    sampler = GriddedPatchSampler(two_scenes, size=60)
    samples = [two_scenes[index] for index in sampler]
    assert len(samples) == 2
    assert set(samples[0]) == KEYS
    for number, sample in enumerate(samples):
        own = whole(two_scenes, number)
        assert (sample["image"] == own["image"]).all()
        assert (sample["mask"] == own["mask"]).all()
    loader = DataLoader(
        two_scenes,
        batch_size=2,
        sampler=RandomPatchSampler(two_scenes, size=16, length=4, generator=0),
        collate_fn=collate_samples,
    )
    assert [batch["image"].shape for batch in loader] == [(2, 3, 16, 16)] * 2


def test_a_patch_by_ground_joins_neighbouring_files(two_scenes):
    x, y = slice(500009, 500027), slice(4999982, 5000000)
    sample = two_scenes[x, y]
    left, right = whole(two_scenes, 0), whole(two_scenes, 1)
    assert sample["valid"].all()
    joined = torch.cat([left["image"][..., 30:], right["image"][..., :30]], dim=-1)
    assert (sample["image"] == joined).all()
    joined = torch.cat([left["mask"][..., 30:], right["mask"][..., :30]], dim=-1)
    assert (sample["mask"] == joined).all()


def test_ground_without_files_is_an_index_error(two_scenes):
    with pytest.raises(IndexError, match="no file at"):
        two_scenes[slice(0, 9), slice(0, 9)]


def test_data_sets_combine_by_torchgeos_operators(two_scenes):
    joined = two_scenes.images & two_scenes.labels
    assert isinstance(joined, IntersectionDataset)
    sample = joined[slice(500000, 500009), slice(4999991, 5000000)]
    assert (sample["image"].shape, sample["mask"].shape) == ((3, 30, 30), (30, 30))
    either = two_scenes.images | two_scenes.images
    assert isinstance(either, UnionDataset)
    assert len(either) == 4
    assert either[slice(500000, 500009), slice(4999991, 5000000)]["image"].shape == (3, 30, 30)


def test_nothing_is_printed_when_crs_or_pixels_differ(make_raster, tmp_path, capsys):
    make_raster(np.ones((1, 60, 60), np.uint8), "images/a.tif")
    transform = Affine(4e-6, 0, 15.0, 0, -4e-6, 45.1535)
    make_raster(np.ones((60, 60), np.uint8), "labels/b.tif", transform=transform, crs="EPSG:4326")
    sample = whole(pairs_of(tmp_path / "images", tmp_path / "labels"))
    assert (sample["mask"] == 1).any()
    assert capsys.readouterr() == ("", "")


def test_a_batch_read_on_threads_is_the_same_and_transformed_in_order(two_scenes):
    indexes = [patch(two_scenes, Window(0, col, 8, 8), i) for i in (0, 1) for col in range(5)]
    seen = []
    two_scenes.transform = lambda sample: seen.append(sample["name"]) or sample
    batch = two_scenes.__getitems__(indexes)
    assert seen == [sample["name"] for sample in batch] == [two_scenes[i]["name"] for i in indexes]


def test_another_process_gets_a_copy_that_reads_the_same(two_scenes):
    scene = two_scenes.scenes[0]
    half = replace(scene, region=scene.in_pixels([shapely.box(500000, 4999982, 500009, 5000000)]))
    pairs = ScenePairs(two_scenes.images, two_scenes.labels, [half])
    sample = whole(pairs)  # opens the files first
    assert (sample["mask"][:, 30:] == IGNORE).all()
    copy = whole(pickle.loads(pickle.dumps(pairs)))
    assert all((sample[key] == copy[key]).all() for key in KEYS - {"name"})


def test_label_rasters_count_before_polygons_where_both_are_given(make_raster, tmp_path):
    make_raster(np.ones((1, 300, 300), np.uint8), "images/a.tif")
    label = np.full((300, 300), IGNORE, np.uint8)
    label[:150] = 0
    make_raster(label, "labels/a.tif")
    polygons = geopandas.GeoDataFrame({"id": [1]}, geometry=[MARK], crs="EPSG:32633")
    polygons.to_file(tmp_path / "labels/drawn.gpkg")
    pairs = pairs_of(tmp_path / "images", tmp_path / "labels", class_field="id")
    assert isinstance(pairs.labels, UnionDataset)
    sample = whole(pairs)
    wanted = np.where(is_marked(north_up(0.3), (300, 300)), 1, IGNORE)
    wanted[:150] = 0
    np.testing.assert_array_equal(sample["mask"], wanted)
    x, y = pairs.bounds[:2]
    np.testing.assert_array_equal(pairs[x, y]["mask"], wanted)


def test_labels_of_another_place_are_refused(make_raster, tmp_path):
    make_raster(np.ones((1, 60, 60), np.uint8), "images/a.tif")
    make_raster(np.ones((60, 60), np.uint8), "labels/a.tif", transform=north_up(0.3, left=600000))
    with pytest.raises(GeoreferenceError, match=r"labels/a\.tif', which has its name, lies else"):
        pairs_of(tmp_path / "images", tmp_path / "labels")


def test_imagery_with_and_without_crs_is_not_mixed(make_raster, tmp_path):
    for name, crs in (("a", "EPSG:32633"), ("b", None)):
        make_raster(np.ones((1, 60, 60), np.uint8), f"images/{name}.tif", crs=crs)
        make_raster(np.ones((60, 60), np.uint8), f"labels/{name}.tif", crs=crs)
    with pytest.raises(GeoreferenceError, match=r"a\.tif' has one and .*b\.tif' has none"):
        pairs_of(tmp_path / "images", tmp_path / "labels")
