from dataclasses import replace

import geopandas
import numpy as np
import pytest
import shapely
import torch
from torch.utils.data import DataLoader
from torchgeo.samplers import SpatialSampler

from geoseg.config.run import ClassConfig, SamplingConfig
from geoseg.data import occurrence
from geoseg.data.patches import PatchGrid
from geoseg.data.sample import IGNORE, collate_samples
from geoseg.data.samplers import BalancedPatchSampler, CoveringPatchSampler, covering_starts
from geoseg.data.scenes import Scene
from geoseg.errors import InputError, UsageError
from tests.data.marks import north_up, pairs_of

EVERYWHERE = SamplingConfig(least_valid=0.0)


@pytest.fixture
def scenes(make_raster, tmp_path):
    """Return a maker of scenes side by side from their labels, and imagery with them."""

    def make(*labels, sizes_m=(), **fields):
        left = 500000.0
        for i, label in enumerate(labels):
            size_m = sizes_m[i] if sizes_m else 0.5
            transform = north_up(size_m, left=left)
            make_raster(
                np.full((1, *label.shape), 9, np.uint8), f"images/{i}.tif", transform=transform
            )
            make_raster(label.astype(np.uint8), f"labels/{i}.tif", transform=transform)
            left += label.shape[1] * size_m
        count = max(2, max(int(np.where(label == IGNORE, 0, label).max()) for label in labels) + 1)
        classes = tuple(ClassConfig(k, f"class {k}") for k in range(count))
        return pairs_of(tmp_path / "images", tmp_path / "labels", classes=classes, **fields)

    return make


def zeros(height, width):
    return np.zeros((height, width))


def windows(sampler):
    return [(index.image, *index.window[:2]) for index in sampler]


@pytest.mark.parametrize("shape", [(64, 64), (100, 70), (33, 200), (5, 7), (1, 1)])
def test_every_pixel_is_covered_once_ragged_edges_and_small_scenes_too(scenes, shape):
    label = np.arange(np.prod(shape)).reshape(shape) % 7
    pairs = scenes(label, zeros(10, 10))
    sampler = CoveringPatchSampler(pairs, 32)
    assert isinstance(sampler, SpatialSampler)
    seen = np.zeros(shape, int)
    back = np.full(shape, -1)
    for index in sampler:
        sample = pairs[index]
        assert sample["mask"].shape == (32, 32)
        if index.image.endswith("0.tif"):
            row, col = index.window[:2]
            height, width = min(32, shape[0] - row), min(32, shape[1] - col)
            seen[row : row + 32, col : col + 32] += 1
            back[row : row + 32, col : col + 32] = sample["mask"][:height, :width].numpy()
            outside = torch.ones(32, 32, dtype=torch.bool)
            outside[:height, :width] = False
            assert (sample["mask"][outside] == IGNORE).all()
            assert (sample["valid"] == ~outside).all()
    assert (seen == 1).all()
    np.testing.assert_array_equal(back, label)
    assert len(sampler) == len(list(sampler))


def test_a_country_is_laid_out_without_a_look_at_each_patch():
    scene = Scene("a", "a", PatchGrid("", north_up(0.25), 200_000, 300_000))
    assert len(covering_starts(scene, 512)) == 391 * 586


def test_patches_without_ground_of_the_split_are_left_out(scenes):
    pairs = scenes(zeros(128, 128))
    scene = pairs.scenes[0]
    # Two patches to the left, to the pixel: those that only touch it have none of its ground.
    region = scene.in_pixels([shapely.box(500000, 5000000 - 32, 500016, 5000000)])
    starts = covering_starts(replace(scene, region=region), 32)
    assert starts.tolist() == [[0, 0], [32, 0]]


def test_processes_share_the_patches(scenes):
    pairs = scenes(zeros(96, 128))
    whole = windows(CoveringPatchSampler(pairs, 32))
    parts = [CoveringPatchSampler(pairs, 32, rank=r, processes=5) for r in range(5)]
    assert sorted(w for part in parts for w in windows(part)) == sorted(whole)
    assert [len(part) for part in parts] == [3, 3, 2, 2, 2]
    draws = [BalancedPatchSampler(pairs, 32, rank=r, processes=2) for r in range(2)]
    one = BalancedPatchSampler(pairs, 32)
    mixed = [w for pair in zip(*map(windows, draws), strict=True) for w in pair]
    assert mixed == windows(one)
    assert len(draws[0]) == len(draws[1]) == 6


def test_an_epoch_is_a_function_of_seed_and_epoch(scenes):
    pairs = scenes(zeros(200, 200))
    first, second = (BalancedPatchSampler(pairs, 32, seed=3) for _ in range(2))
    assert windows(first) == windows(second) == windows(first)
    second.set_epoch(1)
    assert windows(first) != windows(second)
    assert windows(first) != windows(BalancedPatchSampler(pairs, 32, seed=4))


