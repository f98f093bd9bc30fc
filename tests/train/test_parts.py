"""Batch size, devices, the metrics file, the moving average, what may change on resuming."""

from dataclasses import replace

import lightning as L
import pytest
import torch
from torch import nn

from geoseg.config.run import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainerConfig
from geoseg.errors import BackendUnavailableError, OutOfMemoryError, UsageError
from geoseg.models import create_model
from geoseg.segmenter import Segmenter
from geoseg.train import batch_size
from geoseg.train.averaging import update_average, warm_decay
from geoseg.train.batch_size import find_batch_size
from geoseg.train.devices import choose_devices, count_processes
from geoseg.train.folder import changed_values, check_resumable
from geoseg.train.record import CsvRows, build_loggers, read_rows
from geoseg.train.run import settle_batch_size
from tests.conftest import make_spec

CPU = torch.device("cpu")
RUN = RunConfig("out", ModelConfig("segnext_t"), DataConfig(kind="folder"))


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(create_model("segnext_t", num_classes=4), make_spec(3, 4))


def test_twice_the_memory_takes_twice_the_batch(segmenter, monkeypatch):
    found = []
    for gigabytes in (1, 2, 1000):
        monkeypatch.setattr(batch_size, "_free_bytes", lambda room=gigabytes: room * 2**30)
        found.append(find_batch_size(segmenter, 128, device=CPU))
    assert found[1] == 2 * found[0]
    assert found[2] == 64


def test_too_little_memory(segmenter, monkeypatch):
    monkeypatch.setattr(batch_size, "_free_bytes", lambda: 2**20)
    with pytest.raises(OutOfMemoryError, match="not even a small batch of crops of 64 px fits"):
        find_batch_size(segmenter, 64, device=CPU)


def test_the_network_stays_as_it_was(segmenter):
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    find_batch_size(segmenter.eval(), 64, device=CPU)
    assert not segmenter.training
    for key, value in segmenter.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_several_processes_do_not_look_for_one(segmenter):
    run = replace(RUN, trainer=TrainerConfig(batch_size="auto", devices=2, accelerator="cpu"))
    with pytest.raises(UsageError, match=r"trainer.batch_size: auto is for one process"):
        settle_batch_size(run, segmenter, device="auto", resume=False)


def test_devices(monkeypatch):
    options = TrainerConfig(devices=2, nodes=3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_devices(TrainerConfig(), "auto") == ("cpu", 1)
    assert choose_devices(options, "cpu") == ("cpu", 2)
    assert count_processes(options, "cpu") == 6
    with pytest.raises(BackendUnavailableError, match=r"expected 2 CUDA .* this machine has 0"):
        choose_devices(options, "cuda")
    with pytest.raises(UsageError, match="got 'gpu'"):
        choose_devices(options, "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_devices(TrainerConfig(), "auto") == ("gpu", 4)
    assert choose_devices(options, "auto") == ("gpu", 2)
    assert choose_devices(options, "cuda:3") == ("gpu", [3])
    assert choose_devices(TrainerConfig(accelerator="cpu"), "auto") == ("cpu", 1)


def test_metrics_of_a_resumed_run_replace_those_after_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.csv"
    first = CsvRows(path)
    for step in (1, 2, 3):
        first.log_metrics({"loss": 1 / step}, step)
    first.log_metrics({"val_miou": 0.5}, 3)
    first.save()
    second = CsvRows(path, resume_at=2)
    second.log_metrics({"loss": 9.0}, 3)
    second.finalize("success")
    assert read_rows(path) == [
        {"step": "1", "loss": "1"},
        {"step": "2", "loss": "0.5"},
        {"step": "3", "loss": "9"},
    ]


def test_weights_and_biases_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BackendUnavailableError, match="trainer.loggers: wandb .* wandb"):
        build_loggers(tmp_path, ("csv", "wandb"))


def test_the_average_moves_and_counters_follow():
    torch.manual_seed(0)
    average, current = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2))
    current[1].running_mean += 4
    current[1].num_batches_tracked += 7
    before = {key: value.clone() for key, value in average.state_dict().items()}
    update_average(average, current, 0.75)
    for key, value in average.state_dict().items():
        expected = current.state_dict()[key]
        if value.is_floating_point():
            expected = 0.75 * before[key] + 0.25 * expected
        assert torch.allclose(value.double(), expected.double()), key


def test_the_random_start_is_soon_forgotten():
    assert warm_decay(0.999, 0) == pytest.approx(0.1)
    assert warm_decay(0.999, 90) == pytest.approx(0.91)
    assert warm_decay(0.999, 10**6) == 0.999


def test_what_a_resumed_run_may_change():
    other = replace(RUN, optim=OptimConfig(lr=1.0), out="elsewhere", seed=3)
    assert changed_values(RUN, other) == ["optim.lr"]
    assert check_resumable(RUN, other) == ["optim.lr"]
    other = replace(RUN, model=ModelConfig("segnext_s"))
    with pytest.raises(UsageError, match="a resumed run keeps model.name"):
        check_resumable(RUN, other)


def test_the_packages_offer_their_lightning_modules():
    from geoseg import data, train

    assert issubclass(train.SegmentationTask, L.LightningModule)
    assert issubclass(data.SegmentationDataModule, L.LightningDataModule)
    assert callable(train.train)
    with pytest.raises(AttributeError, match="has no attribute 'task2'"):
        _ = train.task2
