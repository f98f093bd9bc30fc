"""Crops of images without labels: evenly drawn, repeatable, from files that differ."""

import numpy as np
import pytest
import torch

from geoseg.config.pretrain import MaskingConfig, UnlabelledConfig
from geoseg.config.run import AugmentConfig
from geoseg.data.chips import Chip, ImageRule
from geoseg.data.unlabelled import UnlabelledCrops, unlabelled_crops
from geoseg.errors import InputError

NONE = AugmentConfig(kind="none", crop_px=32)


@pytest.fixture
def scenes(make_raster):
    """Return a folder of four files of two bands, whose first says which one it is."""
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(40, 50), (80, 100), (40, 50), (20, 24)]):
        values = rng.integers(0, 255, (2, height, width)).astype(np.uint8)
        values[0] = 10 * (i + 1) + values[0] // 64
        path = make_raster(values, f"scenes/{i}.tif")
    return path.parent


def chips(scenes):
    return [Chip(str(i), str(scenes / f"{i}.tif"), "") for i in range(4)]


def crops(scenes, **options):
    return UnlabelledCrops(chips(scenes), ImageRule(count=2), NONE, seed=3, **options)


def test_a_pass_covers_the_images_once_by_area(scenes):
    dataset = crops(scenes)
    assert len(dataset) == -(-(2000 + 8000 + 2000 + 480) // 32**2)
    many = crops(scenes, count=400)
    drawn = [round(float(many[i]["image"][0].max())) // 10 for i in range(400)]
    shares = np.bincount(drawn, minlength=5)[1:] / 400
    assert shares == pytest.approx(np.array([2000, 8000, 2000, 480]) / 12480, abs=0.01)


def test_small_files_are_padded_and_the_padding_is_invalid(scenes):
    dataset = UnlabelledCrops(chips(scenes)[3:], ImageRule(count=2), NONE, seed=0)
    sample = dataset[0]
    assert sample["image"].shape == (2, 32, 32)
    assert sample["valid"].shape == (32, 32)
    assert int(sample["valid"].sum()) == 20 * 24
    assert set(sample) == {"image", "valid"}


def test_draws_follow_from_the_position(scenes):
    once, again = crops(scenes), crops(scenes)
    once.restart(7)
    first = once[2]["image"]
    again[0], again[1]
    again.restart(7)
    assert torch.equal(again[2]["image"], first)
    again.restart(8)
    assert not torch.equal(again[2]["image"], first)


def test_fixed_crops_are_the_same_every_time(scenes):
    dataset = crops(scenes, fixed=True)
    before = [dataset[i]["image"] for i in range(len(dataset))]
    assert all(torch.equal(dataset[i]["image"], x) for i, x in reversed(list(enumerate(before))))


def test_windows_are_as_large_as_the_smallest_scale_needs(scenes):
    augment = AugmentConfig(kind="remote_sensing", crop_px=32, scale=(0.5, 2.0), cat_max_ratio=1.0)
    dataset = UnlabelledCrops(chips(scenes), ImageRule(count=2), augment, seed=3)
    assert dataset.side_px == 64
    assert dataset[5]["image"].shape == (2, 32, 32)


def test_validation_is_of_other_files(scenes):
    data = UnlabelledConfig(str(scenes), val_share=0.5)
    found = unlabelled_crops(data, MaskingConfig(crop_px=32), seed=0)
    assert found.bands == ("band1", "band2")
    names = [{chip.name for chip, *_ in part.pictures} for part in (found.train, found.val)]
    assert names[0] | names[1] == {"0", "1", "2", "3"}
    assert not names[0] & names[1]
    assert found.mean[0] == pytest.approx(found.std[0] * 2, abs=60)
    again = unlabelled_crops(data, MaskingConfig(crop_px=32), seed=0)
    assert (again.mean, again.std) == (found.mean, found.std)
    none = unlabelled_crops(
        UnlabelledConfig(str(scenes), val_share=0.0), MaskingConfig(crop_px=32), seed=0
    )
    assert none.val is None
    assert len(none.train.pictures) == 4


def test_a_file_that_is_not_like_the_others_is_named_at_once(scenes, make_raster):
    make_raster(np.zeros((3, 40, 40), np.uint8), "scenes/other.tif")
    data = UnlabelledConfig(str(scenes), val_share=0.0)
    with pytest.raises(InputError, match=r"other.tif': expected 2 bands .*; got 3"):
        unlabelled_crops(data, MaskingConfig(crop_px=32), seed=0)
