"""`finish_cog` in a process of its own: GDAL copies in one call, which only its end can stop."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geoseg import errors
from geoseg.errors import GeosegError, MachineError
from geoseg.raster.layer import Layer
from geoseg.raster.writer import finish_cog

POLL_S = 0.1
# Modules are looked for where this process found them.
START = (
    "import json, sys; order = json.loads(sys.stdin.buffer.raw.readline()); "
    "sys.path[:] = order['path']; from geoseg.raster.apart import carry_out; carry_out(order)"
)


def finish_cog_apart(
    vrt: Path, out: Path, layer: Layer, *, threads: int, on_wait: Callable[[int], None]
) -> Path:
    """Do as `finish_cog` does, but so that it can be stopped at any time.

    Args:
        vrt: over all panels.
        out: written in place; the caller renames it.
        layer: decides on overviews.
        threads: for compression; the bytes do not depend on it.
        on_wait: told ten times a second how many bytes lie on the disk; what it raises ends the
            copy, of which nothing is left then, and is passed on.
    """
    record = {**asdict(layer), "classes": ()}  # which lie beside the COG, not in it
    order = {"vrt": str(vrt), "out": str(out), "layer": record, "threads": threads}
    line = json.dumps({**order, "path": sys.path}).encode() + b"\n"
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which then ends the other
    ) as process:
        try:
            said = _follow(process, line, lambda: on_wait(_bytes_made(out)))
        except BaseException:
            process.kill()
            process.wait()
            for path in _made(out):
                path.unlink(missing_ok=True)
            raise
    if process.returncode:
        raise _error(said, process.returncode, out)
    return out


def carry_out(order: dict[str, Any]) -> None:
    """Finish a COG as ordered on stdin, and end at once when that is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        layer = Layer(**order["layer"])
        finish_cog(Path(order["vrt"]), Path(order["out"]), layer, threads=order["threads"])
    except GeosegError as error:
        sys.stdout.write(json.dumps({"kind": type(error).__name__, "message": str(error)}))
        sys.exit(1)


def _follow(process: "subprocess.Popen[bytes]", line: bytes, look: Callable[[], None]) -> bytes:
    """Give a process its order, and return what it said when it has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # one that could not start says so by its exit code
        process.stdin.write(line)
        process.stdin.flush()
    while True:
        try:
            process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            look()
        else:
            look()
            return process.stdout.read()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def _made(out: Path) -> list[Path]:
    """Return the COG and what lies beside it meanwhile: overviews, and a VRT that has them."""
    return [path for path in out.parent.glob(f"{out.name}*") if path.is_file()]


def _bytes_made(out: Path) -> int:
    size = 0
    for path in _made(out):
        with suppress(FileNotFoundError):  # gone since it was listed
            size += path.stat().st_size
    return size


def _error(said: bytes, code: int, out: Path) -> GeosegError:
    if said:
        found = json.loads(said)
        kind: type[GeosegError] = getattr(errors, found["kind"])
        return kind(found["message"])
    return MachineError(
        f"{str(out)!r} was not made: its process ended with code {code}. Finished parts are kept: "
        "mend the cause, such as too little memory, and run it again."
    )
