"""Statistics of a split: the same as over all pixels at once, missing ones left out."""

import numpy as np
import pytest
import torch

from geoseg.data.build import build_split
from geoseg.data.sample import IGNORE, Split
from geoseg.data.statistics import band_statistics, class_counts
from geoseg.errors import InputError
from geoseg.spec import ClassSpec
from tests.data.chip_files import folder_data, write_pairs

CLASSES = tuple(ClassSpec(k, f"c{k}", "#000000") for k in range(3))


class Samples(torch.utils.data.Dataset):
    """Samples made of arrays."""

    def __init__(self, images, valid=None, masks=None):
        self.images = images
        self.valid = valid or [np.ones(i.shape[1:], bool) for i in images]
        self.masks = masks or [np.zeros(i.shape[1:], np.int64) for i in images]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, k):
        return {
            "image": torch.from_numpy(self.images[k].astype(np.float32)),
            "valid": torch.from_numpy(self.valid[k]),
            "mask": torch.from_numpy(self.masks[k]),
            "name": str(k),
        }


def split_of(*args, bands=("a", "b"), **kwargs):
    return Split(Samples(*args, **kwargs), CLASSES, bands=bands)


def random_images(sizes=((4, 5), (7, 3), (1, 1)), high=60000):
    rng = np.random.default_rng(0)
    return [rng.integers(0, high, (2, *size)) for size in sizes]


def test_means_and_deviations_are_those_of_all_pixels_at_once():
    images = random_images()
    every = np.concatenate([i.reshape(2, -1) for i in images], axis=1).astype(float)
    means, stds = band_statistics(split_of(images))
    assert means == pytest.approx(every.mean(axis=1), rel=1e-12)
    assert stds == pytest.approx(every.std(axis=1), rel=1e-12)


def test_a_large_mean_leaves_the_deviation_exact():
    rng = np.random.default_rng(1)
    images = [60000 + rng.integers(0, 2, (2, 50, 50)) for _ in range(20)]
    every = np.concatenate([i.reshape(2, -1) for i in images], axis=1) - 60000.0
    assert band_statistics(split_of(images))[1] == pytest.approx(every.std(axis=1), rel=1e-10)


def test_invalid_pixels_and_empty_images_do_not_count():
    images = random_images(((2, 2), (2, 2)))
    valid = [np.array([[True, False], [False, True]]), np.zeros((2, 2), bool)]
    kept = images[0][:, valid[0]].astype(float)
    means, stds = band_statistics(split_of(images, valid))
    assert means == pytest.approx(kept.mean(axis=1))
    assert stds == pytest.approx(kept.std(axis=1))


def test_some_samples_spread_over_the_split():
    images = [np.full((2, 2, 2), k) for k in range(9)]
    assert band_statistics(split_of(images), 3)[0] == pytest.approx((4.0, 4.0))
    assert band_statistics(split_of(images), 100)[0] == pytest.approx((4.0, 4.0))


def test_a_sampler_decides_what_is_looked_at():
    images = [np.stack([np.full((2, 2), k), np.arange(4).reshape(2, 2)]) for k in range(4)]
    split = Split(Samples(images), CLASSES, sampler=[1, 3], bands=("a", "b"))
    assert band_statistics(split)[0][0] == pytest.approx(2.0)


def test_what_cannot_be_computed_is_said():
    nothing = split_of(random_images(((2, 2),)), [np.zeros((2, 2), bool)])
    with pytest.raises(InputError, match="hold no valid pixel, so mean and std cannot"):
        band_statistics(nothing)
    flat = [np.stack([np.arange(4).reshape(2, 2), np.full((2, 2), 7)])]
    with pytest.raises(InputError, match="band 'b' has the same value in every valid pixel"):
        band_statistics(split_of(flat))


def test_classes_are_counted_without_ignored_pixels():
    masks = [np.array([[0, 2, IGNORE]]), np.array([[2, 2, 0]])]
    images = random_images(((1, 3), (1, 3)))
    counts = class_counts(split_of(images, masks=masks))
    assert counts.dtype == np.int64
    assert counts.tolist() == [2, 0, 3]


def test_random_numbers_of_the_process_are_left_alone(make_raster):
    split = build_split(folder_data(write_pairs(make_raster), val=None), "train")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    band_statistics(split)
    class_counts(split)
    assert (torch.rand(3) == expected).all()