def test_an_epoch_covers_the_ground_once_unless_told(scenes):
    pairs = scenes(zeros(100, 70), zeros(10, 10))
    assert len(BalancedPatchSampler(pairs, 32)) == 4 * 3 + 1
    few = SamplingConfig(patches_per_epoch=5)
    assert len(BalancedPatchSampler(pairs, 32, few)) == 5
    assert len(list(BalancedPatchSampler(pairs, 32, few))) == 5


def test_patches_lie_in_the_scene_and_reach_all_of_it(scenes):
    pairs = scenes(zeros(80, 60))
    sampling = replace(EVERYWHERE, patches_per_epoch=2000)
    for option in (sampling, replace(sampling, least_valid=0.5), replace(sampling, balance=1.0)):
        starts = np.array([w[1:] for w in windows(BalancedPatchSampler(pairs, 32, option))])
        assert starts.min(axis=0).tolist() == [0, 0]
        assert starts.max(axis=0).tolist() == [48, 28]


def test_uniform_draws_are_uniform(scenes):
    pairs = scenes(zeros(96, 96))
    sampling = replace(EVERYWHERE, patches_per_epoch=6000)
    starts = np.array([w[1:] for w in windows(BalancedPatchSampler(pairs, 32, sampling))])
    counts = np.histogram2d(*starts.T, bins=5, range=[[0, 65], [0, 65]])[0]
    assert counts.min() > 0.75 * 240
    assert counts.max() < 1.25 * 240


def test_scenes_smaller_than_a_patch_are_seen_whole(scenes):
    pairs = scenes(zeros(10, 50), zeros(10, 12))
    sampler = BalancedPatchSampler(
        pairs, 32, SamplingConfig(patches_per_epoch=200, per_file="equal")
    )
    small = [index.window for index in sampler if index.image.endswith("1.tif")]
    assert len(small) > 60
    for window in small:
        assert max(window.row, window.col) <= 0
        assert window.row_end >= 10
        assert window.col_end >= 12
    assert len({window.row for window in small}) > 10


@pytest.mark.parametrize(
    ("per_file", "wanted"), [("area", (16 / 21, 4 / 21, 1 / 21)), ("equal", (1 / 3, 1 / 3, 1 / 3))]
)
def test_files_weigh_by_their_ground_or_equally(scenes, per_file, wanted):
    # The second has as many pixels as the third, on four times the ground.
    pairs = scenes(zeros(128, 128), zeros(64, 64), zeros(64, 64), sizes_m=(1.0, 1.0, 0.5))
    sampling = SamplingConfig(patches_per_epoch=3000, per_file=per_file)
    files = [index.image[-5] for index in BalancedPatchSampler(pairs, 32, sampling)]
    shares = [files.count(name) / len(files) for name in "012"]
    np.testing.assert_allclose(shares, wanted, atol=0.03)


def rare(height=256, width=256):
    """Return labels with a field of class 1 and a spot of class 2 in much of class 0."""
    label = zeros(height, width)
    label[:128, 200:] = 1
    label[200:208, 40:48] = 2
    return label


def test_balance_draws_each_class_as_often_as_another(scenes):
    pairs = scenes(rare())
    holds = {}
    for balance in (0.0, 1.0):
        sampling = SamplingConfig(balance=balance, patches_per_epoch=400)
        masks = [pairs[index]["mask"] for index in BalancedPatchSampler(pairs, 32, sampling)]
        holds[balance] = [np.mean([(m == k).any() for m in masks]) for k in range(3)]
    assert holds[0.0][2] < 0.1
    # A third is drawn for its sake, and some hold it by chance.
    assert 0.3 < holds[1.0][2] < 0.45
    assert holds[1.0][1] > 0.3


def test_a_rare_class_may_lie_anywhere_in_the_patch(scenes):
    pairs = scenes(rare())
    sampling = SamplingConfig(balance=1.0, patches_per_epoch=600)
    corners = [
        np.argwhere(mask.numpy() == 2)[0]
        for mask in (pairs[index]["mask"] for index in BalancedPatchSampler(pairs, 32, sampling))
        if (mask == 2).any()
    ]
    rows, cols = np.transpose(corners)
    assert np.ptp(rows) > 25
    assert np.ptp(cols) > 25


