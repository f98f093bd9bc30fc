"""Runs from end to end: what they leave, how they stop, and that going on changes nothing."""

import errno
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
import torch
from torch import Tensor

from geoseg.checkpoint import load_model, read_spec
from geoseg.config import PredictOptions
from geoseg.config.parse import parse_config
from geoseg.config.run import CardConfig, ClassConfig, LossConfig, ModelConfig, SplitConfig
from geoseg.errors import (
    DiskFullError,
    InputError,
    InterruptedRunError,
    MachineError,
    ModelFileError,
    OutputExistsError,
    UsageError,
)
from geoseg.predict import predict_raster
from geoseg.train import checkpoints, record
from geoseg.train.record import read_rows
from geoseg.train.run import train
from geoseg.train.task import SegmentationTask
from tests.train.conftest import CHIPS, Hearing, chips

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def differences(a, b, where=""):
    """Return where two checkpoints differ, bit for bit."""
    if isinstance(a, Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{where}: {a.keys() ^ b.keys()}"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple):
        pairs = zip(a, b, strict=True)
        return [d for i, (x, y) in enumerate(pairs) for d in differences(x, y, f"{where}[{i}]")]
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return [] if a == b or both_nan else [f"{where}: {a} {b}"]


def last(config):
    return torch.load(Path(config.out) / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("name", "crop_px", "options"),
    [("segnext_t", 64, {"ema_decay": 0.9}), ("segman_t", 224, {})],
)
def test_train_then_resume_then_predict(make_run, tmp_path, name, crop_px, options):
    run = make_run(model=ModelConfig(name), steps=2, **options)
    run = replace(
        run,
        augment=replace(run.augment, crop_px=crop_px),
        data=replace(run.data, train=chips(CHIPS, 0, 1, 2), val=chips(CHIPS, 3)),
        card=CardConfig("four", "Four chips.", tile_size_px=224, overlap_px=32, half=True),
    )
    first = train(run)
    assert first.metrics["steps"] == 2
    longer = replace(run, trainer=replace(run.trainer, steps=3))
    found = train(longer, resume=True)
    assert found.metrics["steps"] == 3
    assert {p.name for p in found.out.iterdir()} == {
        "last.ckpt",
        "model.safetensors",
        "metrics.csv",
        "metrics.json",
        "config.yaml",
        "curves.png",
        "report.html",
    }
    spec = read_spec(found.model)
    assert (spec.name, spec.description) == ("four", "Four chips.")
    assert [b.mean for b in spec.bands] == [100.0] * 3
    assert [c.name for c in spec.classes] == ["building", "land", "road", "vegetation", "water"]
    assert spec.metrics["val_miou"] == found.metrics["val_miou"]
    assert "steps of 2x1 crops" in spec.recipe
    assert spec.tile.size_px == 224
    assert (spec.tile.multiple_px > 1) == (name == "segman_t")
    result = predict_raster(
        found.model, CHIPS / "3.jpg", tmp_path / "map.tif", options=PredictOptions(gsd="native")
    )
    with rasterio.open(result.outputs.class_map) as dataset:
        assert dataset.shape == (224, 224)
        assert set(dataset.read(1).flat) <= {0, 1, 2, 3, 4}


class StopsAtOnce(Hearing):
    """Stops the run when it is asked for the first time."""

    def check(self) -> None:
        raise InterruptedRunError("stop")


class StopsAfterValidation(Hearing):
    """Stops the run once a step is validated."""

    def check(self) -> None:
        if any(text.startswith(f"step {self.stop_after}: ") for text in self.said):
            raise InterruptedRunError("stop")


@pytest.mark.parametrize(
    ("stops", "stop_after", "options"),
    [
        (Hearing, 2, {"log_every_steps": 3}),  # in a validation, between rows of the metrics
        (Hearing, 4, {}),  # in the last validation
        (StopsAfterValidation, 2, {}),
        (Hearing, 3, {"accumulate": 2}),  # between validations
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(make_run, stops, stop_after, options):
    options |= {"steps": 4, "val_every_steps": 2, "ema_decay": 0.9}
    whole, parts = make_run("whole", **options), make_run("parts", **options)
    expected = train(whole)
    with pytest.raises(InterruptedRunError, match=f"^stopped after step {stop_after}."):
        train(parts, listener=stops(stop_after))
    found = train(replace(parts, trainer=replace(parts.trainer, workers=1)), resume=True)
    assert found.metrics == expected.metrics
    assert differences(last(whole), last(parts)) == []
    models = [load_model(Path(run.out) / "model.safetensors") for run in (whole, parts)]
    assert differences(*(dict(m.state_dict()) for m in models)) == []
    rows = [read_rows(Path(run.out) / "metrics.csv") for run in (whole, parts)]
    for a, b in zip(*rows, strict=True):
        assert {k: v for k, v in a.items() if k != "samples_per_s"} == {
            k: v for k, v in b.items() if k != "samples_per_s"
        }


def test_a_stop_does_not_wait_for_the_end_of_a_validation(make_run):
    run = make_run(steps=2)
    with pytest.raises(InterruptedRunError):
        train(run, listener=Hearing(2))
    assert not any("val_miou" in row for row in read_rows(Path(run.out) / "metrics.csv"))
    assert not (Path(run.out) / "model.safetensors").exists()
    with pytest.raises(InterruptedRunError):  # and a second time
        train(run, listener=StopsAtOnce(), resume=True)
    hearing = Hearing()
    assert train(run, resume=True, listener=hearing).metrics["best_step"] == 2
    assert hearing.steps == []


def test_the_step_count_need_not_be_a_multiple(make_run):
    hearing = Hearing()
    found = train(make_run(steps=3, val_every_steps=2), listener=hearing)
    rows = read_rows(found.out / "metrics.csv")
    assert [int(row["step"]) for row in rows if "val_miou" in row] == [2, 3]
    assert [int(row["step"]) for row in rows if "loss" in row] == [1, 2, 3]
    assert hearing.steps == [1, 2, 3]
    assert hearing.plans[0]["unit"] == "steps"
    assert "3 images to train and 1 to validate on" in hearing.plans[0]["sentence"]


def test_without_validation_the_last_weights_are_saved(make_run):
    run = make_run(steps=2)
    data = replace(run.data, val=None, split=SplitConfig(val_share=0.0))
    found = train(replace(run, data=data))
    assert found.metrics == {"steps": 2, "best_step": 2, "monitor": "miou"}
    state = last(run)["state_dict"]
    saved = load_model(found.model).network.state_dict()
    assert all(torch.equal(value, state[f"trained.network.{key}"]) for key, value in saved.items())


def test_patience(make_run, monkeypatch):
    monkeypatch.setattr("geoseg.train.task.scores", lambda *_: {"miou": 0.5})
    found = train(make_run(steps=9, val_every_steps=1, patience=2))
    assert found.metrics["steps"] == 3
    assert found.metrics["best_step"] == 1


def test_a_run_out_of_patience_is_at_its_end_when_resumed_too(make_run, monkeypatch):
    monkeypatch.setattr("geoseg.train.task.scores", lambda *_: {"miou": 0.5})
    run = make_run(steps=9, val_every_steps=1, patience=2)
    with pytest.raises(InterruptedRunError):
        train(run, listener=StopsAfterValidation(3))
    assert train(run, resume=True).metrics["steps"] == 3
    longer = replace(run, trainer=replace(run.trainer, patience=3))
    assert train(longer, resume=True).metrics["steps"] == 4


def test_the_best_weights_are_kept(make_run, monkeypatch):
    found = iter([0.3, 0.9, 0.2])
    monkeypatch.setattr("geoseg.train.task.scores", lambda *_: {"miou": next(found)})
    run = make_run(steps=3, val_every_steps=1)
    result = train(run)
    assert result.metrics["best_step"] == 2
    assert json.loads((result.out / "metrics.json").read_text())["val_miou"] == 0.9
    assert read_spec(result.model).metrics == {"val_miou": 0.9}


def test_a_frozen_encoder_stays(make_run):
    run = make_run(steps=2)
    run = replace(run, optim=replace(run.optim, encoder_lr_factor=0.0))
    train(run)
    state = last(run)["state_dict"]
    torch.manual_seed(run.seed)
    from geoseg.models import create_model

    fresh = create_model("segnext_t", num_classes=5).state_dict()
    for key, value in fresh.items():
        same = torch.equal(value, state[f"trained.network.{key}"])
        assert same or key.startswith("decoder."), key


def test_frozen_batch_norm_keeps_its_statistics(make_run):
    run = make_run(steps=1, freeze_batch_norm=True)
    train(run)
    means = [v for k, v in last(run)["state_dict"].items() if k.endswith("running_mean")]
    assert means
    assert not any(mean.any() for mean in means)


def test_what_the_data_decide_is_written_out(make_run):
    run = make_run(steps=1, batch_size="auto")
    run = replace(
        run,
        data=replace(run.data, mean=None, std=None),
        loss=LossConfig(class_weights="balanced"),
    )
    found = train(run)
    written = parse_config(found.out / "config.yaml")
    assert written.data.mean is not None
    assert 0 < min(written.data.mean) < 255
    assert written.model.num_classes == 5
    assert written.trainer.batch_size in {1, 2, 4, 8, 16, 32, 64}
    assert [b.mean for b in read_spec(found.model).bands] == list(written.data.mean)
    # A resumed run keeps that size, though more might fit by then.
    again = replace(run, trainer=replace(run.trainer, steps=2))
    assert train(again, resume=True).metrics["steps"] == 2


def test_other_values_on_resuming(make_run, caplog):
    run = make_run(steps=2)
    train(run)
    other = replace(run, optim=replace(run.optim, lr=1e-5), trainer=replace(run.trainer, steps=3))
    with caplog.at_level("WARNING"):
        train(other, resume=True)
    assert "goes on with other values of optim.lr" in caplog.text
    assert last(run)["optimizer_states"][0]["param_groups"][0]["initial_lr"] == 1e-5
    grown = replace(run, trainer=replace(run.trainer, ema_decay=0.9))
    with pytest.raises(UsageError, match="a resumed run keeps trainer.ema_decay"):
        train(grown, resume=True)
    frozen = replace(run, optim=replace(run.optim, encoder_lr_factor=0.0))
    with pytest.raises(UsageError, match="a resumed run keeps optim.encoder_lr_factor"):
        train(frozen, resume=True)


def test_a_folder_in_use(make_run):
    run = make_run(steps=1)
    with pytest.raises(UsageError, match="nothing to resume: .*last.ckpt' does not exist"):
        train(run, resume=True)
    train(run)
    with pytest.raises(OutputExistsError, match="Give --resume to go on .* --overwrite"):
        train(run)
    with pytest.raises(UsageError, match="give one"):
        train(run, resume=True, overwrite=True)
    own = Path(run.out) / "notes.txt"
    own.write_text("mine")
    assert train(run, overwrite=True).metrics["steps"] == 1
    assert own.exists()
    (Path(run.out) / "last.ckpt").write_bytes(b"PK damaged")
    with pytest.raises(InputError, match="cannot be read .*: it is damaged"):
        train(run, resume=True)


def test_a_loss_that_is_no_number(make_run, monkeypatch):
    step = SegmentationTask.training_step

    def broken(self, batch, index):
        return step(self, batch, index) * (math.nan if index == 2 else 1)

    monkeypatch.setattr(SegmentationTask, "training_step", broken)
    run = make_run(steps=4, val_every_steps=2)
    with pytest.raises(InputError) as caught:
        train(run)
    rate = 1e-3 * (1 - 2 / 4)
    assert str(caught.value).startswith(
        f"the loss is no finite number at step 2 (learning rate {rate:g}). "
        "The last good checkpoint is kept: lower optim.lr"
    )
    assert last(run)["global_step"] == 2
    assert all(torch.isfinite(v).all() for v in last(run)["state_dict"].values())
    monkeypatch.setattr(SegmentationTask, "training_step", step)
    assert train(run, resume=True).metrics["steps"] == 4


def test_weights_that_are_no_numbers_are_not_saved(make_run, monkeypatch):
    def broken(self, batch, index):
        weight = self.segmenter.network.decoder.conv_seg.weight
        if index == 1:
            weight.data.fill_(math.inf)
        return (weight * 0).nan_to_num().sum()

    monkeypatch.setattr(SegmentationTask, "training_step", broken)
    run = make_run(steps=2, val_every_steps=2)
    with pytest.raises(InputError, match="at step 1 .* There is no checkpoint yet: .* start again"):
        train(run)
    assert not (Path(run.out) / "last.ckpt").exists()
    assert not (Path(run.out) / "model.safetensors").exists()


@pytest.mark.parametrize("what", ["checkpoint", "model", "metrics"])
def test_a_full_disk(make_run, monkeypatch, what):
    run = make_run(steps=4, val_every_steps=2)
    with pytest.raises(InterruptedRunError):
        train(run, listener=Hearing(2))
    before = (Path(run.out) / "last.ckpt").read_bytes()

    def full(*_args, **_named):
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "checkpoint":
        monkeypatch.setattr("lightning.Trainer.save_checkpoint", full)
    elif what == "model":
        monkeypatch.setattr(checkpoints, "save_model", full)
        monkeypatch.setattr(checkpoints.KeepBest, "load_state_dict", lambda *_: None)
    else:
        monkeypatch.setattr(record.Path, "write_text", full)
    with pytest.raises(DiskFullError, match="is full. The last checkpoint is kept: free some"):
        train(run, resume=True)
    monkeypatch.undo()
    assert (Path(run.out) / "last.ckpt").read_bytes() == before
    assert not list(Path(run.out).glob(".*.part"))
    assert train(run, resume=True).metrics["steps"] == 4


def test_a_folder_that_cannot_be_written(make_run, monkeypatch):
    def denied(*_args, **_named):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("lightning.Trainer.save_checkpoint", denied)
    with pytest.raises(MachineError, match="cannot be written: .*Permission denied.* is kept"):
        train(make_run(steps=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_without_a_class(make_run, workers):
    run = make_run(steps=1, workers=workers)
    classes = tuple(ClassConfig(i, f"class {i}") for i in range(2))
    with pytest.raises(InputError, match="expected class ids 0, 1; got ") as caught:
        train(replace(run, data=replace(run.data, classes=classes, cache_gb=0.0)))
    assert "Traceback" not in str(caught.value)
    assert caught.value.args[0].count("\n") == 0


def test_missing_files(make_run, tmp_path):
    run = make_run(steps=1)
    nowhere = replace(chips(CHIPS, 0), images=str(tmp_path / "nowhere" / "*.jpg"))
    with pytest.raises(InputError, match="nowhere"):
        train(replace(run, data=replace(run.data, train=nowhere)))
    with pytest.raises(InputError, match="does not exist"):
        train(
            replace(run, model=ModelConfig("segnext_t", weights="none.safetensors")), overwrite=True
        )


def test_a_model_for_other_data(make_run):
    run = make_run(model=ModelConfig("segnext_t", num_classes=7))
    with pytest.raises(UsageError, match="model.num_classes: expected 5, as the data have; got 7"):
        train(run)
    run = make_run("other", loss=LossConfig(class_weights=(1.0, 2.0)))
    with pytest.raises(UsageError, match="one for each of the 5 classes; got 2"):
        train(run)


def test_tensorboard(make_run):
    found = train(make_run(steps=1, loggers=("csv", "tensorboard")))
    assert list((found.out / "tensorboard").glob("events*"))


def test_training_starts_from_a_model(make_run):
    first = train(make_run("first", steps=1))
    run = make_run("second", steps=1)
    start = ModelConfig("segnext_t", weights=str(first.model))
    still = replace(run.optim, lr=1e-30, warmup_steps=0, weight_decay=0.0)
    trainer = replace(run.trainer, freeze_batch_norm=True)
    second = train(replace(run, model=start, optim=still, trainer=trainer))
    states = [load_model(r.model).network.state_dict() for r in (first, second)]
    for key, value in states[0].items():
        assert torch.allclose(value, states[1][key], rtol=0, atol=1e-20), key
    assert "from model.safetensors" in read_spec(second.model).recipe


def test_bfloat16_is_measured(make_run):
    found = train(make_run(steps=1, card=CardConfig(measure_bf16=True)))
    record = read_spec(found.model).precision["bf16"]
    assert record.device == "cpu"
    assert 0.5 < record.agreement <= 1
    assert abs(record.miou_delta) < 50


def test_a_network_of_ones_own_that_is_called_like_ours_is_not_taken_for_it(make_run):
    kind, listener = type("segman_t", (torch.nn.Conv2d,), {"__module__": "mine"}), Hearing()
    network = kind(3, 5, 3, padding=1)
    result = train(make_run(steps=1, batch_size=2), network=network, listener=listener)
    assert read_spec(result.model).architecture.name == "mine.segman_t"
    assert listener.plans[0]["model"] == "mine.segman_t"
    assert listener.plans[0]["sentence"].startswith("mine.segman_t: 1 steps")
    with pytest.raises(ModelFileError, match="build the network in Python"):
        load_model(result.model)


def test_a_network_of_ones_own_is_trained(make_run):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 3, padding=1)
    before = network.weight.detach().clone()
    run = make_run(steps=2, batch_size=2, card=CardConfig(measure_bf16=True))
    result = train(run, network=network)
    assert not torch.equal(network.weight, before)
    spec = read_spec(result.model)
    assert spec.architecture.name == "Conv2d"
    assert spec.precision["bf16"].agreement > 0.9
    with pytest.raises(ModelFileError, match="build the network in Python"):
        load_model(result.model)


def test_a_run_that_cannot_begin_leaves_the_earlier_one(make_run):
    run = make_run(steps=1, val_every_steps=1)
    found = train(run)
    before = {path.name: path.read_bytes() for path in Path(run.out).iterdir() if path.is_file()}
    elsewhere = replace(run.data.train, images="nowhere")
    with pytest.raises(InputError, match="nowhere"):
        train(replace(run, data=replace(run.data, train=elsewhere)), overwrite=True)
    assert {p.name: p.read_bytes() for p in Path(run.out).iterdir() if p.is_file()} == before
    assert found.model.name in before
    with pytest.raises(OutputExistsError, match="is a file"):
        train(replace(run, out=str(found.model)), overwrite=True)


def test_a_score_that_does_not_exist_is_named(make_run):
    run = make_run(steps=1, val_every_steps=1, monitor="iou_buildng")
    with pytest.raises(UsageError, match="no score is called 'iou_buildng'. Did you mean iou_"):
        train(run)
