"""Killed, stopped, out of memory, out of disk, or doubled: finished work stays and nothing lies."""

import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from geoseg.errors import (
    DiskFullError,
    InputError,
    InterruptedRunError,
    OutOfMemoryError,
    OutputExistsError,
    PartsMismatchError,
    UsageError,
)
from geoseg.listener import Listener
from geoseg.predict import PredictOptions, assemble, predict_raster
from geoseg.predict import plan as plan_module
from geoseg.predict.parts import load_parts
from geoseg.raster import writer as writer_module
from geoseg.segmenter import Segmenter
from tests.conftest import levels_model, make_spec, small_conv
from tests.predict import interrupted

PANEL_PX = 20000


@pytest.fixture
def scene(make_raster):
    rng = np.random.default_rng(5)
    return make_raster(rng.integers(0, 255, (3, 500, 420)).astype(np.uint8))


def start(scene, out, note, *, resume):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.predict.interrupted"])
    process = context.Process(target=interrupted.run, args=(scene, out, note, resume, PANEL_PX))
    process.start()
    return process


def tiles_done(note: Path) -> int:
    return int(note.read_text().split()[0]) if note.exists() and note.read_text() else 0


def test_killed_at_20_random_moments_a_run_resumes_to_the_same_bytes(scene, tmp_path):
    whole, out, note = tmp_path / "whole.tif", tmp_path / "out.tif", tmp_path / "note"
    process = start(scene, whole, note, resume=False)
    began = time.monotonic()
    process.join(60)
    seconds = time.monotonic() - began
    assert process.exitcode == 0
    needed = tiles_done(note)
    chance = random.Random(0)
    kills, tiles, finished = 0, 0, {}
    while kills < 20:
        note.unlink(missing_ok=True)
        process = start(scene, out, note, resume=kills > 0)
        process.join(chance.uniform(0.05, 0.4) * seconds)
        process.kill()
        process.join()
        if out.exists():  # it was done before, or killed while it cleaned up: start over
            assert out.read_bytes() == whole.read_bytes()
            for made in tmp_path.glob("out.*"):
                shutil.rmtree(made) if made.is_dir() else made.unlink()
            tiles, finished = 0, {}
            continue
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        tiles += tiles_done(note)
        parts = Path(f"{out}.parts")
        if not (parts / "manifest.json").exists():
            continue
        loaded = load_parts(parts)
        for name, stamp in finished.items():  # what was finished is not touched again
            assert (parts / name).stat().st_mtime_ns == stamp
        finished = {
            p.name: p.stat().st_mtime_ns
            for p in parts.glob("panel-*.tif")
            if int(p.name[6:11]) in loaded.done
        }
        _check_partial_map(loaded, whole, parts)
    note.unlink(missing_ok=True)
    process = start(scene, out, note, resume=True)
    process.join(60)
    assert process.exitcode == 0
    tiles += tiles_done(note)
    assert out.read_bytes() == whole.read_bytes()
    confidence = ".confidence.tif"
    assert out.with_suffix(confidence).read_bytes() == whole.with_suffix(confidence).read_bytes()
    assert not Path(f"{out}.parts").exists()
    # Each kill costs at most the tiles that touch one panel: its own rows and the one above.
    per_panel = 2 * 9
    assert tiles - needed <= (kills + 1) * per_panel


def _check_partial_map(loaded, whole, parts):
    """What is finished opens as an ordinary raster and is right."""
    vrt = parts / "class_map.vrt"
    if not (loaded.done and vrt.exists()):
        return
    with rasterio.open(whole) as dataset:
        expected = dataset.read(1)
    for index, w in loaded.done.items():
        with rasterio.open(parts / f"panel-{index:05d}.class_map.tif") as panel:
            assert np.array_equal(panel.read(1), expected[w.row : w.row_end, w.col : w.col_end])
    with rasterio.open(vrt) as dataset:
        shown = dataset.read(1)
    assert np.array_equal(shown[shown != 255], expected[shown != 255])


class StopAfter(Listener):
    """Stops a run after a number of tiles."""

    def __init__(self, tiles: int) -> None:
        self.tiles = tiles

    def progress(self, done, total, pixels):
        if done >= self.tiles:
            raise InterruptedRunError("stopped")


@pytest.fixture
def model():
    return Segmenter(small_conv(), make_spec(3, mean=127, std=60)).eval()


@pytest.fixture
def stopped(scene, model, tmp_path, monkeypatch):
    """Return an output whose run was stopped halfway."""
    monkeypatch.setitem(plan_module.PANEL_PX, "cpu", PANEL_PX)
    out = tmp_path / "out.tif"
    with pytest.raises(InterruptedRunError):
        predict_raster(model, scene, out, listener=StopAfter(45))
    return out


