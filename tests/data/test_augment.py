import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from geoseg.config.run import AugmentConfig
from geoseg.data import augment as augment_module
from geoseg.data.augment import make_transform
from geoseg.errors import InputError

KINDS = ["paper", "remote_sensing", "none"]


def make_sample(height=70, width=90, bands=3):
    rng = np.random.default_rng(5)
    return {
        "image": torch.from_numpy(rng.integers(0, 256, (bands, height, width))).float(),
        "mask": torch.from_numpy(rng.integers(0, 3, (height, width))),
        "valid": torch.ones(height, width, dtype=torch.bool),
        "name": "a",
        "bounds": torch.zeros(4),
    }


def draw(transform, count=3):
    return [transform(make_sample())["image"] for _ in range(count)]


def are_equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(70, 90), (20, 90), (20, 31)])
def test_a_crop_has_the_contracts_keys_types_and_shape(kind, size):
    sample = make_sample(*size)
    before = {key: sample[key].clone() for key in ("image", "mask", "valid")}
    crop = make_transform(AugmentConfig(kind=kind, crop_px=32), seed=0)(sample)
    assert set(crop) == {"image", "mask", "valid", "name"}
    assert crop["image"].shape == (3, 32, 32)
    assert crop["image"].dtype == torch.float32
    assert crop["mask"].shape == crop["valid"].shape == (32, 32)
    assert crop["mask"].dtype == torch.int64
    assert crop["valid"].dtype == torch.bool
    assert (crop["mask"][~crop["valid"]] == 255).all()
    assert set(crop["mask"].unique().tolist()) <= {0, 1, 2, 255}
    for key, values in before.items():
        assert torch.equal(sample[key], values)


def test_none_crops_and_changes_nothing_else():
    sample = make_sample(32, 50)
    crop = make_transform(AugmentConfig(kind="none", crop_px=32), seed=0)(sample)
    places = [x for x in range(19) if torch.equal(crop["image"], sample["image"][:, :, x : x + 32])]
    assert len(places) == 1
    assert torch.equal(crop["mask"], sample["mask"][:, places[0] : places[0] + 32])


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides_the_draws(kind):
    config = AugmentConfig(kind=kind, crop_px=32)
    first = draw(make_transform(config, seed=3))
    assert are_equal(first, draw(make_transform(config, seed=3)))
    assert not are_equal(first, draw(make_transform(config, seed=4)))
    assert not torch.equal(first[0], first[1])


def test_a_restart_draws_as_every_run_with_that_key():
    transform = make_transform(AugmentConfig(crop_px=32), seed=3)
    first = draw(transform)
    transform.restart(120)
    resumed = draw(transform)
    assert not are_equal(first, resumed)
    other = make_transform(AugmentConfig(crop_px=32), seed=3)
    other.restart(120)
    assert are_equal(resumed, draw(other))


def as_worker(monkeypatch, seed):
    info = None if seed is None else SimpleNamespace(seed=seed)
    monkeypatch.setattr(augment_module, "get_worker_info", lambda: info)


def test_workers_and_epochs_draw_differently(monkeypatch):
    config = AugmentConfig(crop_px=32)
    transform = make_transform(config, seed=3)
    parent = draw(transform)
    # A forked worker has the parent's generator in whatever state it is; a loader's base seed,
    # to which it adds the worker's number, is another one in each epoch.
    drawn = {}
    for seed in (1000, 1001, 2000, 2001):
        copy = pickle.loads(pickle.dumps(transform))
        as_worker(monkeypatch, seed)
        drawn[seed] = draw(copy)
        goes_on = draw(copy)  # a persistent worker in its second epoch
        assert not are_equal(drawn[seed], goes_on)
    streams = [parent, *drawn.values()]
    pairs = [(a, b) for i, a in enumerate(streams) for b in streams[:i]]
    assert not any(are_equal(a, b) for a, b in pairs)
    as_worker(monkeypatch, 1001)
    assert are_equal(drawn[1001], draw(make_transform(config, seed=3)))
    assert not are_equal(drawn[1001], draw(make_transform(config, seed=4)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"crop_px": 0}, "expected augment.crop_px of 1 or more; got 0. Correct it in the run"),
        ({"scale": (2.0, 0.5)}, "augment.scale as 0 < least <= greatest; got 2.0 to 0.5"),
        ({"scale": (0.0, 0.5)}, "got 0.0 to 0.5"),
        ({"flip": 1.5}, "augment.flip between 0 and 1; got 1.5"),
        ({"free_rotation": -1.0}, "augment.free_rotation between 0 and 1; got -1.0"),
        ({"jitter": -0.1}, "augment.jitter of 0 or more; got -0.1"),
    ],
)
def test_values_out_of_range_are_refused(changed, said):
    with pytest.raises(InputError, match=said):
        make_transform(AugmentConfig(**changed), seed=0)
