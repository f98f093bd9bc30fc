"""Run files, the smallest of each family and data set: two steps on data of their layout."""

import math
import re

import numpy as np
import pytest

from geoseg.checkpoint import load_model
from geoseg.config.parse import parse_config
from geoseg.data.published import PUBLISHED
from geoseg.train.record import read_rows
from geoseg.train.run import train
from tests.conftest import ROOT
from tests.data.published_files import NAMES, pair_writer, write_published

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NAME = re.compile(r"(segman|segnext)_([tsbl])_(.+?)((_eighth|_scratch|_weighted)*)")
PRETRAINING = {"imagenet", "masked"}  # tested with their commands
SIDE_PX = {"segman": 224, "segnext": 64}  # the smallest that a family trains on
QUICK = ("_t_ade20k", "_t_dubai")  # lists of a set, and folders; the others take the same way
LABELS = 4  # every published set knows the ids below


def smallest():
    """Return the run files of the smallest models, by family and data set."""
    found = {}
    for path in (ROOT / "configs").glob("*.yaml"):
        match = NAME.fullmatch(path.stem)
        family, size, data, more = match.group(1, 2, 3, 4)
        if data not in PRETRAINING:
            order = "tsbl".index(size), more, path.stem
            found[family, data] = min(order, found.get((family, data), order))
    return [
        pytest.param(name, marks=[] if name.endswith(QUICK) else [pytest.mark.slow])
        for name in sorted(name for _, _, name in found.values())
    ]


def write_data(put_pair, data, root, side_px):
    """Write what the section of a run file asks for, below a folder."""
    rng = np.random.default_rng(0)

    def mask(_k):
        ids = rng.integers(0, LABELS, (side_px // 8, side_px // 8), dtype=np.uint8)
        return ids.repeat(8, axis=0).repeat(8, axis=1)

    if data.kind in PUBLISHED:
        write_published(put_pair, data.kind, root, below=f"{data.root}/", mask=mask)
        return
    colors = [[int(c.color[i : i + 2], 16) for i in (1, 3, 5)] for c in data.classes]
    for split, files in (("train", data.train), ("val", data.val)):
        for name in NAMES[split]:
            ids = mask(0) % len(colors)
            values = ids if data.labels_as == "ids" else np.array(colors)[ids].transpose(2, 0, 1)
            put_pair(f"{files.images}/{name}.png", f"{files.labels}/{name}.png", values)


@pytest.mark.parametrize("name", smallest())
def test_two_steps(name, make_raster, tmp_path, monkeypatch):
    side_px = SIDE_PX[name.partition("_")[0]]
    config = parse_config(
        ROOT / "configs" / f"{name}.yaml",
        [
            "model.encoder_weights=null",  # nothing is downloaded
            f"augment.crop_px={side_px}",
            "trainer.steps=2",
            "trainer.batch_size=2",
            "trainer.devices=1",
            "trainer.workers=0",
            "trainer.log_every_steps=1",
            "evaluation.base_size_px=null",  # else small images are made large
            "card.measure_bf16=false",
        ],
    )
    monkeypatch.chdir(tmp_path)  # run files name folders from where the command is given
    write_data(pair_writer(make_raster), config.data, tmp_path, side_px)
    result = train(config, device="cpu")
    rows = read_rows(result.out / "metrics.csv")
    assert [int(row["step"]) for row in rows] == [1, 2]
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    model = load_model(result.model)
    known = PUBLISHED.get(config.data.kind, config.data)
    assert [c.name for c in model.spec.classes] == [c.name for c in known.classes]
    assert model.network.num_classes == len(known.classes)
