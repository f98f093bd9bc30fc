"""``geoseg predict`` with .onnx and .pt2 files gives the map of the network in Python."""

import numpy as np
import pytest
import rasterio
import torch

from geoseg.predict import predict_raster
from geoseg.segmenter import Segmenter
from geoseg.spec import SPEC_KEY
from tests.cli.process import run


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1), dataset.tags(), dataset.transform


@pytest.fixture
def expected(tiny, scene, tmp_path):
    """Return the map that the network itself gives in this process."""
    predict_raster(Segmenter(tiny.network, tiny.spec).eval(), scene, tmp_path / "python.tif")
    return read(tmp_path / "python.tif")


@pytest.fixture
def pt2(tiny, tmp_path):
    tile = tiny.spec.tile.size_px
    program = torch.export.export(tiny.network, (torch.zeros(1, 3, tile, tile),))
    path = tmp_path / "tiny.pt2"
    torch.export.save(program, path, extra_files={SPEC_KEY: tiny.spec.to_json()})
    return path


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_file_gives_the_map_of_its_network(kind, tiny, scene, expected, tmp_path, request):
    path = tiny.path if kind == "onnx" else request.getfixturevalue("pt2")
    code, said, err = run("predict", path, scene, tmp_path / "m.tif", "--progress", "none")
    assert (code, said, err) == (0, f"{tmp_path / 'm.tif'}\n", "")
    predict_raster(path, scene, tmp_path / "same.tif")
    assert (tmp_path / "m.tif").read_bytes() == (tmp_path / "same.tif").read_bytes()
    ids, tags, transform = read(tmp_path / "m.tif")
    assert len(np.unique(ids)) > 1
    assert (ids == expected[0]).mean() > 0.9999
    assert transform == expected[2]
    differ = {key for key in tags if tags[key] != expected[1][key]}
    assert differ == {"GEOSEG_MODEL_SHA256"}  # of the file
