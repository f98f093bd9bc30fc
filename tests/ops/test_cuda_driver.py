"""How kernels are launched, with the driver's C interface played by a stand-in."""

import ctypes
import types

import pytest
import torch

from geoseg.errors import BackendUnavailableError
from geoseg.ops import _cuda, _cuda_driver, _nvrtc, reference
from geoseg.ops._cuda_arguments import Ss2dArguments
from geoseg.ops._cuda_driver import Grid, Kernel

STREAM = 0x5EED
CACHED = ("_function", "_most_shared_bytes", "_module", "_device", "_context", "_load")


class Driver:
    """Answers like libcuda, notes what it is asked, and can pass launches on."""

    def __init__(self):
        self.calls, self.names, self.on_launch, self.failing = [], {}, None, None
        self.fixed_shared = 0

    def __getattr__(self, name):
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append((name, arguments))
            if name == self.failing:
                return 700
            return getattr(self, f"answer_{name.lower()}", lambda *_: 0)(*arguments) or 0

        return call

    def answer_cudeviceget(self, device, index):
        device._obj.value = 10 + index

    def answer_cudeviceprimaryctxretain(self, context, device):
        context._obj.value = 100 + device

    def answer_cumoduleloaddata(self, module, image):
        assert image == b"cubin"
        module._obj.value = 0x1000

    def answer_cumodulegetfunction(self, function, module, name):
        assert module.value == 0x1000
        function._obj.value = 0x2000 + len(self.names)
        self.names[function._obj.value] = name.decode()

    def answer_cudevicegetattribute(self, value, attribute, device):
        value._obj.value = 64 * 1024

    def answer_cufuncgetattribute(self, value, attribute, function):
        assert attribute == 1
        value._obj.value = self.fixed_shared

    def answer_cugeterrorname(self, status, name):
        name._obj.value = b"CUDA_ERROR_ILLEGAL_ADDRESS"

    def answer_culaunchkernel(self, function, *rest):
        if self.on_launch is not None:
            self.on_launch(self.names[function.value], *rest)

    def asked(self, name):
        return [arguments for called, arguments in self.calls if called == name]


@pytest.fixture
def driver(monkeypatch):
    """Put a stand-in in the driver's place and forget what was loaded."""
    stand_in = Driver()
    for name in CACHED:
        getattr(_cuda_driver, name).cache_clear()
    monkeypatch.setattr(_cuda_driver, "_load", lambda: (stand_in, None))
    monkeypatch.setattr(_nvrtc, "compile_cached", lambda *_, **__: b"cubin")
    monkeypatch.setattr(_nvrtc, "supported_architectures", lambda: (75, 80, 90))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    stream = types.SimpleNamespace(cuda_stream=STREAM)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    yield stand_in
    for name in CACHED[:-1]:
        getattr(_cuda_driver, name).cache_clear()


class Numbers(ctypes.Structure):
    _fields_ = (("one", ctypes.c_int), ("two", ctypes.c_float))


def start(driver, *, shared=0, device="cuda:1", entry="ss2d_output_8"):
    grid = Grid((7, 5, 3), 32, shared)
    _cuda_driver.launch(Kernel("ss2d", entry, 0), grid, Numbers(4, 2.5), torch.device(device))


def test_launch_passes_grid_stream_and_arguments(driver):
    seen = []
    driver.on_launch = lambda *rest: seen.append(
        (*rest[:8], rest[8].value, Numbers.from_address(rest[9][0]).one, rest[10])
    )
    start(driver, shared=1024)
    assert seen == [("geoseg_ss2d_output_8", 7, 5, 3, 32, 1, 1, 1024, STREAM, 4, None)]


def test_launch_runs_in_the_context_of_the_tensors_device(driver):
    start(driver)
    pushed = [arguments[0].value for arguments in driver.asked("cuCtxPushCurrent_v2")]
    assert pushed == [111]
    order = [name for name, _ in driver.calls]
    assert order.index("cuCtxPushCurrent_v2") < order.index("cuModuleLoadData")
    assert order[-2:] == ["cuLaunchKernel", "cuCtxPopCurrent_v2"]


def test_a_device_without_index_is_the_current_one(driver):
    start(driver, device="cuda")
    assert driver.asked("cuDeviceGet")[0][1] == 0


def test_modules_are_loaded_once_per_device_and_not_inside_a_capture(driver):
    for device in ("cuda:0", "cuda:0", "cuda:1"):
        start(driver, device=device)
    start(driver, device="cuda:1", entry="ss2d_sum_8")
    assert len(driver.asked("cuModuleLoadData")) == 2
    assert len(driver.asked("cuModuleGetFunction")) == 3
    names = [name for name, _ in driver.calls]
    # Lazy drivers load an entry's code when it is asked for.
    at = names.index("cuModuleLoadData")
    assert names[at - 1 : at + 3] == [
        "cuThreadExchangeStreamCaptureMode",
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuThreadExchangeStreamCaptureMode",
    ]


