"""What a run decides before its first tile, and what it says about it."""

import numpy as np
import pytest
import torch

from geoseg.errors import BackendUnavailableError, GsdMismatchError, UsageError
from geoseg.listener import Listener
from geoseg.predict import PredictOptions, plan_raster, predict_raster
from geoseg.predict.model import choose_device, choose_precision
from geoseg.segmenter import Segmenter
from geoseg.spec import PrecisionRecord, TileSpec
from tests.conftest import levels_model, make_spec, small_conv


class Notes(Listener):
    def __init__(self):
        self.plan = None
        self.messages = []
        self.steps = []

    def start(self, plan):
        self.plan = plan

    def log(self, level, message):
        self.messages.append((level, message))

    def progress(self, done, total, pixels):
        self.steps.append((done, total))


def run(model, raster, out, **options):
    notes = Notes()
    predict_raster(model, raster, out, options=PredictOptions(**options), listener=notes)
    return notes


def test_progress_counts_every_tile(make_raster, tmp_path):
    notes = run(levels_model(), make_raster(np.zeros((1, 300, 200), np.uint8)), tmp_path / "o.tif")
    assert notes.steps[-1][0] == notes.steps[-1][1] == notes.plan["tiles"]
    assert notes.steps == sorted(notes.steps)


def test_a_model_without_gsd_says_so(make_raster, tmp_path):
    raster = make_raster(np.zeros((1, 64, 64), np.uint8))
    notes = run(levels_model(), raster, tmp_path / "o.tif")
    assert any(
        "ground sample distance is unknown: run at the raster's 0.3 m" in m
        for _, m in notes.messages
    )
    assert notes.plan["gsd_m"] == pytest.approx([0.3, 0.3], rel=1e-3)


@pytest.mark.parametrize(
    ("known", "expected"),
    [((0.2, 0.4), None), ((0.5, 1.0), 0.5), ((0.1, 0.2), 0.2)],
)
def test_auto_resamples_where_the_model_asks_for_it(make_raster, tmp_path, known, expected):
    raster = make_raster(np.zeros((1, 64, 64), np.uint8))
    notes = run(levels_model(gsd_m=known), raster, tmp_path / "o.tif")
    assert notes.plan["model_gsd_m"] == expected
    text = " ".join(m for _, m in notes.messages)
    assert ("resampled from 0.3 to" in text) == (expected is not None)


def test_far_resolutions_are_refused_or_warned_of(make_raster, tmp_path):
    raster = make_raster(np.zeros((1, 64, 64), np.uint8))
    model = levels_model(gsd_m=(2.0, 3.0))
    with pytest.raises(GsdMismatchError, match="6.7 times off"):
        run(model, raster, tmp_path / "o.tif")
    notes = run(model, raster, tmp_path / "o.tif", gsd="native")
    assert (
        "warning",
        "the model knows 2 to 3 m per pixel and runs at 0.3 m: the map may be wrong",
    ) in notes.messages
    notes = run(model, raster, tmp_path / "p.tif", gsd=2.5)
    assert not any(level == "warning" for level, _ in notes.messages)


def test_odd_statistics_are_warned_of_with_the_numbers(make_raster, tmp_path):
    values = np.random.default_rng(0).normal(5000, 10, (1, 300, 300)).round().astype(np.uint16)
    model = levels_model(dtype="uint16", mean=100, std=50)
    notes = run(model, make_raster(values), tmp_path / "o.tif")
    warning = next(m for level, m in notes.messages if level == "warning")
    assert "band 1 (a) has mean 5000 and standard deviation 10" in warning
    assert "the model was trained on 100 and 50. Check the scaling" in warning


def test_plausible_and_unknown_statistics_are_not(make_raster, tmp_path):
    values = np.random.default_rng(0).normal(120, 40, (1, 300, 300)).clip(0, 255).astype(np.uint8)
    raster = make_raster(values)
    for model in (levels_model(mean=100, std=50), levels_model()):
        notes = run(model, raster, tmp_path / "o.tif", overwrite=True)
        assert not [m for level, m in notes.messages if level == "warning"]


