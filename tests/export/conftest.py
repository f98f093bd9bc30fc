"""One exported file of each family for the whole session: an export takes seconds."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import pytest
import rasterio
import torch

import geoseg
from geoseg.checkpoint import load_model, save_model
from geoseg.export import ExportOptions, ExportReport, export_model
from geoseg.models import create_model
from geoseg.segmenter import Segmenter
from geoseg.spec import Architecture, BandSpec, ModelSpec, TileSpec
from tests.conftest import make_spec

SIZES = {"segnext_t": 64, "segman_t": 224}
SCENE = Path(geoseg.__file__).parent / "assets" / "banepa_scene.tif"  # of what is installed
BANDS = (
    BandSpec("red", 113.6, 49.7),
    BandSpec("green", 113.6, 43.5),
    BandSpec("blue", 106.5, 43.7),
)


class Exported(NamedTuple):
    """A model, its file, and what was exported of it."""

    segmenter: Segmenter
    model: Path
    report: ExportReport


def varied_model(name: str, side: int) -> tuple[torch.nn.Module, ModelSpec]:
    """Return a network of random weights that gives every class to some pixels of the scene."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=4).eval()
    generator = torch.Generator().manual_seed(1)
    for key, tensor in network.state_dict().items():
        if "rpb" in key:  # zero at the start: they would not be tested
            tensor.normal_(0, 0.5, generator=generator)
        elif key.endswith("running_mean"):
            tensor.normal_(0, 0.1, generator=generator)
        elif key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
    spec = make_spec(
        name=f"test-{name}",
        architecture=Architecture(name),
        gsd_m=(0.1, 0.2),
        temperature=1.5,
        licence="CC0-1.0",
        tile=TileSpec(side, side // 4, min_px=side, multiple_px=32),
    )
    spec = dataclasses.replace(spec, bands=BANDS)
    with rasterio.open(SCENE) as scene, torch.inference_mode():
        values = torch.from_numpy(scene.read(window=((0, 448), (0, 448))))[None]
        logits = Segmenter(network, spec).eval()(values)
        classify = network.decoder.conv_seg
        classify.weight /= logits.std((0, 2, 3)).view(-1, 1, 1, 1) / 2
        logits = Segmenter(network, spec).eval()(values)
        classify.bias -= logits.mean((0, 2, 3))
    return network, spec


def exported(name: str, folder: Path) -> Exported:
    network, spec = varied_model(name, SIZES[name])
    model = save_model(folder / f"{name}.safetensors", network, spec)
    report = export_model(model, folder / f"{name}.onnx", ExportOptions())
    return Exported(load_model(model), model, report)


@pytest.fixture(scope="session")
def segnext(tmp_path_factory):
    pytest.importorskip("onnxscript")
    return exported("segnext_t", tmp_path_factory.mktemp("segnext"))


@pytest.fixture(scope="session")
def segman(tmp_path_factory):
    pytest.importorskip("onnxscript")
    return exported("segman_t", tmp_path_factory.mktemp("segman"))
