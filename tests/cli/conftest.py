"""The command line run in this process, and a small model file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from geoseg.checkpoint import save_model
from geoseg.cli import main
from geoseg.models import create_model
from geoseg.spec import SPEC_KEY, Architecture, ModelSpec, TileSpec
from tests.cli import process
from tests.conftest import NORTH_UP, make_spec

TILE_PX = 512
PANEL_PX = 8192  # rows of a panel that is 1024 px wide


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def geoseg(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs the command line and gives exit code, stdout and stderr."""

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Done(int(caught.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SegNeXt-T of three classes with random weights and small tiles."""
    torch.manual_seed(0)
    spec = make_spec(
        3, 3, mean=127, std=60, architecture=Architecture("segnext_t"), tile=TileSpec(64, 16)
    )
    folder = tmp_path_factory.mktemp("model")
    return save_model(folder / "m.safetensors", create_model("segnext_t", num_classes=3), spec)


@pytest.fixture
def scene(make_raster: Callable[..., Path]) -> Path:
    return make_raster(np.random.default_rng(0).integers(0, 255, (3, 150, 130)).astype(np.uint8))


@dataclass
class Tiny:
    """A convolution in an ONNX file, and the same in torch."""

    path: Path
    network: nn.Module
    spec: ModelSpec


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Return a network that runs millions of pixels in a second and takes no time to load."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3, padding=1).eval()
    spec = make_spec(3, 4, mean=127, std=60, tile=TileSpec(TILE_PX, 0, fixed=True, min_px=TILE_PX))
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight", "bias"], ["y"], pads=[1, 1, 1, 1])],
        "tiny",
        [helper.make_tensor_value_info("x", real, ["batch", 3, TILE_PX, TILE_PX])],
        [helper.make_tensor_value_info("y", real, ["batch", 4, TILE_PX, TILE_PX])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    file = helper.make_model(graph, opset_imports=opset, ir_version=10)
    file.metadata_props.add(key=SPEC_KEY, value=spec.to_json())
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(file, path)
    return Tiny(path, network, spec)


@pytest.fixture(scope="session")
def long_raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a raster of four panels; the third holds more detail, and so needs more disk."""
    rng = np.random.default_rng(0)
    size = (3, 4 * PANEL_PX // 64, 1024 // 64)
    values = rng.integers(0, 255, size).astype(np.uint8).repeat(64, 1).repeat(64, 2)
    detail = rng.integers(0, 255, (3, 100, 1024 // 8)).astype(np.uint8)
    values[:, 2 * PANEL_PX + 1024 :][:, :800] = detail.repeat(8, 1).repeat(8, 2)
    path = tmp_path_factory.mktemp("long") / "long.tif"
    place = {"crs": "EPSG:32633", "transform": NORTH_UP, "tiled": True, "compress": "zstd"}
    height, width = values.shape[1:]
    shape = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as dataset:
        dataset.write(values)
    return path


@pytest.fixture(scope="session")
def whole(tiny: Tiny, long_raster: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run: ``m.tif`` and ``m.fgb`` with what goes along."""
    folder = tmp_path_factory.mktemp("whole")
    words = (tiny.path, long_raster, folder / "m.tif", "--vector", folder / "m.fgb")
    code, _, err = process.run("predict", *words, "--progress", "none")
    assert code == 0, err
    return folder