def test_a_models_warning_is_said_at_every_run(make_raster, tmp_path):
    model = levels_model(warning="Demonstration model: expect failure.")
    notes = run(model, make_raster(np.zeros((1, 64, 64), np.uint8)), tmp_path / "o.tif")
    assert ("warning", "Demonstration model: expect failure.") in notes.messages


def test_a_dry_run_writes_nothing(make_raster, tmp_path):
    raster = make_raster(np.zeros((3, 700, 800), np.uint8))
    model = Segmenter(small_conv(), make_spec(3)).eval()
    before = set(tmp_path.iterdir())
    plan = plan_raster(model, raster, tmp_path / "o.tif")
    assert set(tmp_path.iterdir()) == before
    assert plan["mpx"] == 0.56
    assert plan["seconds"] > 0
    assert 1e8 < plan["memory_bytes"] < 4e9
    assert plan["disk_bytes"] == int(700 * 800 * (2 + 2 / 3))


def test_tiles_of_another_size_keep_the_advised_share_of_overlap(make_raster):
    raster = make_raster(np.zeros((1, 2000, 2000), np.uint8))
    model = levels_model(tile=TileSpec(512, 128, min_px=1))
    assert plan_raster(model, raster, "o.tif")["overlap_px"] == 128
    options = PredictOptions(tile_size_px=1024)
    assert plan_raster(model, raster, "o.tif", options=options)["overlap_px"] == 256


def test_illegal_tiles_and_overlaps_are_refused(make_raster):
    raster = make_raster(np.zeros((1, 100, 100), np.uint8))
    model = levels_model(tile=TileSpec(256, 64, multiple_px=32, min_px=224))
    with pytest.raises(UsageError, match="tiles of 100 px; the nearest size .* is 224"):
        plan_raster(model, raster, "o.tif", options=PredictOptions(tile_size_px=100))
    with pytest.raises(UsageError, match="overlap 300 px and tile 256 px"):
        plan_raster(model, raster, "o.tif", options=PredictOptions(overlap_px=300))


def test_memory_is_bounded_whatever_the_width(make_raster):
    model = levels_model(tile=TileSpec(512, 128, min_px=1))
    needs = []
    for width in (4_000, 16_000, 64_000):
        raster = make_raster(
            np.zeros((1, 8, 8), np.uint8), f"{width}.vrt.tif", sparse_ok=True, tiled=True
        )
        import rasterio

        with rasterio.open(
            raster,
            "w",
            driver="GTiff",
            width=width,
            height=4000,
            count=1,
            dtype="uint8",
            crs="EPSG:32633",
            transform=rasterio.Affine(0.3, 0, 5e5, 0, -0.3, 5e6),
            sparse_ok=True,
            tiled=True,
        ):
            pass
        needs.append(plan_raster(model, raster, "o.tif")["memory_bytes"])
    assert max(needs) - needs[0] < 150e6


def test_devices_and_precisions():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="--device auto, cpu, cuda, cuda:N or mps; got 'gpu'"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailableError, match="'cuda' was asked for, but no CUDA"):
            choose_device("cuda")
    spec = make_spec(precision={"bf16": PrecisionRecord(0.9999, 0.0)})
    assert choose_precision("auto", spec, torch.device("cpu")) == "fp32"
    assert choose_precision("bf16", spec, torch.device("cpu")) == "bf16"


def test_bf16_leaves_the_callers_network_alone(make_raster, tmp_path):
    model = Segmenter(small_conv(), make_spec(3, mean=127, std=60)).eval()
    raster = make_raster(np.random.default_rng(0).integers(0, 255, (3, 90, 90)).astype(np.uint8))
    run(model, raster, tmp_path / "o.tif", precision="bf16")
    assert model.network[0].weight.dtype == torch.float32