def test_large_shared_memory_is_asked_for(driver):
    start(driver, shared=48 * 1024)
    assert driver.asked("cuFuncSetAttribute") == []
    start(driver, shared=48 * 1024 + 4)
    ((_, attribute, value),) = driver.asked("cuFuncSetAttribute")
    assert (attribute, value) == (8, 64 * 1024)
    with pytest.raises(BackendUnavailableError, match="at most 65536 bytes .* needs 70000"):
        start(driver, shared=70000)


def test_what_a_kernel_has_of_its_own_is_not_asked_for_twice(driver):
    driver.fixed_shared = 1024
    start(driver, shared=63 * 1024)
    ((_, _, value),) = driver.asked("cuFuncSetAttribute")
    assert value == 63 * 1024
    with pytest.raises(BackendUnavailableError, match="at most 64512 bytes"):
        start(driver, shared=63 * 1024 + 4)


def test_a_failing_launch_says_what_failed(driver):
    driver.failing = "cuLaunchKernel"
    with pytest.raises(BackendUnavailableError, match="launch ss2d_output_8 .*_ILLEGAL_ADDRESS"):
        start(driver)
    assert driver.calls[-2][0] == "cuCtxPopCurrent_v2"


def test_the_whole_way_from_tensors_to_kernels(driver, cuda_emulator):
    """The stand-in hands the packed arguments to the emulated kernel."""

    def run(name, x, y, z, threads, _y, _z, shared, _stream, packed, _extra):
        arguments = Ss2dArguments.from_address(packed[0])
        kernel = Kernel("ss2d", name.removeprefix("geoseg_"), 0)
        cuda_emulator.launch(kernel, Grid((x, y, z), threads, shared), arguments, None)

    driver.on_launch = run
    torch.manual_seed(0)
    inputs = [
        *(torch.randn(1, 6, 7, 8), torch.randn(1, 6, 7, 4, 4), torch.randn(4, 8, 2)),
        *(torch.randn(4, 8), torch.randn(32, 1), torch.zeros(32)),
    ]
    exact = reference.ss2d_scan(*[t.double() for t in inputs])
    made = _cuda.ss2d_scan(*inputs)
    assert (made - exact).norm() <= 1e-6 * exact.norm()


def test_without_a_device_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _cuda.unavailable_reason.cache_clear()
    assert _cuda.unavailable_reason() == "no CUDA device is usable"
    _cuda.unavailable_reason.cache_clear()


@pytest.mark.parametrize(
    ("capability", "architecture"),
    [
        ((7, 5), 75),
        ((8, 9), 86),  # not known, but a later minor version of one that is
        ((9, 0), 90),
        ((8, 0), None),
        ((6, 1), None),  # known, and older than the kernels are for
        ((11, 0), None),
    ],
    ids=str,
)
def test_the_newest_program_that_a_device_can_run_is_compiled(
    monkeypatch, capability, architecture
):
    monkeypatch.setattr(_nvrtc, "supported_architectures", lambda: (61, 75, 86, 90, 100))
    assert _nvrtc.architecture_for(*capability) == architecture


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        ([(9, 0)], None),
        ([(6, 1), (9, 0)], None),  # a small card for the screen beside it
        ([(6, 1)], "NVRTC 13.2 compiles nothing for Card 0 (sm_61)"),
    ],
    ids=["one", "one of two", "none"],
)
def test_devices_that_nothing_is_compiled_for_are_named(monkeypatch, capabilities, reason):
    for name, answer in {
        "is_available": lambda: True,
        "device_count": lambda: len(capabilities),
        "get_device_capability": lambda i: capabilities[i],
        "get_device_name": lambda i: f"Card {i}",
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    for module in (_nvrtc, _cuda_driver):
        monkeypatch.setattr(module, "unavailable_reason", lambda: None)
    monkeypatch.setattr(_nvrtc, "supported_architectures", lambda: (61, 75, 90))
    monkeypatch.setattr(_nvrtc, "version", lambda: (13, 2))
    _cuda.unavailable_reason.cache_clear()
    assert _cuda.unavailable_reason() == reason
    _cuda.unavailable_reason.cache_clear()


def test_a_launch_on_a_device_that_nothing_is_compiled_for_says_so(driver, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    with pytest.raises(BackendUnavailableError, match=r"device 1 has compute capability 6\.1"):
        start(driver)


def test_without_a_driver_the_reason_is_said(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    _cuda_driver._load.cache_clear()
    assert "was not found; install NVIDIA's driver" in _cuda_driver.unavailable_reason()
    _cuda_driver._load.cache_clear()