def test_parts_and_no_flag_are_refused_naming_both(scene, model, stopped):
    with pytest.raises(OutputExistsError, match="--resume .*--overwrite"):
        predict_raster(model, scene, stopped)
    with pytest.raises(UsageError, match="--resume or --overwrite; got both"):
        predict_raster(model, scene, stopped, options=PredictOptions(resume=True, overwrite=True))


def test_resume_needs_the_same_settings_and_input(scene, model, stopped, make_raster):
    with pytest.raises(PartsMismatchError, match="tile_px: 64, now 96"):
        options = PredictOptions(resume=True, tile_size_px=96)
        predict_raster(model, scene, stopped, options=options)
    with pytest.raises(PartsMismatchError, match="model_sha256"):
        other = Segmenter(small_conv(seed=1), model.spec).eval()
        predict_raster(other, scene, stopped, options=PredictOptions(resume=True))
    with rasterio.open(scene, "r+") as dataset:
        dataset.write(np.zeros((3, 10, 10), np.uint8), window=((0, 10), (0, 10)))
    with pytest.raises(PartsMismatchError, match="raster_sample"):
        predict_raster(model, scene, stopped, options=PredictOptions(resume=True))


def test_overwrite_discards_parts(scene, model, stopped):
    predict_raster(model, scene, stopped, options=PredictOptions(overwrite=True))
    assert not Path(f"{stopped}.parts").exists()


def test_resume_survives_a_damaged_part_and_a_torn_journal(scene, model, stopped, tmp_path):
    parts = Path(f"{stopped}.parts")
    panel = sorted(parts.glob("panel-*.class_map.tif"))[0]
    panel.write_bytes(panel.read_bytes()[:-3])
    with (parts / "journal.jsonl").open("a") as journal:
        journal.write('{"panel": 9, "fi')
    predict_raster(model, scene, stopped, options=PredictOptions(resume=True))
    predict_raster(model, scene, tmp_path / "whole.tif")
    assert stopped.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_torn_line_costs_no_panel_of_the_next_run(scene, model, stopped):
    with (Path(f"{stopped}.parts") / "journal.jsonl").open("a") as journal:
        journal.write('{"panel": 9, "fi')
    with pytest.raises(InterruptedRunError):
        options = PredictOptions(resume=True)
        predict_raster(model, scene, stopped, options=options, listener=StopAfter(20))
    done = set(load_parts(Path(f"{stopped}.parts")).done)
    files = Path(f"{stopped}.parts").glob("panel-*.tif")
    assert done == {int(path.name[6:11]) for path in files}


def test_a_stopped_overwrite_resumes(scene, model, tmp_path, monkeypatch):
    monkeypatch.setitem(plan_module.PANEL_PX, "cpu", PANEL_PX)
    out = tmp_path / "out.tif"
    out.write_text("old")
    with pytest.raises(InterruptedRunError):
        options = PredictOptions(overwrite=True)
        predict_raster(model, scene, out, options=options, listener=StopAfter(45))
    assert out.read_text() == "old"
    result = predict_raster(model, scene, out, options=PredictOptions(resume=True))
    assert result.tiles < predict_raster(model, scene, tmp_path / "whole.tif").tiles
    assert out.read_bytes()[:2] == b"II"


def test_an_output_that_appears_during_the_run_is_not_touched(scene, model, tmp_path):
    out = tmp_path / "out.tif"

    class Neighbour(Listener):
        def progress(self, done, total, pixels):
            out.write_text("precious")

    with pytest.raises(OutputExistsError, match="exists"):
        predict_raster(model, scene, out, listener=Neighbour())
    assert out.read_text() == "precious"
    predict_raster(model, scene, tmp_path / "whole.tif")
    out.unlink()
    predict_raster(model, scene, out, options=PredictOptions(resume=True))
    assert out.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_partial_map_gives_no_leave_to_replace_it(scene, model, stopped):
    assemble(Path(f"{stopped}.parts"), stopped, overwrite=False, partial=True)
    partial = stopped.read_bytes()
    with pytest.raises(OutputExistsError):
        predict_raster(model, scene, stopped, options=PredictOptions(resume=True))
    assert stopped.read_bytes() == partial


def test_inputs_are_never_replaced(scene, model, tmp_path):
    before = scene.read_bytes()
    options = PredictOptions(overwrite=True)
    with pytest.raises(UsageError, match="is an input of this run"):
        predict_raster(model, scene, scene, options=options)
    with pytest.raises(UsageError, match="is an input of this run"):
        options = PredictOptions(overwrite=True, confidence=scene)
        predict_raster(model, scene, tmp_path / "map.tif", options=options)
    assert scene.read_bytes() == before


