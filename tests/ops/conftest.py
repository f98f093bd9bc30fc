"""The emulator of CUDA grids, one for the session: building it takes seconds."""

import pytest

from geoseg.ops import _cuda_driver
from tests.ops.emulator import COMPILER, Emulator


@pytest.fixture(scope="session")
def cuda_emulator(tmp_path_factory):
    """Return an emulator whose libraries are built when they are first launched."""
    if COMPILER is None:
        pytest.skip("CUDA kernels were not emulated: no g++")
    return Emulator(tmp_path_factory.mktemp("emulator"))


@pytest.fixture
def emulator(cuda_emulator, monkeypatch):
    """Run the CUDA backend's launches on the emulator, forwards."""
    monkeypatch.setattr(_cuda_driver, "launch", cuda_emulator.launch)
    cuda_emulator.reversed, cuda_emulator.launches = False, []
    return cuda_emulator
