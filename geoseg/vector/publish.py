"""Outputs are whole or absent: written into a folder beside their place, then moved there."""

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from geoseg.errors import GeosegError, MachineError, OutputExistsError, UsageError
from geoseg.locks import locked
from geoseg.raster.writer import sync_folder
from geoseg.vector.write import DRIVERS

# Files that belong to a layer by their names, apart from it.
SIDECARS = {
    ".shp": (
        *(".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".qpj", ".idm", ".ind"),
        *(".shp.xml",),
    ),
    ".gpkg": (".gpkg-wal", ".gpkg-shm", ".gpkg-journal"),
}
# In a folder that is being written to; it outlives a run that is killed.
LOCK = "lock"
# A folder may have been made and not yet been locked for so long.
SETTLED_S = 60.0
RASTERS = (".tif", ".tiff", ".vrt", ".img")


def check_output(out: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Raise a UsageError unless a layer can be written there without harm."""
    if out.suffix.lower() not in DRIVERS:
        raise UsageError(f"expected a layer that ends with {', '.join(DRIVERS)}; got {str(out)!r}.")
    if out.is_dir():
        raise UsageError(f"expected a file as OUT; {str(out)!r} is a folder.")
    read = {path.resolve() for path in inputs}
    for path in files_of(out):
        if path.resolve() in read:
            raise UsageError(
                f"{str(path)!r} is an input of this run and would be replaced by its output. Give "
                "the output another name."
            )
        if path.exists() and not overwrite:
            raise OutputExistsError(
                f"{str(path)!r} exists. Give --overwrite to replace it, or another name."
            )


def files_of(out: Path) -> list[Path]:
    """Return the files that a layer may consist of, the layer itself last."""
    return [*(out.with_suffix(suffix) for suffix in SIDECARS.get(out.suffix.lower(), ())), out]


def style_file(out: Path, *, overwrite: bool) -> Path | None:
    """Return where the QGIS style beside a layer goes.

    None where it lies inside, or where one is that must stay: a raster's of the same name, or any
    without ``overwrite``.
    """
    style = out.with_suffix(".qml")
    is_raster_s = any(out.with_suffix(suffix).exists() for suffix in RASTERS)
    if out.suffix.lower() == ".gpkg" or is_raster_s or (style.exists() and not overwrite):
        return None
    return style


@contextmanager
def staged(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder whose files are moved to their place at the end, or removed on an error.

    The layer itself comes last: where it is, all the rest is.

    Raises:
        MachineError: the folder cannot be made, or files cannot be moved.
        OutputExistsError: an output has come into being since the run began.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        raise MachineError(
            f"{str(out.parent)!r} cannot be written: {error.strerror}. Give another OUT."
        ) from error
    try:
        with ExitStack() as stack:
            # Only a mark for `_sweep`: where the disk knows no locks, the folder is ours anyway.
            with suppress(GeosegError, OSError):
                stack.enter_context(locked(folder / LOCK, shared=False, busy=str(folder)))
            yield folder
            check_output(out, overwrite=overwrite)
            _move(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove the folders of runs for the same layer that were killed; nobody holds their locks."""
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        with suppress(GeosegError, OSError):  # at work, somebody else's, or a disk without locks
            if time.time() - (folder / LOCK).stat().st_mtime < SETTLED_S:
                continue
            with locked(folder / LOCK, shared=False, busy=str(folder)):
                pass
            shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, out: Path) -> None:
    belonging = [*files_of(out)[:-1], out.with_suffix(".qml")]
    made = {path.name: folder / path.name for path in [*belonging, out]}
    made = {name: path for name, path in made.items() if path.exists()}
    beside = [name for name in made if name != out.name]
    try:
        for path in made.values():
            _sync(path)
        for stale in files_of(out)[:-1]:  # of the layer that is replaced
            if stale.name not in made:
                stale.unlink(missing_ok=True)
        for name in beside:
            made[name].replace(out.with_name(name))
        made[out.name].replace(out)
        sync_folder(out.parent)
    except OSError as error:
        raise MachineError(
            f"{str(out)!r} cannot be put in place: {error.strerror}. Close programs that use "
            "it, or give another OUT."
        ) from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