def test_patches_with_too_little_to_learn_from_are_not_drawn(scenes):
    label = np.full((256, 256), IGNORE)
    label[100:110, 100:110] = 1
    label[:64, 192:] = 0
    pairs = scenes(label)
    for balance in (0.0, 1.0):
        sampling = SamplingConfig(balance=balance, least_valid=0.05, patches_per_epoch=200)
        for index in BalancedPatchSampler(pairs, 32, sampling):
            assert (pairs[index]["mask"] != IGNORE).float().mean() > 0.02
    sampling = SamplingConfig(least_valid=0.5, patches_per_epoch=200)
    for index in BalancedPatchSampler(pairs, 32, sampling):
        assert (pairs[index]["mask"] != IGNORE).float().mean() > 0.4


def test_nodata_of_the_image_counts_as_too_little(make_raster, tmp_path):
    values = np.zeros((1, 128, 128), np.uint8)
    values[:, :, 96:] = 7
    make_raster(values, "images/a.tif", nodata=0)
    make_raster(np.ones((128, 128), np.uint8), "labels/a.tif")
    pairs = pairs_of(tmp_path / "images", tmp_path / "labels")
    sampler = BalancedPatchSampler(pairs, 32, SamplingConfig(least_valid=0.5, patches_per_epoch=99))
    assert all(pairs[index]["valid"].float().mean() > 0.4 for index in sampler)


def test_polygons_without_background_are_found(make_raster, tmp_path):
    make_raster(np.ones((1, 512, 512), np.uint8), "images/a.tif", transform=north_up(0.5))
    frame = geopandas.GeoDataFrame(
        {"id": [0, 1]},
        geometry=[
            shapely.box(500100, 4999900, 500110, 4999910),
            shapely.box(500200, 4999800, 500210, 4999810),
        ],
        crs="EPSG:32633",
    )
    frame.to_file(tmp_path / "labels.gpkg")
    pairs = pairs_of(tmp_path / "images", tmp_path / "labels.gpkg", class_field="id")
    sampling = SamplingConfig(patches_per_epoch=100)
    masks = [pairs[index]["mask"] for index in BalancedPatchSampler(pairs, 64, sampling)]
    assert all((mask != IGNORE).any() for mask in masks)
    assert {int(k) for mask in masks for k in mask.unique()} == {0, 1, IGNORE}
    # Only patches that meet a polygon are scored.
    assert len(CoveringPatchSampler(pairs, 64)) <= 8


def test_where_nothing_is_labelled_enough_the_best_patch_is_said(scenes):
    label = np.full((128, 128), IGNORE)
    label[:8, :8] = 1
    sampler = BalancedPatchSampler(scenes(label), 32, SamplingConfig(least_valid=0.5))
    with pytest.raises(
        InputError, match=r"patches of 32 px with at least 50% .*; the best one has 6\.\d%\. Lower"
    ):
        next(iter(sampler))


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (SamplingConfig(balance=1.5), r"data.sampling.balance: expected a share .*; got 1\.5"),
        (SamplingConfig(least_valid=-1), r"least_valid: expected a share from 0 to 1; got -1"),
        (SamplingConfig(patches_per_epoch=0), r"patches_per_epoch: expected 1 or more; got 0"),
    ],
)
def test_shares_and_counts_that_are_none_are_refused(scenes, sampling, message):
    with pytest.raises(UsageError, match=message):
        len(BalancedPatchSampler(scenes(zeros(40, 40)), 32, sampling))


def test_labels_are_looked_at_as_coarsely_as_memory_asks(scenes, monkeypatch):
    assert occurrence.choose_step([9000 * 9500] * 33, 512) == 16
    assert occurrence.choose_step([10**6 * 10**6], 512) == 245
    label = rare()
    fine = occurrence.read_occurrences(scenes(label), 32, 0.05)[0]
    np.testing.assert_array_equal(fine.labels, label)
    monkeypatch.setattr(occurrence, "STRIP_PX", 5000)
    coarse = occurrence.read_occurrences(scenes(label), 256, 0.05)[0]
    assert coarse.step_px == 8
    np.testing.assert_array_equal(coarse.labels, label[4::8, 4::8])


def test_nothing_is_read_to_draw_from_everywhere(scenes, monkeypatch):
    pairs = scenes(zeros(64, 64))
    monkeypatch.setattr(type(pairs.labels), "read", None)
    assert len(windows(BalancedPatchSampler(pairs, 32, EVERYWHERE))) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_take_the_sampler_with_and_without_workers(scenes, workers):
    pairs = scenes(zeros(96, 96))
    loader = DataLoader(
        pairs,
        batch_size=3,
        sampler=BalancedPatchSampler(pairs, 32),
        num_workers=workers,
        collate_fn=collate_samples,
    )
    batches = list(loader)
    assert [batch["image"].shape for batch in batches] == [(3, 1, 32, 32)] * 3
    alone = [pairs[index]["name"] for index in BalancedPatchSampler(pairs, 32)]
    assert [name for batch in batches for name in batch["name"]] == alone
