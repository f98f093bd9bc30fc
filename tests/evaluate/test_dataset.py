"""A split is scored over all of its pixels, with the model's classes, and misfits are sentences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geoseg.checkpoint import save_model
from geoseg.config.run import (
    ClassConfig,
    DataConfig,
    EvaluationConfig,
    FilesConfig,
    ModelConfig,
    RunConfig,
)
from geoseg.data.sample import IGNORE, Split
from geoseg.errors import (
    BandMismatchError,
    DtypeMismatchError,
    InputError,
    OutputExistsError,
)
from geoseg.evaluate import evaluate_config, evaluate_dataset
from geoseg.evaluate.boundary import BoundaryCounts, default_distance_px
from geoseg.evaluate.dataset import match_classes
from geoseg.evaluate.metrics import class_scores, count_pairs
from geoseg.listener import Listener
from geoseg.models import create_model
from geoseg.spec import Architecture, ClassSpec, TileSpec
from tests.conftest import levels_model, make_spec

SIZES = [(30, 40), (25, 25), (50, 20)]
WHOLE = EvaluationConfig()


def make_samples(seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for i, shape in enumerate(SIZES):
        mask = np.kron(rng.integers(0, 4, (10, 10)), np.ones((5, 5), int))[: shape[0], : shape[1]]
        image = np.where(rng.random(shape) < 0.3, rng.integers(0, 4, shape), mask)
        valid = np.ones(shape, dtype=bool)
        valid[:3] = False
        mask[:, :2] = IGNORE
        samples.append(
            {
                "image": torch.from_numpy(image[None]).float(),
                "mask": torch.from_numpy(mask),
                "valid": torch.from_numpy(valid),
                "name": f"chip {i}",
            }
        )
    return samples


def make_split(samples=None, classes=None, **fields):
    classes = classes or make_spec(1, 4).classes
    values = {"bands": ("a",), "notes": ("split by place",), **fields}
    return Split(samples if samples is not None else make_samples(), classes, **values)


def expected_counts(samples):
    counts, boundary, ignored = np.zeros((4, 4), np.int64), BoundaryCounts(4), 0
    for sample in samples:
        target = torch.where(sample["valid"], sample["mask"], IGNORE)
        predicted = sample["image"][0].long()
        counts += count_pairs(target, predicted, 4).numpy()
        distance = default_distance_px(*target.shape)
        boundary.update(target.numpy(), predicted.numpy(), distance)
        ignored += int((target == IGNORE).sum())
    return counts, boundary, ignored


def test_scores_are_those_of_all_pixels_together():
    samples = make_samples()
    record = evaluate_dataset(levels_model(), make_split(samples), WHOLE, data="chips")
    counts, boundary, ignored = expected_counts(samples)
    assert record.confusion == tuple(map(tuple, counts.tolist()))
    assert record.scores["miou"] == pytest.approx(np.mean(class_scores(counts)["iou"]))
    assert record.scores["mean_boundary_iou"] == pytest.approx(np.mean(boundary.iou()))
    assert (record.samples, record.pixels, record.ignored_pixels) == (3, counts.sum(), ignored)
    assert record.calibration.pixels == record.pixels
    assert (record.kind, record.data, record.cells, record.area) == ("dataset", "chips", None, None)
    assert record.notes[0] == "split by place"


def test_the_best_and_worst_samples_are_shown():
    record = evaluate_dataset(levels_model(), make_split(), WHOLE, data="chips")
    assert sorted(p.name for p in record.pictures) == ["chip 0", "chip 1", "chip 2"]
    assert [p.kind for p in record.pictures] == ["best", "best", "worst"]
    first = record.pictures[0]
    size = SIZES[int(first.name[-1])]
    assert first.image.shape == (*size, 3)
    assert first.target.shape == first.predicted.shape == size
    assert (first.target[:3] == IGNORE).all()


def test_classes_in_another_order_are_matched_by_name():
    spec = levels_model().spec
    swapped = (spec.classes[2], *spec.classes[1::-1], spec.classes[3])
    samples = make_samples()
    for sample in samples:
        mask = sample["mask"]
        sample["mask"] = torch.where((mask == 0) | (mask == 2), 2 - mask, mask)
    found = evaluate_dataset(levels_model(), make_split(samples, swapped), WHOLE, data="chips")
    plain = evaluate_dataset(levels_model(), make_split(), WHOLE, data="chips")
    assert found.confusion == plain.confusion


def test_other_classes_are_refused_by_name():
    spec = make_spec(1, 3)
    classes = (*spec.classes[:2], ClassSpec(9, "lake", "#0000ff"), ClassSpec(10, "sea", "#0000ff"))
    with pytest.raises(InputError) as error:
        match_classes(spec, classes)
    assert str(error.value).startswith(
        "expected the 3 classes of model 'small'; the data have 4 (only the data have lake, sea; "
        "only the model has class 2)."
    )


def test_names_that_occur_twice_are_matched_by_order():
    spec = make_spec(1, 2)
    twice = tuple(replace(c, name="screen") for c in spec.classes)
    assert match_classes(replace(spec, classes=twice), twice).tolist() == [0, 1]


def test_other_bands_are_refused_by_name():
    with pytest.raises(
        BandMismatchError, match=r"expects 1 band\(s\) \(a\); the data have 2 \(a, b"
    ):
        evaluate_dataset(levels_model(), make_split(bands=("a", "b")), WHOLE, data="chips")


def test_nothing_labelled_is_an_error():
    samples = make_samples()
    for sample in samples:
        sample["mask"] = torch.full_like(sample["mask"], IGNORE)
    with pytest.raises(InputError, match=r"expected labelled pixels in chips; 3 samples have none"):
        evaluate_dataset(levels_model(), make_split(samples), WHOLE, data="chips")


def test_a_class_without_labels_is_noted():
    samples = make_samples()
    for sample in samples:
        sample["mask"][sample["mask"] == 3] = IGNORE
    record = evaluate_dataset(levels_model(), make_split(samples), WHOLE, data="chips")
    assert "not labelled anywhere in these data: class 3" in record.notes


def test_a_run_can_be_followed_and_stopped():
    class Ears(Listener):
        def __init__(self):
            self.heard = []

        def start(self, plan):
            self.heard.append(plan["unit"])

        def progress(self, done, total, pixels):
            self.heard.append((done, total, pixels))

        def check(self):
            if len(self.heard) > 2:
                raise KeyboardInterrupt

    ears = Ears()
    with pytest.raises(KeyboardInterrupt):
        evaluate_dataset(levels_model(), make_split(), WHOLE, data="chips", listener=ears)
    assert ears.heard == ["samples", (1, 3, 1200), (2, 3, 1825)]


@pytest.fixture
def config(make_raster, tmp_path):
    for i, sample in enumerate(make_samples()):
        image, mask = sample["image"].numpy().astype(np.uint8), sample["mask"].numpy()
        bare = {"crs": None, "transform": None}
        make_raster(image, f"images/{i}.tif", **bare)
        make_raster(mask.astype(np.uint8), f"masks/{i}.tif", **bare)
    files = FilesConfig(str(tmp_path / "images"), str(tmp_path / "masks"))
    classes = tuple(ClassConfig(c.id, c.name) for c in make_spec(1, 4).classes)
    data = DataConfig("folder", train=files, val=files, classes=classes, band_names=("a",))
    return RunConfig(str(tmp_path / "run"), ModelConfig("segnext_t"), data)


def test_a_run_file_is_scored_and_written(config, tmp_path):
    out = tmp_path / "eval"
    record = evaluate_config(levels_model(), config, out)
    assert {p.name for p in out.iterdir()} == {"metrics.json", "report.html"}
    assert record.data.startswith("val split of folder data")
    assert record.samples == 3
    assert record.scores["miou"] > 0.3
    assert "in_sample" not in record.settings
    with pytest.raises(OutputExistsError, match="metrics.json' exists"):
        evaluate_config(levels_model(), config, out)
    other = levels_model()
    other.spec = replace(other.spec, dtype="uint16")
    with pytest.raises(DtypeMismatchError, match="expects uint16 values; the data are uint8"):
        evaluate_config(other, config, out.with_name("other"))
    assert not out.with_name("other").exists()


def test_a_run_scores_its_own_model_with_its_curves(config, tmp_path):
    torch.manual_seed(0)
    network = create_model("segnext_t", in_channels=1, num_classes=4)
    spec = make_spec(1, 4, architecture=Architecture("segnext_t"), tile=TileSpec(64, 16))
    path = save_model(tmp_path / "run" / "model.safetensors", network, spec)
    (path.parent / "metrics.csv").write_text("step,miou\n10,0.25\n20,0.5\n", "utf-8")
    record = evaluate_config(path, config, path.parent / "evaluation_val")
    assert record.curves == {"miou": ((10.0, 0.25), (20.0, 0.5))}
    assert record.settings["in_sample"] is False
