"""NVRTC compiles every kernel without a toolkit, within its registers, and keeps what it made."""

import os
import shutil
import stat
import subprocess

import pytest
import torch

from geoseg.errors import BackendUnavailableError
from geoseg.ops import _nvrtc
from tests.ops.cubin import resources
from tests.ops.emulator import KERNELS, PROGRAMS

IO = range(3)
ARCHITECTURES = (75, 80, 90, 120)
ENTRIES = {
    "ss2d": {
        *("project", "sum_8", "sum_16", "join_chunks", "output_8", "output_16"),
        *("sum_chunks_backward", "backward"),
    },
    "selective_scan": {"sum_chunks", "join_chunks", "output", "backward"},
    "na2d": {"forward", "backward_queries", "backward_keys"},
}
# A forward scan lives on many resident warps; a pass with more values in flight has more room.
FORWARD_SCANS = {"project", "sum_chunks", "join_chunks", "output"} | {
    *("sum_8", "sum_16", "output_8", "output_16")
}
FORWARD_REGISTERS, REGISTERS = 64, 128

needs_nvrtc = pytest.mark.skipif(
    _nvrtc.unavailable_reason() is not None,
    reason=f"CUDA kernels were not compiled: {_nvrtc.unavailable_reason()}",
)
NVCC = shutil.which("nvcc")


def compile_for(program, architecture, io):
    options = (*_nvrtc.OPTIONS, f"--gpu-architecture=sm_{architecture}", f"-DGEOSEG_IO={io}")
    return _nvrtc.compile_program(program, options)


def check(program, cubin):
    found = {k: v for k, v in resources(cubin).items() if k.startswith("geoseg_")}
    assert set(found) == {f"geoseg_{program}_{entry}" for entry in ENTRIES[program]}
    for name, used in found.items():
        # A spilled register lies on the stack.
        assert used["stack"] == 0, name
        forward = program != "na2d" and name.removeprefix(f"geoseg_{program}_") in FORWARD_SCANS
        assert used["registers"] <= (FORWARD_REGISTERS if forward else REGISTERS), name


@needs_nvrtc
@pytest.mark.parametrize("program", PROGRAMS)
def test_kernels_compile_for_sm_90(program):
    check(program, compile_for(program, 90, 1))


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.parametrize("io", IO)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_kernel_spills_or_takes_too_many_registers(architecture, io):
    if architecture not in _nvrtc.supported_architectures():
        pytest.skip(f"NVRTC {_nvrtc.version()} compiles nothing for sm_{architecture}")
    for program in PROGRAMS:
        check(program, compile_for(program, architecture, io))


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="nvcc was not run: there is none")
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_same_sources_build_with_nvcc(program, tmp_path):
    source, made = KERNELS / "cuda" / f"{program}.cu", tmp_path / "made.cubin"
    command = [NVCC, "-std=c++17", "-cubin", "-arch=sm_80", "-I", str(KERNELS / "include")]
    subprocess.run([*command, str(source), "-o", str(made)], check=True, capture_output=True)
    check(program, made.read_bytes())


@needs_nvrtc
def test_a_compile_error_is_shown(monkeypatch):
    monkeypatch.setattr(_nvrtc, "read_sources", lambda: {"broken.cu": "__global__ void f( {"})
    with pytest.raises(BackendUnavailableError, match="broken.cu") as caught:
        compile_for("broken", 90, 0)
    assert "NVRTC_ERROR_COMPILATION" in str(caught.value)
    assert "broken.cu(1): error" in str(caught.value)


def test_no_source_includes_what_nvrtc_lacks():
    sources = _nvrtc.read_sources()
    for name, text in sources.items():
        inside = True
        for line in text.splitlines():
            if line.startswith("#ifndef __CUDACC__"):
                inside = False
            elif line.startswith("#endif"):
                inside = True
            if inside and line.startswith("#include"):
                assert line.split('"')[1] in sources, name


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder, and a list of what is compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr(_nvrtc, "version", lambda: (13, 2))
    compiled = []

    def compile_program(program, options):
        compiled.append((program, options))
        return f"cubin {len(compiled)}".encode()

    monkeypatch.setattr(_nvrtc, "compile_program", compile_program)
    return _nvrtc.cache_folder(), compiled


