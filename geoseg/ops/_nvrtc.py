"""Compiles the CUDA sources with the NVRTC that comes with PyTorch, and keeps the results on disk.

No toolkit and no CUDA header is needed: the sources include only each other. Nothing is loaded
before the first call.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import logging
import os
import sys
import tempfile
from pathlib import Path

import torch

from geoseg.errors import BackendUnavailableError

logger = logging.getLogger(__name__)

OPTIONS = ("--std=c++17",)
OLDEST_ARCHITECTURE = 75  # that the kernels are compiled and tested for
# PyTorch's wheels bring one of them; a toolkit's are found by the loader.
MAJOR_VERSIONS = (13, 12)


def source_folder() -> Path:
    """Return the folder of ``include`` and ``cuda``: installed, or beside a source checkout.

    Raises:
        BackendUnavailableError: the sources are in neither place.
    """
    package = Path(__file__).parent.parent
    for folder in (package / "_lib" / "kernels", package.parent / "kernels"):
        if (folder / "cuda").is_dir():
            return folder
    raise BackendUnavailableError(
        "expected the CUDA sources in the installed package; there are none. Install geoseg again."
    )


@functools.cache
def read_sources() -> dict[str, str]:
    """Return the text of every CUDA source by the name it is included with."""
    folder = source_folder()
    paths = [*(folder / "cuda").glob("*.cu*"), *(folder / "include").glob("cuda_*.h")]
    return {path.name: path.read_text("utf-8") for path in sorted(paths)}


def unavailable_reason() -> str | None:
    """Return why nothing can be compiled here, or None."""
    return _load()[1]


def version() -> tuple[int, int]:
    """Return NVRTC's version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


