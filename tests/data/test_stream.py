"""The order of training is a function of seed and position, whatever reads it."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from geoseg.data.sample import Split
from geoseg.data.stream import SeededDataset, Stream, collate, raise_failed, split_items
from geoseg.errors import InputError
from geoseg.spec import ClassSpec

CLASSES = (ClassSpec(0, "a", "#000000"),)


class Numbers(Dataset):
    def __init__(self, count, *, fails_at=None):
        self.count, self.fails_at = count, fails_at

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.fails_at:
            raise InputError(f"sample {index} is bad.")
        return {"image": torch.tensor([float(index)]), "name": str(index)}


class Drawn:
    """A sampler that draws by torch's generator, three of ten an epoch."""

    def __iter__(self):
        return iter(torch.randperm(10)[:3].tolist())

    def __len__(self):
        return 3


class Ordered:
    """A sampler whose order is a function of the epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter([self.epoch, self.epoch + 1])

    def __len__(self):
        return 2


def draws(stream, batches):
    return [draw for batch in itertools.islice(stream, batches) for draw in batch]


def split(count=10, **fields):
    return Split(Numbers(count), CLASSES, **fields)


def test_every_sample_comes_once_before_one_comes_again():
    found = [item for _, item in draws(Stream(split(), 4, seed=0), 5)]
    assert sorted(found[:10]) == sorted(found[10:]) == list(range(10))
    assert found[:10] != found[10:]


def test_a_later_start_goes_on_where_the_stream_would_be():
    whole, rest = Stream(split(), 3, seed=1), Stream(split(), 3, seed=1)
    rest.start = 5
    assert draws(rest, 4) == draws(whole, 9)[15:]


def test_processes_share_the_stream_of_one():
    one = draws(Stream(split(), 6, seed=2), 4)
    three = [draws(Stream(split(), 2, seed=2, rank=r, processes=3), 4) for r in range(3)]
    assert sorted(itertools.chain(*three)) == sorted(one)
    first = sorted(itertools.chain(*(part[:2] for part in three)))
    assert first == sorted(one[:6])


def test_another_seed_is_another_order():
    orders = [[i for _, i in draws(Stream(split(), 10, seed=seed), 1)] for seed in (0, 1)]
    assert orders[0] != orders[1]


def test_samplers_draw_by_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    orders = [draws(Stream(split(sampler=Drawn()), 3, seed=3), 4) for _ in range(2)]
    assert orders[0] == orders[1]
    assert orders[0][:3] != orders[0][3:6]
    assert torch.equal(before, torch.random.get_rng_state())


def test_samplers_are_told_the_epoch():
    found = [item for _, item in draws(Stream(split(sampler=Ordered()), 2, seed=0), 3)]
    assert found == [0, 1, 1, 2, 2, 3]


def test_each_position_begins_its_own_draws():
    begun = []
    dataset = SeededDataset(split(), begun.append)
    assert dataset[7, 3]["name"] == "3"
    assert begun == [7]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_keeps_its_class_and_sentence(workers):
    bad = Split(Numbers(4, fails_at=2), CLASSES)
    loader = DataLoader(
        SeededDataset(bad),
        batch_size=2,
        sampler=list(enumerate(split_items(bad))),
        collate_fn=collate,
        num_workers=workers,
    )
    batches = iter(loader)
    raise_failed(next(batches))
    with pytest.raises(InputError, match=r"^sample 2 is bad\.$"):
        raise_failed(next(batches))
