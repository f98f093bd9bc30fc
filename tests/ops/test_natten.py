"""The package natten as a backend: what it refuses, and equality where it runs."""

import importlib.util
import sys
from types import ModuleType

import pytest
import torch

from geoseg.errors import BackendUnavailableError
from geoseg.ops import _natten, reference
from geoseg.ops.neighborhood_attention import rope_angles

needs_natten = pytest.mark.skipif(
    importlib.util.find_spec("natten") is None,
    reason="natten was not compared: the package natten is not installed",
)


@pytest.fixture
def fresh():
    """Forget what was found out about the package, before and after."""
    _natten.unavailable_reason.cache_clear()
    yield
    _natten.unavailable_reason.cache_clear()


@pytest.fixture
def stand_in(monkeypatch):
    """Stand in for a natten whose backends take widths that are powers of two."""
    backends = ModuleType("natten.backends")
    backends.get_compatible_backends = lambda q, k, v, torch_compile: (
        ["flex-fna"] if q.shape[-1].bit_count() == 1 else []
    )
    monkeypatch.setitem(sys.modules, "natten", ModuleType("natten"))
    monkeypatch.setitem(sys.modules, "natten.backends", backends)


@pytest.mark.usefixtures("fresh")
def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    def missing(name):
        raise _natten.PackageNotFoundError(name)

    monkeypatch.setattr(_natten, "version", missing)
    assert _natten.unavailable_reason() == (
        "the package natten is not installed (pip install 'geoseg[natten]')"
    )


@pytest.mark.usefixtures("fresh")
def test_an_old_package_is_refused(monkeypatch):
    monkeypatch.setattr(_natten, "version", lambda _: "0.17.5+torch250cu124")
    assert _natten.unavailable_reason() == (
        "natten 0.17.5+torch250cu124 is installed, 0.20.1 or later is needed "
        "(pip install -U natten)"
    )


@pytest.mark.usefixtures("fresh")
def test_a_broken_package_is_reported(monkeypatch):
    def broken(name):
        raise ImportError("libnatten.so: undefined symbol")

    monkeypatch.setattr(_natten, "version", lambda _: "0.21.7")
    monkeypatch.setattr(_natten, "import_module", broken)
    assert _natten.unavailable_reason() == (
        "natten 0.21.7 is installed but cannot be imported: libnatten.so: undefined symbol"
    )


@pytest.mark.usefixtures("stand_in")
def test_refusals_are_sentences():
    q = torch.zeros(1, 9, 12, 2, 32)
    bias = torch.zeros(2, 9, 9)
    assert _natten.refusal(q, 5, None, None) is None
    assert _natten.refusal(q, 5, bias, None) == "NATTEN has no relative-position bias since 0.20"
    assert _natten.refusal(q[:0], 5, None, None) == "NATTEN takes no empty batch"
    assert _natten.refusal(q, 11, None, None) == (
        "NATTEN needs maps of at least 11 x 11 pixels for this window, this one has 9 x 12"
    )
    assert _natten.refusal(torch.zeros(1, 9, 9, 4, 36), 5, None, None) == (
        "no backend of NATTEN takes head width 36 in float32 on cpu here (its CUDA kernels take "
        "multiples of 8, its other form powers of two from 8)"
    )
    leaf = torch.zeros(1, 9, 9, 2, 32, requires_grad=True)
    assert _natten.refusal(leaf, 5, None, None) == "NATTEN has no gradients on CPU"


@pytest.mark.usefixtures("stand_in")
def test_what_natten_cannot_take_raises_and_does_not_fall_back():
    q = torch.zeros(1, 9, 9, 2, 32)
    with pytest.raises(BackendUnavailableError, match="'natten' was asked for, but NATTEN has no"):
        _natten.na2d(q, q, q, 5, torch.zeros(2, 9, 9), 0.3, None)


# What natten 0.21 calls of PyTorch's flex attention: https://github.com/SHI-Labs/NATTEN
@pytest.mark.filterwarnings("ignore:return_lse is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@needs_natten
@pytest.mark.parametrize("rotary", [False, True], ids=["no rope", "rope"])
@pytest.mark.parametrize(("size", "kernel"), [((11, 14), 11), ((9, 20), 5), ((7, 7), 7)], ids=str)
def test_equals_gathering(size, kernel, rotary):
    if _natten.unavailable_reason() is not None:
        pytest.skip(f"natten was not compared: {_natten.unavailable_reason()}")
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(2, *size, 3, 2, 16, generator=g).unbind(3)
    angles = [torch.randn(length, 4, generator=g) for length in size]
    rope = tuple(torch.stack([a.sin(), a.cos()], dim=-1) for a in angles) if rotary else None
    made = _natten.na2d(q, k, v, kernel, None, 0.3, rope)
    if rope is not None:
        q, k = (reference.rotate(t, *rope_angles(rope)) for t in (q, k))
    exact = reference.neighborhood_attention(*(t.double() for t in (q, k, v)), kernel, None, 0.3)
    assert made.is_contiguous()
    assert float((made - exact).norm() / exact.norm()) <= 1e-6
