"""What the kernels' headers compute: index maps, number formats, layouts of arguments."""

import ctypes

import pytest
import torch

from geoseg.ops import reference
from geoseg.ops._cuda_arguments import (
    Na2dArguments,
    SelectiveScanArguments,
    Ss2dArguments,
    Ss2dProjectArguments,
)
from tests.ops.emulator import COMPILER, SOURCES, build

pytestmark = pytest.mark.skipif(COMPILER is None, reason="CUDA headers were not built: no g++")

CHECKED_FIELDS = {
    Ss2dArguments: ("dy", "parameters", "rank", "slices"),
    SelectiveScanArguments: ("dy", "parameters", "states", "softplus"),
    Na2dArguments: ("v_strides", "dbias", "scale", "columns_at_once"),
    Ss2dProjectArguments: ("q", "pixels", "channels", "rows"),
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Return the headers' functions, compiled for float32, bfloat16 and float16 in memory."""
    folder = tmp_path_factory.mktemp("facts")
    libraries = [build(SOURCES / "facts.cpp", folder, io=io) for io in range(3)]
    for lib in libraries:
        for name in ("load", "softplus2", "logistic"):
            getattr(lib, name).restype = ctypes.c_float
        lib.load.argtypes = (ctypes.c_ushort,)
        lib.store.restype = ctypes.c_ushort
        for name in ("store", "softplus2", "logistic"):
            getattr(lib, name).argtypes = (ctypes.c_float,)
    return libraries


def test_argument_structures_lie_alike_on_both_sides(facts):
    for which, (structure, fields) in enumerate(CHECKED_FIELDS.items()):
        assert ctypes.sizeof(structure) == facts[0].size_of(which)
        offsets = [getattr(structure, name).offset for name in fields]
        assert offsets == [facts[0].offset_of(which, i) for i in range(4)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 1), (5, 8), (12, 3)])
def test_scan_order_is_the_one_of_the_cpu_kernels(facts, height, width):
    assert facts[0].scan_order_differences(height, width) == 0


@pytest.mark.parametrize("kernel", [3, 5, 13])
@pytest.mark.parametrize("extra", [0, 1, 4, 20])
def test_queries_and_keys_see_each_other(facts, kernel, extra):
    length = kernel + extra
    starts = reference.window_starts(length, kernel).tolist()
    assert [facts[0].window_start(i, length, kernel) for i in range(length)] == starts
    for key in range(length):
        seers = [i for i, start in enumerate(starts) if start <= key < start + kernel]
        first, last = facts[0].first_query(key, kernel), facts[0].last_query(key, length, kernel)
        assert seers == list(range(first, last + 1))


@pytest.mark.parametrize(("io", "dtype"), [(1, torch.bfloat16), (2, torch.float16)])
def test_halves_are_read_and_rounded_like_torch(facts, io, dtype):
    raw = torch.arange(0, 65536, 7, dtype=torch.int32)
    exact = raw.to(torch.int16).view(dtype).float()
    read = torch.tensor([facts[io].load(int(i)) for i in raw])
    assert torch.equal(read.isnan(), exact.isnan())
    assert torch.equal(read[~exact.isnan()], exact[~exact.isnan()])
    edges = [0.0, -0.0, 1e-9, -6e-8, 3.05e-5, 6.1e-5, 65504.0, 65519.9, 65520.0, 3.4e38]
    sizes = 10 ** torch.linspace(-9, 6, 3000) * torch.linspace(-1, 1, 3000).sign()
    given = torch.cat(
        [sizes, torch.tensor([*edges, float("inf")]), exact[exact.isfinite()] * 1.004]
    )
    written = torch.tensor([facts[io].store(float(x)) for x in given], dtype=torch.int32)
    assert torch.equal(written.to(torch.int16), given.to(dtype).view(torch.int16))
    nan = torch.tensor(facts[io].store(float("nan")), dtype=torch.int32)
    assert nan.to(torch.int16).view(dtype).isnan()


def test_softplus_is_accurate_for_small_steps_too(facts):
    z = torch.linspace(-60, 60, 4001, dtype=torch.float64)
    units = z / torch.log(torch.tensor(2.0, dtype=torch.float64))
    given = units.float()
    made = torch.tensor([facts[0].softplus2(float(v)) for v in given], dtype=torch.float64)
    back = given.double() * torch.log(torch.tensor(2.0, dtype=torch.float64))
    exact = torch.log1p(torch.exp(-back.abs())) + back.clamp(min=0)
    exact = exact / torch.log(torch.tensor(2.0, dtype=torch.float64))
    assert ((made - exact).abs() / exact).max() < 4e-7
    slope = torch.tensor([facts[0].logistic(float(v)) for v in given], dtype=torch.float64)
    assert ((slope - back.sigmoid()).abs() / back.sigmoid()).max() < 4e-7