def test_cache_lies_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_nvrtc.sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert _nvrtc.cache_folder() == tmp_path / ".cache" / "geoseg" / "cuda"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert _nvrtc.cache_folder() == tmp_path / ".cache" / "geoseg" / "cuda"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert _nvrtc.cache_folder() == tmp_path / "x" / "geoseg" / "cuda"
    monkeypatch.setattr(_nvrtc.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert _nvrtc.cache_folder() == tmp_path / "local" / "geoseg" / "cache" / "cuda"


def test_a_program_is_compiled_once(cache):
    folder, compiled = cache
    assert _nvrtc.compile_cached("ss2d", 90, io=0) == b"cubin 1"
    assert _nvrtc.compile_cached("ss2d", 90, io=0) == b"cubin 1"
    assert len(compiled) == 1
    assert [path.read_bytes() for path in folder.iterdir()] == [b"cubin 1"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_the_user_sees_the_cache(cache):
    folder, _ = cache
    _nvrtc.compile_cached("ss2d", 90, io=0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


def test_sources_options_and_versions_are_told_apart(cache, monkeypatch):
    folder, compiled = cache
    _nvrtc.compile_cached("ss2d", 90, io=0)
    _nvrtc.compile_cached("ss2d", 90, io=1)
    _nvrtc.compile_cached("ss2d", 80, io=0)
    _nvrtc.compile_cached("na2d", 90, io=0)
    monkeypatch.setattr(_nvrtc, "version", lambda: (13, 3))
    _nvrtc.compile_cached("ss2d", 90, io=0)
    sources = _nvrtc.read_sources()
    monkeypatch.setattr(_nvrtc, "read_sources", lambda: {**sources, "carry.cuh": "changed"})
    _nvrtc.compile_cached("ss2d", 90, io=0)
    assert len(compiled) == len(list(folder.iterdir())) == 6


def test_a_folder_that_cannot_be_written_is_read(cache, monkeypatch):
    folder, _ = cache
    _nvrtc.compile_cached("ss2d", 90, io=0)

    def refuse(*_, **__):
        raise PermissionError("read-only")

    # A mode would not stop a superuser.
    monkeypatch.setattr(_nvrtc.tempfile, "mkstemp", refuse)
    assert _nvrtc.compile_cached("ss2d", 90, io=0) == b"cubin 1"
    assert _nvrtc.compile_cached("na2d", 90, io=0) == b"cubin 2"
    assert _nvrtc.compile_cached("na2d", 90, io=0) == b"cubin 3"
    assert len(list(folder.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_done_without(cache):
    folder, compiled = cache
    folder.parent.write_text("a file is in the way")
    assert _nvrtc.compile_cached("ss2d", 90, io=0) == b"cubin 1"
    assert len(compiled) == 1


def test_nothing_half_written_stays(cache, monkeypatch):
    folder, _ = cache

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(_nvrtc.Path, "replace", fail)
    assert _nvrtc.compile_cached("ss2d", 90, io=0) == b"cubin 1"
    assert list(folder.iterdir()) == []


def test_sources_are_found_installed_and_beside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(_nvrtc, "__file__", str(tmp_path / "geoseg" / "ops" / "_nvrtc.py"))
    with pytest.raises(BackendUnavailableError, match="Install geoseg again"):
        _nvrtc.source_folder()
    (tmp_path / "kernels" / "cuda").mkdir(parents=True)
    assert _nvrtc.source_folder() == tmp_path / "kernels"
    (tmp_path / "geoseg" / "_lib" / "kernels" / "cuda").mkdir(parents=True)
    assert _nvrtc.source_folder() == tmp_path / "geoseg" / "_lib" / "kernels"


@pytest.mark.parametrize(
    ("own", "order"), [("13.0", [13, 12]), ("12.8", [12, 13]), (None, [13, 12])], ids=str
)
def test_nvrtc_is_looked_for_beside_torch(tmp_path, monkeypatch, own, order):
    monkeypatch.setattr(torch.version, "cuda", own)
    for name in ("libnvrtc.so.12", "libnvrtc.alt.so.12", "libnvrtc-builtins.so.12.8"):
        (tmp_path / name).touch()
    monkeypatch.setattr(_nvrtc.sys, "platform", "linux")
    monkeypatch.setattr(_nvrtc, "_library_folders", lambda: [tmp_path])
    found = _nvrtc.library_candidates()
    assert found == [str(tmp_path / "libnvrtc.so.12"), *(f"libnvrtc.so.{n}" for n in order)]


def test_without_nvrtc_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(_nvrtc, "library_candidates", lambda: ["no-such-library"])
    _nvrtc._load.cache_clear()
    reason = "libnvrtc was not found; install a CUDA build of PyTorch"
    assert _nvrtc.unavailable_reason() == reason
    with pytest.raises(BackendUnavailableError, match=reason):
        _nvrtc.compile_program("ss2d", ())
    _nvrtc._load.cache_clear()
