"""Samples from memory are those from disk."""

import pytest
import torch
from torch.utils.data import Dataset

from geoseg.config.run import AugmentConfig, ClassConfig, DataConfig, FilesConfig
from geoseg.data.augment import make_transform
from geoseg.data.build import build_split
from geoseg.data.decoded import DecodedDataset, keep_decoded
from geoseg.data.sample import IGNORE, Split
from geoseg.spec import ClassSpec
from tests.conftest import ROOT

CHIPS = ROOT / "tests" / "data" / "dubai"
NAMES = ("building", "land", "road", "vegetation", "water")
DATA = DataConfig(
    kind="folder",
    train=FilesConfig(str(CHIPS / "*.jpg"), str(CHIPS / "*.png")),
    val=FilesConfig(str(CHIPS / "*.jpg"), str(CHIPS / "*.png")),
    classes=tuple(ClassConfig(i, name) for i, name in enumerate(NAMES)),
)


def same(a, b):
    assert a["name"] == b["name"]
    for key in ("image", "mask", "valid"):
        assert a[key].dtype == b[key].dtype
        assert torch.equal(a[key], b[key]), key


def test_plain_samples():
    plain = build_split(DATA, "train")
    held = keep_decoded(plain, 1e9)
    assert isinstance(held.dataset, DecodedDataset)
    for index in range(4):
        same(held.dataset[index], plain.dataset[index])


@pytest.mark.parametrize("kind", ["paper", "remote_sensing", "none"])
def test_augmented_samples(kind):
    change = make_transform(AugmentConfig(kind, crop_px=64), seed=0, dtype="uint8")
    read = build_split(DATA, "train", transform=change)
    held = keep_decoded(build_split(DATA, "train"), 1e9).dataset
    assert isinstance(held, DecodedDataset)
    changed = held.with_transform(change)
    for index in range(4):
        change.restart(index)
        from_disk = read.dataset[index]
        change.restart(index)
        same(changed[index], from_disk)


def test_what_does_not_fit_is_not_held():
    plain = build_split(DATA, "train")
    assert keep_decoded(plain, 4 * 224 * 224 * 3).dataset is plain.dataset
    assert keep_decoded(plain, 0).dataset is plain.dataset


class Half(Dataset):
    """Values of 16 bits, the left half invalid."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        valid = torch.ones((4, 4), dtype=torch.bool)
        valid[:, :2] = False
        mask = torch.where(valid, index, IGNORE)
        return {"image": torch.full((2, 4, 4), 40_000.0), "mask": mask, "valid": valid, "name": ""}


def test_wide_values_and_invalid_pixels():
    plain = Split(Half(), (ClassSpec(0, "a", "#000000"),), dtype="uint16")
    held = keep_decoded(plain, 1e6)
    assert held.dataset is not plain.dataset
    same(held.dataset[1], plain.dataset[1])
