"""Runs the CUDA kernels' bodies on the CPU: the real sources, built with g++."""

import ctypes
import shutil
import subprocess
from pathlib import Path

from geoseg.ops._nvrtc import source_folder

KERNELS = source_folder()
PROGRAMS = ("ss2d", "selective_scan", "na2d")
SOURCES = Path(__file__).parent
COMPILER = shutil.which("g++")


# Flags of the compiler; for races, a thread of the machine stands for each thread of a block.
SANITIZERS = {
    "address": ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
    "thread": ("-g", "-fsanitize=thread", f"-I{SOURCES / 'threads'}"),
}


def build(source: Path, folder: Path, *flags: str, io: int = 0) -> ctypes.CDLL:
    """Compile a source with the emulator in place of CUDA."""
    library = folder / f"{source.stem}-{io}.so"
    command = [
        *(COMPILER, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
        *("-shared", "-fPIC", "-x", "c++", f"-DGEOSEG_IO={io}", str(source), "-o", str(library)),
        *(*flags, f"-I{KERNELS / 'include'}", f"-I{KERNELS / 'cuda'}", f"-I{SOURCES}"),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(library))


class Emulator:
    """Stands in for the CUDA driver: same kernels, grids and arguments."""

    def __init__(self, folder: Path, *, flags: tuple[str, ...] = ()) -> None:
        self.folder, self.flags, self.libraries, self.reversed = folder, flags, {}, False
        self.launches = []

    def launch(self, kernel, grid, arguments, device):
        # What a device takes: of x 2^31 - 1 blocks, of y and z 65535.
        assert 0 < grid.blocks[0] < 2**31
        assert all(0 < side < 2**16 for side in grid.blocks[1:])
        assert 0 < grid.threads <= 1024
        self.launches.append((kernel.entry, grid))
        self.run(kernel, grid, arguments)

    def run(self, kernel, grid, arguments):
        key = kernel.program, kernel.io
        if key not in self.libraries:
            source = KERNELS / "cuda" / f"{kernel.program}.cu"
            self.libraries[key] = build(source, self.folder, *self.flags, io=kernel.io)
        function = getattr(self.libraries[key], f"geoseg_{kernel.entry}")
        blocks = (ctypes.c_int * 3)(*grid.blocks)
        status = function(
            ctypes.byref(arguments),
            blocks,
            grid.threads,
            ctypes.c_int64(grid.shared_bytes),
            int(self.reversed),
        )
        assert status == 0, {1: "too many threads", 2: "wrote past shared memory"}[status]