def test_what_lay_beside_a_replaced_map_goes_with_it(scene, model, tmp_path):
    out = tmp_path / "out.tif"
    predict_raster(model, scene, out)
    with rasterio.open(out) as dataset:
        shape = {k: dataset.profile[k] for k in ("height", "width", "dtype", "transform", "count")}
    with rasterio.open(out.with_name("out.tif.msk"), "w", driver="GTiff", **shape) as mask:
        mask.update_tags(INTERNAL_MASK_FLAGS_1=2)
    with rasterio.open(out) as dataset:
        assert not dataset.read_masks(1).any()
    predict_raster(model, scene, out, options=PredictOptions(overwrite=True))
    with rasterio.open(out) as dataset:
        assert dataset.read_masks(1).all()


def test_files_of_others_in_a_folder_of_that_name_stay(scene, model, tmp_path):
    folder = tmp_path / "out.tif.parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    predict_raster(model, scene, tmp_path / "out.tif", options=PredictOptions(overwrite=True))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_the_picture_belongs_to_the_outputs(scene, model, tmp_path, monkeypatch):
    def interrupt(*_):
        raise InterruptedRunError("stopped")

    out, picture = tmp_path / "out.tif", tmp_path / "look.png"
    with monkeypatch.context() as patch, pytest.raises(InterruptedRunError):
        patch.setattr("geoseg.predict.run.write_quicklook", interrupt)
        predict_raster(model, scene, out, options=PredictOptions(quicklook=picture))
    assert not out.exists()
    options = PredictOptions(quicklook=picture, resume=True)
    assert predict_raster(model, scene, out, options=options).tiles == 0
    assert picture.exists()
    assert not Path(f"{out}.parts").exists()


def test_resume_with_nothing_to_resume_starts(scene, model, tmp_path):
    out = tmp_path / "out.tif"
    predict_raster(model, scene, out, options=PredictOptions(resume=True))
    with pytest.raises(OutputExistsError, match=r"'.*out.tif' exists. Give --overwrite"):
        predict_raster(model, scene, out, options=PredictOptions(resume=True))


def test_an_existing_output_is_never_touched(scene, model, tmp_path):
    out = tmp_path / "out.tif"
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        predict_raster(model, scene, out)
    with pytest.raises(OutputExistsError):
        options = PredictOptions(confidence=out)
        predict_raster(model, scene, tmp_path / "other.tif", options=options)
    assert out.read_text() == "mine"
    predict_raster(model, scene, out, options=PredictOptions(overwrite=True))
    assert out.read_bytes()[:2] == b"II"


def test_a_second_run_on_one_output_is_refused(scene, model, tmp_path, monkeypatch):
    out = tmp_path / "out.tif"
    second = []

    class Intruder(Listener):
        def progress(self, done, total, pixels):
            if not second:
                with pytest.raises(OutputExistsError, match="another run is at work") as caught:
                    predict_raster(model, scene, out, options=PredictOptions(resume=True))
                second.append(caught)

    predict_raster(model, scene, out, listener=Intruder())
    assert second
    assert out.exists()


def test_assemble_refuses_what_is_incomplete_unless_told(scene, model, stopped, tmp_path):
    parts = Path(f"{stopped}.parts")
    done = len(load_parts(parts).done)
    with pytest.raises(PartsMismatchError, match=r"\d+ of \d+ panels are missing"):
        assemble(parts, tmp_path / "map.tif", overwrite=False, partial=False)
    made = assemble(parts, tmp_path / "map.tif", overwrite=False, partial=True)
    predict_raster(model, scene, tmp_path / "whole.tif")
    with rasterio.open(made.class_map) as part, rasterio.open(tmp_path / "whole.tif") as whole:
        ids, expected = part.read(1), whole.read(1)
        assert part.tags()["GEOSEG_PARTIAL"].startswith(f"{done} of ")
    assert 0 < (ids != 255).sum() < ids.size
    assert np.array_equal(ids[ids != 255], expected[ids != 255])
    assert parts.exists()
    with pytest.raises(PartsMismatchError, match="expected a folder of parts"):
        assemble(tmp_path / "nothing", tmp_path / "x.tif", overwrite=False, partial=False)


