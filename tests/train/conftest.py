"""Small runs on four real chips."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoseg.config.run import (
    AugmentConfig,
    ClassConfig,
    DataConfig,
    FilesConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrainerConfig,
)
from geoseg.errors import InterruptedRunError
from geoseg.listener import Listener
from tests.conftest import ROOT

CHIPS = ROOT / "tests" / "data" / "dubai"
NAMES = ("building", "land", "road", "vegetation", "water")


class Hearing(Listener):
    """Notes what it is told, and stops the run after a step."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.stop_after = stop_after
        self.steps: list[int] = []
        self.said: list[str] = []
        self.plans: list[dict[str, Any]] = []

    def start(self, plan: dict[str, Any]) -> None:
        self.plans.append(plan)

    def progress(self, done: int, total: int, pixels: int) -> None:
        self.steps.append(done)

    def log(self, level: str, message: str) -> None:
        self.said.append(message)

    def check(self) -> None:
        if self.steps and self.steps[-1] >= self.stop_after:
            raise InterruptedRunError("stop")


def chips(folder: Path, *numbers: int) -> FilesConfig:
    """Return the files of some of the four chips."""
    return FilesConfig(
        tuple(str(folder / f"{n}.jpg") for n in numbers),
        tuple(str(folder / f"{n}.png") for n in numbers),
    )


@pytest.fixture(scope="session")
def small_chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the upper left 80 px of the four chips."""
    folder = tmp_path_factory.mktemp("chips")
    for path in [*CHIPS.glob("*.jpg"), *CHIPS.glob("*.png")]:
        with Image.open(path) as image:
            image.crop((0, 0, 80, 80)).save(folder / path.name)
    return folder


@pytest.fixture
def make_run(tmp_path: Path, small_chips: Path) -> Callable[..., RunConfig]:
    """Return a factory of small runs: sections by name, trainer values as they are."""

    def make(name: str = "run", **values: Any) -> RunConfig:
        sections = {
            "model": ModelConfig("segnext_t"),
            "data": DataConfig(
                kind="folder",
                train=chips(small_chips, 0, 1, 2),
                val=chips(small_chips, 3),
                classes=tuple(ClassConfig(i, n) for i, n in enumerate(NAMES)),
                mean=(100.0, 100.0, 100.0),
                std=(50.0, 50.0, 50.0),
            ),
            "augment": AugmentConfig("remote_sensing", crop_px=64),
            "optim": OptimConfig(lr=1e-3, warmup_steps=2),
        }
        sections |= {
            key: values.pop(key)
            for key in list(values)
            if key in {*sections, "card", "loss", "evaluation"}
        }
        trainer = {
            "steps": 4,
            "batch_size": 2,
            "val_every_steps": 2,
            "workers": 0,
            "log_every_steps": 1,
            "accelerator": "cpu",
        }
        return RunConfig(
            str(tmp_path / name), **sections, trainer=TrainerConfig(**(trainer | values))
        )

    return make
