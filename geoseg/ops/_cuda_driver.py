"""Loads compiled kernels into a device and launches them, through the CUDA driver's C interface.

Works in torch's own context and on torch's current stream, allocates nothing, and may be captured
into a CUDA graph once a kernel has run. Nothing is loaded before the first call.
"""

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from geoseg.errors import BackendUnavailableError
from geoseg.ops import _nvrtc

# What every device grants without being asked.
DEFAULT_SHARED_BYTES = 48 * 1024
# CUdevice_attribute and CUfunction_attribute.
MAX_SHARED_BYTES_OPTIN = 97
STATIC_SHARED_BYTES = 1
MAX_DYNAMIC_SHARED_BYTES = 8
# CUstreamCaptureMode: loading a module must not end a capture that runs elsewhere.
CAPTURE_RELAXED = 2


@dataclass(frozen=True)
class Kernel:
    """An entry of a program, compiled for a dtype in memory (0 float32, 1 bfloat16, 2 float16)."""

    program: str
    entry: str
    io: int


@dataclass(frozen=True)
class Grid:
    """Size of a launch: blocks along x, y and z, threads and shared memory of each."""

    blocks: tuple[int, int, int]
    threads: int
    shared_bytes: int


def unavailable_reason() -> str | None:
    """Return why the CUDA driver cannot be used, or None."""
    return _load()[1]


def launch(kernel: Kernel, grid: Grid, arguments: ctypes.Structure, device: torch.device) -> None:
    """Queue a kernel on torch's current stream of a device.

    Args:
        kernel: compiled and loaded first if this process has not used it on this device.
        grid: its size.
        arguments: the kernel's one argument, passed by value.
        device: with an index.

    Raises:
        BackendUnavailableError: the kernel cannot be compiled, loaded or launched.
    """
    index = _index(device)
    driver = _driver()
    with _current(index):
        function = _function(kernel, index, grid.shared_bytes)
        stream = torch.cuda.current_stream(device).cuda_stream
        packed = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        status = driver.cuLaunchKernel(
            function,
            *grid.blocks,
            *(grid.threads, 1, 1),
            grid.shared_bytes,
            ctypes.c_void_p(stream),
            packed,
            None,
        )
    _check(status, f"launch {kernel.entry} with {grid}")


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


@functools.cache
def _function(kernel: Kernel, index: int, shared_bytes: int) -> ctypes.c_void_p:
    """Return a kernel's handle in a device's context, allowed this much shared memory."""
    function, driver = ctypes.c_void_p(), _driver()
    # Drivers may load an entry's code when it is first asked for, not with its module.
    with _beside_captures():
        module = _module(kernel.program, kernel.io, index)
        name = f"geoseg_{kernel.entry}".encode()
        status = driver.cuModuleGetFunction(ctypes.byref(function), module, name)
        _check(status, f"find {kernel.entry}")
        if shared_bytes > DEFAULT_SHARED_BYTES:
            _allow_shared_memory(kernel.entry, function, index, shared_bytes)
    return function


def _allow_shared_memory(
    entry: str, function: ctypes.c_void_p, index: int, shared_bytes: int
) -> None:
    """Let a kernel have all the shared memory there is, so that no later call takes it back."""
    driver, fixed = _driver(), ctypes.c_int()
    status = driver.cuFuncGetAttribute(ctypes.byref(fixed), STATIC_SHARED_BYTES, function)
    _check(status, f"ask for the shared memory of {entry}")
    most = _most_shared_bytes(index) - fixed.value
    if shared_bytes > most:
        raise BackendUnavailableError(
            f"expected at most {most} bytes of shared memory, all that this device has; "
            f"{entry} needs {shared_bytes} for these sizes. Take backend='torch'."
        )
    status = driver.cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED_BYTES, most)
    _check(status, f"give {entry} {most} bytes of shared memory")


@functools.cache
def _most_shared_bytes(index: int) -> int:
    most = ctypes.c_int()
    status = _driver().cuDeviceGetAttribute(
        ctypes.byref(most), MAX_SHARED_BYTES_OPTIN, _device(index)
    )
    _check(status, "ask for the device's shared memory")
    return most.value


@functools.cache
def _module(program: str, io: int, index: int) -> ctypes.c_void_p:
    major, minor = torch.cuda.get_device_capability(index)
    architecture = _nvrtc.architecture_for(major, minor)
    if architecture is None:
        raise BackendUnavailableError(
            f"expected a device that NVRTC compiles for; device {index} has compute capability "
            f"{major}.{minor}. Use another device, or backend='torch'."
        )
    cubin = _nvrtc.compile_cached(program, architecture, io=io)
    module = ctypes.c_void_p()
    _check(_driver().cuModuleLoadData(ctypes.byref(module), cubin), f"load {program}")
    return module


@contextmanager
def _beside_captures() -> Iterator[None]:
    """Let this thread load code for a while without ending a capture that runs somewhere."""
    driver, mode = _driver(), ctypes.c_int(CAPTURE_RELAXED)
    driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))
    try:
        yield
    finally:
        driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))


@functools.cache
def _device(index: int) -> int:
    device = ctypes.c_int()
    _check(_driver().cuDeviceGet(ctypes.byref(device), index), f"find device {index}")
    return device.value


@functools.cache
def _context(index: int) -> ctypes.c_void_p:
    """Return the context that torch uses on a device; it is kept for the life of the process."""
    context = ctypes.c_void_p()
    status = _driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), _device(index))
    _check(status, f"use device {index}")
    return context


@contextmanager
def _current(index: int) -> Iterator[None]:
    """Make a device's context the current one of this thread for a while."""
    driver, before = _driver(), ctypes.c_void_p()
    _check(driver.cuCtxPushCurrent_v2(_context(index)), f"use device {index}")
    try:
        yield
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(before))


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return None, f"{name} was not found; install NVIDIA's driver"
    status = driver.cuInit(0)
    if status != 0:
        return None, f"NVIDIA's driver does not start: {_status_text(driver, status)}"
    return driver, None


def _driver() -> ctypes.CDLL:
    driver, reason = _load()
    if driver is None:
        raise BackendUnavailableError(f"expected a CUDA device; {reason}.")
    return driver


def _check(status: int, doing: str) -> None:
    if status != 0:
        raise BackendUnavailableError(
            f"expected the CUDA driver to {doing}; it answered {_status_text(_driver(), status)}. "
            "Take another backend, or update NVIDIA's driver."
        )


def _status_text(driver: ctypes.CDLL, status: int) -> str:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(status, ctypes.byref(name))
    return (name.value or str(status).encode()).decode()