def test_the_same_shard_twice_needs_a_flag(scene, model, tmp_path, monkeypatch):
    monkeypatch.setitem(plan_module.PANEL_PX, "cpu", PANEL_PX)
    out = tmp_path / "out.tif"
    predict_raster(model, scene, out, options=PredictOptions(shard=(1, 2)))
    with pytest.raises(OutputExistsError, match="--resume"):
        predict_raster(model, scene, out, options=PredictOptions(shard=(1, 2)))
    again = predict_raster(model, scene, out, options=PredictOptions(shard=(1, 2), resume=True))
    assert again.tiles == 0


class Hungry(nn.Module):
    """Runs out of memory with more than ``limit`` tiles, from its n-th batch on."""

    def __init__(self, limit: int, after: int, error: Exception) -> None:
        super().__init__()
        self.network = small_conv()
        self.limit = limit
        self.after = after
        self.error = error
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        if len(self.batches) > self.after and len(x) > self.limit:
            raise self.error
        return self.network(x)


MEMORY_ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda e: type(e).__name__)
def test_out_of_memory_halfway_halves_the_batch_and_goes_on(scene, tmp_path, error, model):
    network = Hungry(2, 5, error)
    out = tmp_path / "out.tif"
    hungry = Segmenter(network, model.spec).eval()
    predict_raster(hungry, scene, out, options=PredictOptions(batch_size=8))
    predict_raster(model, scene, tmp_path / "whole.tif", options=PredictOptions(batch_size=8))
    assert set(network.batches[10:]) <= {1, 2}
    with rasterio.open(out) as made, rasterio.open(tmp_path / "whole.tif") as whole:
        assert (made.read() == whole.read()).mean() >= 0.9999
        assert made.tags()["GEOSEG_BATCH_SIZE"] == "8, lowered to 2 for lack of memory"


def test_out_of_memory_with_one_tile_keeps_what_is_finished(scene, tmp_path, model, monkeypatch):
    monkeypatch.setitem(plan_module.PANEL_PX, "cpu", PANEL_PX)
    out = tmp_path / "out.tif"
    network = Hungry(0, 30, MemoryError())
    with pytest.raises(OutOfMemoryError, match="single tile does not fit .*--tile-size"):
        predict_raster(Segmenter(network, model.spec).eval(), scene, out)
    assert load_parts(Path(f"{out}.parts")).done
    assert not out.exists()


def test_other_errors_of_a_network_are_not_hidden(scene, tmp_path, model):
    network = Hungry(0, 3, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict_raster(Segmenter(network, model.spec).eval(), scene, tmp_path / "out.tif")


def test_the_memory_budget_is_checked_before_the_first_tile(scene, model, tmp_path):
    out = tmp_path / "out.tif"
    with pytest.raises(OutOfMemoryError, match=r"needs about \d+\.\d+ GB .*allows 0.10 GB"):
        predict_raster(model, scene, out, options=PredictOptions(max_memory_bytes=10**8))
    assert not Path(f"{out}.parts").exists()


def test_a_full_disk_keeps_finished_parts_and_resumes(scene, model, tmp_path, monkeypatch):
    monkeypatch.setitem(plan_module.PANEL_PX, "cpu", PANEL_PX)
    out, real, writes = tmp_path / "out.tif", writer_module.PartsWriter.write_rows, []

    def full(self, row, arrays):
        writes.append(row)
        if len(writes) > 4:
            raise OSError(28, "No space left on device")
        real(self, row, arrays)

    def raising(self, row, arrays):
        with writer_module.machine_errors(self.folder):
            full(self, row, arrays)

    monkeypatch.setattr(writer_module.PartsWriter, "write_rows", raising)
    with pytest.raises(DiskFullError, match="--resume"):
        predict_raster(model, scene, out)
    monkeypatch.setattr(writer_module.PartsWriter, "write_rows", real)
    assert len(load_parts(Path(f"{out}.parts")).done) == 4
    predict_raster(model, scene, out, options=PredictOptions(resume=True))
    predict_raster(model, scene, tmp_path / "whole.tif")
    assert out.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_damaged_input_keeps_finished_parts(make_raster, tmp_path, monkeypatch):
    monkeypatch.setitem(plan_module.PANEL_PX, "cpu", PANEL_PX)
    values = np.random.default_rng(0).integers(0, 4, (1, 1200, 400)).astype(np.uint8)
    raster = make_raster(values, compress="deflate", blockysize=8)
    content = bytearray(raster.read_bytes())
    middle = len(content) * 800 // 1200  # between the windows that are sampled before the run
    content[middle : middle + 4000] = bytes(4000)
    raster.write_bytes(content)
    out = tmp_path / "out.tif"
    with pytest.raises(InputError, match="cannot be read: .*damaged or cut short"):
        predict_raster(levels_model(4), raster, out)
    parts = load_parts(Path(f"{out}.parts"))
    assert parts.done
    assert not out.exists()
