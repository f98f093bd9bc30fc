"""The command line run in this process, and a small model file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from geoseg.checkpoint import save_model
from geoseg.cli import main
from geoseg.models import create_model
from geoseg.spec import Architecture, TileSpec
from tests.conftest import make_spec


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