@functools.cache
def supported_architectures() -> tuple[int, ...]:
    """Return the compute capabilities, times ten, that NVRTC compiles for."""
    lib, count = _library(), ctypes.c_int()
    _check(lib.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    found = (ctypes.c_int * count.value)()
    _check(lib.nvrtcGetSupportedArchs(found))
    return tuple(found)


def architecture_for(major: int, minor: int) -> int | None:
    """Return the capability, times ten, to compile for a device with this one, or None.

    A program for one minor version runs on later ones of the same major version, which NVRTC may
    not know yet.
    """
    able = [n for n in supported_architectures() if n // 10 == major and n % 10 <= minor]
    return max((n for n in able if n >= OLDEST_ARCHITECTURE), default=None)


def compile_cached(program: str, architecture: int, *, io: int) -> bytes:
    """Return a program as a cubin, from the cache where it was compiled before.

    Args:
        program: file of entries without its ending: ``ss2d``, ``selective_scan`` or ``na2d``.
        architecture: compute capability times ten, for example 90.
        io: dtype in memory: 0 float32, 1 bfloat16, 2 float16.

    Raises:
        BackendUnavailableError: NVRTC refused; the message ends with its log.
    """
    options = (*OPTIONS, f"--gpu-architecture=sm_{architecture}", f"-DGEOSEG_IO={io}")
    key = _key(program, options)
    path = cache_folder() / f"{program}-sm{architecture}-{key[:32]}.cubin"
    try:
        return path.read_bytes()
    except OSError:
        logger.info("compiling %s for sm_%d; it is kept for the next time", program, architecture)
    cubin = compile_program(program, options)
    _keep(path, cubin)
    return cubin


def compile_program(program: str, options: tuple[str, ...]) -> bytes:
    """Return a program compiled with NVRTC's options.

    Raises:
        BackendUnavailableError: NVRTC refused; the message ends with its log.
    """
    lib, sources = _library(), read_sources()
    handle = ctypes.c_void_p()
    names = [name for name in sources if name != f"{program}.cu"]
    texts = (ctypes.c_char_p * len(names))(*[sources[name].encode() for name in names])
    included = (ctypes.c_char_p * len(names))(*[name.encode() for name in names])
    flags = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    text, name = sources[f"{program}.cu"].encode(), f"{program}.cu".encode()
    _check(lib.nvrtcCreateProgram(ctypes.byref(handle), text, name, len(names), texts, included))
    try:
        status = lib.nvrtcCompileProgram(handle, len(options), flags)
        if status != 0:
            log = _read(lib, "ProgramLog", handle).rstrip(b"\0").decode("utf-8", "replace")
            raise BackendUnavailableError(
                f"expected NVRTC to compile {program}.cu with {' '.join(options)}; it answered "
                f"{_status_text(lib, status)}. Take another backend, and report this log:\n{log}"
            )
        return _read(lib, "CUBIN", handle)
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(handle))


def cache_folder() -> Path:
    """Return the user's cache folder of compiled kernels; it may not exist yet."""
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(root) / "geoseg" / "cache" / "cuda"
    # The standard asks to ignore a relative path.
    given = os.environ.get("XDG_CACHE_HOME", "")
    root = given if Path(given).is_absolute() else Path.home() / ".cache"
    return Path(root) / "geoseg" / "cuda"


def _key(program: str, options: tuple[str, ...]) -> str:
    parts = [program, *options, *map(str, version())]
    parts += [part for item in read_sources().items() for part in item]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _keep(path: Path, cubin: bytes) -> None:
    """Write a file that readers see whole or not at all; without one if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(cubin)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        logger.info("compiled kernels are not kept: %s", error)


def library_candidates() -> list[str]:
    """Return where NVRTC may be, best first: beside PyTorch, then wherever the loader looks."""
    windows = sys.platform == "win32"
    pattern = "nvrtc64_*.dll" if windows else "libnvrtc.so.*"
    found: list[str] = []
    for folder in _library_folders():
        # The wheel of CUDA 12 brings a second library under another name, for older drivers' sake.
        paths = [path for path in folder.glob(pattern) if ".alt." not in path.name]
        found += [str(path) for path in sorted(paths, reverse=True)]
    names = [
        f"nvrtc64_{major}0_0.dll" if windows else f"libnvrtc.so.{major}"
        for major in _major_versions()
    ]
    return found + names


def _major_versions() -> list[int]:
    """Return PyTorch's own version first: its driver need not take what a newer one makes."""
    own = (torch.version.cuda or "").partition(".")[0]
    return sorted(MAJOR_VERSIONS, key=lambda major: str(major) != own)


def _library_folders() -> list[Path]:
    folders = [Path(torch.__file__).parent / "lib"]
    for major in _major_versions():
        for name in (f"nvidia-cuda-nvrtc-cu{major}", "nvidia-cuda-nvrtc"):
            try:
                files = importlib.metadata.files(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            # DLLs lie in "bin", everything else in "lib".
            folders += [Path(str(f.locate())).parent for f in files if "nvrtc" in f.name]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    for candidate in library_candidates():
        try:
            return ctypes.CDLL(candidate), None
        except OSError:
            continue
    return None, "libnvrtc was not found; install a CUDA build of PyTorch"


def _library() -> ctypes.CDLL:
    lib, reason = _load()
    if lib is None:
        raise BackendUnavailableError(f"expected NVRTC to compile the CUDA kernels; {reason}.")
    lib.nvrtcGetErrorString.restype = ctypes.c_char_p
    return lib


def _read(lib: ctypes.CDLL, what: str, handle: ctypes.c_void_p) -> bytes:
    """Return a result of a program: ``ProgramLog`` or ``CUBIN``."""
    size = ctypes.c_size_t()
    _check(getattr(lib, f"nvrtcGet{what}Size")(handle, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(lib, f"nvrtcGet{what}")(handle, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status != 0:
        raise BackendUnavailableError(
            f"expected NVRTC to answer; got {_status_text(_library(), status)}. Reinstall PyTorch."
        )


def _status_text(lib: ctypes.CDLL, status: int) -> str:
    return lib.nvrtcGetErrorString(status).decode()
