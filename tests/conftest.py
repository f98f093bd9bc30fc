"""The raster factory, small models, and where optional data lies."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch import nn

from geoseg import _native
from geoseg.raster.gdal import quiet_georeference
from geoseg.segmenter import Segmenter
from geoseg.spec import Architecture, BandSpec, ClassSpec, ModelSpec, TileSpec

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"

NORTH_UP = Affine(0.3, 0.0, 500000.0, 0.0, -0.3, 5000000.0)
SOUTH_UP = Affine(0.3, 0.0, 500000.0, 0.0, 0.3, 5000000.0)
ROTATED = Affine.translation(500000, 5000000) @ Affine.rotation(27) @ Affine.scale(0.3, -0.3)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-kernels", action="store_true", help="run on the reference path everywhere"
    )
    parser.addoption("--slow", action="store_true", help="run the slow tests too")
    parser.addoption("--network", action="store_true", help="download published files and use them")


def pytest_configure(config: pytest.Config) -> None:
    # Two cores are what the tests are made for; more would change nothing but the noise. Processes
    # that test side by side get one each: threads that wait for each other's cores take for ever.
    beside = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, min(2, (os.cpu_count() or 1) // beside)))
    if config.getoption("--without-kernels"):
        _native._load = lambda: (None, "switched off for this test run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": None if config.getoption("--slow") else "slow: run by make ci-full",
        "gpu": None if torch.cuda.is_available() else "needs a CUDA device",
        "network": None
        if config.getoption("--network")
        else "downloads published files: make verify-official",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def make_raster(tmp_path: Path) -> Callable[..., Path]:
    """Return a factory of GeoTIFFs: the only one the tests use."""

    def make(
        values: np.ndarray,
        name: str = "raster.tif",
        *,
        transform: Affine | None = NORTH_UP,
        crs: str | None = "EPSG:32633",
        mask: np.ndarray | None = None,
        colors: tuple[str, ...] = (),
        descriptions: tuple[str, ...] = (),
        tags: dict[str, str] | None = None,
        scales: tuple[float, ...] = (),
        offsets: tuple[float, ...] = (),
        **profile: object,
    ) -> Path:
        values = values if values.ndim == 3 else values[None]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = values.shape
        profile = {"driver": "GTiff", "dtype": values.dtype.name, "crs": crs, **profile}
        with (
            quiet_georeference(),
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", height=height, width=width, count=count, **profile) as dataset,
        ):
            if transform is not None:
                dataset.transform = transform
            if colors:
                dataset.colorinterp = [rasterio.enums.ColorInterp[c] for c in colors]
            if scales:
                dataset.scales = scales
                dataset.offsets = offsets or (0.0,) * len(scales)
            for i, text in enumerate(descriptions, start=1):
                dataset.set_band_description(i, text)
            if tags:
                dataset.update_tags(**tags)
            dataset.write(values)
            if mask is not None:
                dataset.write_mask(mask)
        return path

    return make


def make_spec(
    bands: int = 3,
    classes: int = 4,
    *,
    names: tuple[str, ...] = (),
    ids: tuple[int, ...] = (),
    mean: float = 0.0,
    std: float = 1.0,
    tile: TileSpec | None = None,
    **fields: object,
) -> ModelSpec:
    """Return the record of a small model."""
    names = names or (("red", "green", "blue") if bands == 3 else tuple("abcdefghij"[:bands]))
    ids = ids or tuple(range(classes))
    values: dict[str, object] = {
        "name": "small",
        "architecture": Architecture("test"),
        "bands": tuple(BandSpec(n, mean=mean, std=std) for n in names),
        "dtype": "uint8",
        "classes": tuple(
            ClassSpec(c, f"class {c}", f"#{(c * 37) % 256:02x}{(c * 91) % 256:02x}40") for c in ids
        ),
        "tile": tile or TileSpec(64, 16, min_px=1),
    }
    return ModelSpec(**{**values, **fields})


class Levels(nn.Module):
    """Class k where the first band is nearest to k: an identity for bands that hold class ids."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("levels", torch.arange(float(classes)).view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -((x[:, :1] - self.levels) ** 2)


def small_conv(bands: int = 3, classes: int = 4, *, seed: int = 0) -> nn.Sequential:
    """Return a network of receptive-field radius 4 with fixed random weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(bands, 8, 5, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, classes, 5, padding=2),
    ).eval()


def levels_model(classes: int = 4, **fields: object) -> Segmenter:
    """Return an identity segmenter of one band."""
    spec = make_spec(1, classes, **fields)
    return Segmenter(Levels(classes), spec).eval()


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real data that is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"real data not run: no folder {SHARED.name!r} beside the project")
    return SHARED
