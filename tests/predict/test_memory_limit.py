"""--max-memory decides how wide strips are, and never what the map shows."""

import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from geoseg.errors import OutOfMemoryError, PartsMismatchError
from geoseg.predict import PredictOptions, assemble, plan_raster, predict_raster
from geoseg.predict.parts import parts_folder, read_manifest
from geoseg.spec import TileSpec
from tests.conftest import NORTH_UP, levels_model

CLASSES = 150
STEP_BYTES = 30 * 10**6


@pytest.fixture(scope="module")
def model():
    return levels_model(CLASSES, tile=TileSpec(64, 16, min_px=1))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    values = np.random.default_rng(0).integers(0, CLASSES, (1, 150, 3000)).astype(np.uint8)
    path = tmp_path_factory.mktemp("wide") / "wide.tif"
    size = {"width": 3000, "height": 150, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:32633", "transform": NORTH_UP}
    with rasterio.open(path, "w", driver="GTiff", **size, **place) as dataset:
        dataset.write(values)
    return path


@pytest.fixture
def limits(model, wide, tmp_path):
    """Return a budget that the usual strips keep to, and one that is too small for them."""
    predict_raster(model, wide, tmp_path / "first.tif")  # the process is as large as it gets
    need = plan_raster(model, wide, tmp_path / "o.tif")["memory_bytes"]
    return need + STEP_BYTES, need - STEP_BYTES


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.mark.parametrize("option", [{}, {"gsd": 0.45}, {"tta": "d4"}], ids=str)
def test_strips_narrow_until_the_plan_fits(make_raster, tmp_path, option):
    model = levels_model(CLASSES, tile=TileSpec(256, 64, min_px=1))
    raster = tmp_path / "sparse.tif"
    place = {"crs": "EPSG:32633", "transform": NORTH_UP}
    size = {"width": 16_000, "height": 1000, "count": 1, "dtype": "uint8"}
    with rasterio.open(raster, "w", driver="GTiff", sparse_ok=True, tiled=True, **size, **place):
        pass
    free = PredictOptions(max_memory_bytes=10**12, **option)
    usual = plan_raster(model, raster, tmp_path / "o.tif", options=free)
    limit = usual["memory_bytes"] - 4 * STEP_BYTES
    tight = plan_raster(
        model, raster, tmp_path / "o.tif", options=replace(free, max_memory_bytes=limit)
    )
    assert tight["memory_bytes"] <= limit
    assert tight["panels"] > usual["panels"]
    assert tight["tiles"] > usual["tiles"]
    assert any("keep to --max-memory" in note for note in tight["notes"])
    assert not any("keep to --max-memory" in note for note in usual["notes"])


def test_the_bytes_are_the_same(model, wide, limits, tmp_path):
    made = []
    for name, limit in zip(("loose.tif", "tight.tif"), limits, strict=True):
        options = PredictOptions(max_memory_bytes=limit)
        result = predict_raster(model, wide, tmp_path / name, options=options)
        made.append((result.tiles, (tmp_path / name).read_bytes()))
    (tiles, reference), (more_tiles, narrow) = made
    assert more_tiles > tiles
    assert narrow == reference
    assert np.array_equal(read(tmp_path / "tight.tif"), read(wide))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["loose first", "tight first"])
def test_what_has_begun_keeps_its_strips(model, wide, limits, tmp_path, order):
    out = tmp_path / "shared.tif"
    strips = []
    for index, which in enumerate(order, 1):
        # The second one is allowed what its strips need, but has begun with the first one's.
        limit = limits[which] if index == 1 else limits[0]
        options = PredictOptions(max_memory_bytes=limit, shard=(index, 2))
        predict_raster(model, wide, out, options=options)
        strips.append(read_manifest(parts_folder(out))["strip_tiles"])
    assert strips[0] == strips[1]
    assert (strips[0] is None) == (order[0] == 0)
    assemble(parts_folder(out), out, overwrite=False, partial=False)
    assert np.array_equal(read(out), read(wide))


def test_other_panels_are_not_mixed(model, wide, limits, tmp_path, monkeypatch):
    out = tmp_path / "shared.tif"
    options = PredictOptions(max_memory_bytes=limits[1], shard=(1, 2))
    predict_raster(model, wide, out, options=options)
    # As if this one had looked before the other began.
    monkeypatch.setattr("geoseg.predict.run.read_manifest", lambda _: None)
    with pytest.raises(PartsMismatchError, match="other panels, for another --max-memory"):
        predict_raster(
            model, wide, out, options=PredictOptions(max_memory_bytes=limits[0], shard=(2, 2))
        )


def test_what_not_even_a_narrow_strip_fits_is_refused(model, wide, tmp_path):
    with pytest.raises(OutOfMemoryError, match="--max-memory allows"):
        predict_raster(
            model, wide, tmp_path / "o.tif", options=PredictOptions(max_memory_bytes=10**8)
        )
    assert not (tmp_path / "o.tif.parts").exists()


GLIBC = """
import time
from pathlib import Path

import numpy as np

from geoseg.predict.memory import FreedMemory, keep_freed_memory


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20


keep_freed_memory()
freed = FreedMemory()
before = resident_mb()
blocks = [np.ones(2**18, np.uint8) for _ in range(800)]
held = blocks[::100]
del blocks
freed.give_back()
kept = resident_mb() - before
freed.give_back(now=True)
print(kept, resident_mb() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's heap")
def test_freed_memory_stays_until_it_is_given_back():
    """Blocks that stay among freed ones do not hold the pages between them."""
    done = subprocess.run(
        [sys.executable, "-c", GLIBC], capture_output=True, text=True, check=True, timeout=60
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 150
    assert left < 50
