"""The parts folder of a run: what it is for, which panels are finished, and who works on it.

    OUT.parts/
      manifest.json           everything that decides on pixels, and how they are cut into panels
      journal*.jsonl          one line per finished panel: its files, their sizes and CRC-32
      panel-00012.class_map.tif ...
      class_map.vrt ...       opens what is finished so far

A panel counts once its line is in a journal and its files match it. A run killed at any moment
leaves at most the panel it was at to be done again.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from geoseg.errors import OutputExistsError, PartsMismatchError
from geoseg.locks import locked
from geoseg.raster.writer import file_record, machine_errors, sync_folder
from geoseg.types import Window

FORMAT = 1
MANIFEST = "manifest.json"
LOCK = "lock"
# There from when finished files are put in place until all are.
PUBLISHING = "publishing"
OWN_FILES = (
    *(f"{MANIFEST}*", "journal*.jsonl", PUBLISHING),
    *("panel-*", "final.*", "*.vrt*", "*.tmp", "*.part"),
)


@dataclass
class Parts:
    """An opened parts folder.

    Attributes:
        folder: where.
        manifest: settings, inputs and panels.
        done: finished panels, index -> window in the output.
        shard: (I, N) when this process makes one share of the panels.
    """

    folder: Path
    manifest: dict[str, Any]
    shard: tuple[int, int] | None = None
    done: dict[int, Window] = field(default_factory=dict)

    @property
    def windows(self) -> dict[int, Window]:
        """All panels, index -> window in the output."""
        return {i: Window(*w) for i, w in enumerate(self.manifest["panels"])}

    @property
    def missing(self) -> list[int]:
        """Panels that are not finished."""
        return [i for i in self.windows if i not in self.done]

    def record(self, index: int, files: Mapping[str, Sequence[int]], batch: int | None) -> None:
        """Note in the journal that a panel's files are complete."""
        line = json.dumps({"panel": index, "files": files, "batch": batch}) + "\n"
        with machine_errors(self.folder), self._journal().open("ab+") as file:
            if file.tell() and not _ends_line(file):
                line = "\n" + line  # what a killed process left stays a line of its own
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self.done[index] = self.windows[index]

    def smallest_batch(self) -> int | None:
        """Return the batch that memory forced on some panel, or None."""
        batches = [entry.get("batch") for entry in self._entries()]
        return min((b for b in batches if b), default=None)

    def refresh_others(self) -> None:
        """Learn of panels that other shards have finished since, trusting their journals."""
        if self.shard is not None:
            windows = self.windows
            self.done |= {e["panel"]: windows[e["panel"]] for e in self._entries()}

    def refresh(self, check: Callable[[], None] | None = None) -> None:
        """Read from the journals and files which panels are finished; ``check`` may stop it."""
        windows = self.windows
        self.done = {}
        for entry in self._entries():
            if check is not None:
                check()
            if entry["panel"] in windows and self._is_whole(entry["files"]):
                self.done[entry["panel"]] = windows[entry["panel"]]

    def has_work(self) -> bool:
        """Return whether a run like this one has left something that it must not take silently."""
        if self.shard is None:
            return (self.folder / MANIFEST).exists()
        return self._journal().exists()

    def discard(self) -> None:
        """Drop what a run like this one has left; a shard drops its own journal only."""
        if self.shard is None:
            clear_folder(self.folder)
        else:
            self._journal().unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder; the manifest goes first, so that no half folder looks whole."""
        for name in (PUBLISHING, MANIFEST):
            (self.folder / name).unlink(missing_ok=True)
        clear_folder(self.folder)
        with suppress(OSError):  # a file of somebody else's; Windows keeps locks that are held
            for lock in self.folder.glob(f"{LOCK}*"):
                lock.unlink(missing_ok=True)
            self.folder.rmdir()

    def _journal(self) -> Path:
        suffix = "" if self.shard is None else f"-{self.shard[0]}-of-{self.shard[1]}"
        return self.folder / f"journal{suffix}.jsonl"

    def _entries(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.folder.glob("journal*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    continue  # a line that a killed process did not finish

    def _is_whole(self, files: Mapping[str, Sequence[int]]) -> bool:
        paths = {self.folder / name: list(record) for name, record in files.items()}
        return all(p.exists() and file_record(p) == record for p, record in paths.items())


def _ends_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def unfinished(folder: Path) -> OutputExistsError:
    """Return the error for parts that nobody said what to do with."""
    return OutputExistsError(
        f"unfinished parts of an earlier run lie in {str(folder)!r}. Give --resume to go on with "
        "them, or --overwrite to discard them."
    )


def check_none_unfinished(out: Path) -> None:
    """Raise an OutputExistsError that says what an output's parts folder is, where there is one."""
    folder = parts_folder(out)
    if (folder / MANIFEST).exists():
        try:
            with locked(folder / LOCK, shared=False, busy=_busy(out)):
                pass
        except PermissionError as error:  # another user's
            raise unfinished(folder) from error
        raise unfinished(folder)


def _busy(out: Path) -> str:
    return f"another run is at work on {str(out)!r}. Wait for it, stop it, or give another output."


def parts_folder(out: Path) -> Path:
    """Return the parts folder of an output."""
    return out.with_name(out.name + ".parts")


@contextmanager
def open_parts(
    out: Path,
    manifest: dict[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    shard: tuple[int, int] | None,
) -> Iterator[Parts]:
    """Open or make the parts folder of an output, and hold its lock.

    Args:
        out: the class map.
        manifest: of this run; its fingerprint must agree with the folder's.
        resume: go on with what is there.
        overwrite: discard what is there; a shard discards its own share only.
        shard: (I, N); shards of one run may work at the same time.

    Raises:
        OutputExistsError: another run is at it, or parts are there and neither ``resume`` nor
            ``overwrite`` is given.
        PartsMismatchError: the parts were made with other settings or inputs.
    """
    folder = parts_folder(out)
    with machine_errors(out.parent):
        folder.mkdir(parents=True, exist_ok=True)
    busy = _busy(out)
    with ExitStack() as stack:
        stack.enter_context(locked(folder / LOCK, shared=shard is not None, busy=busy))
        parts = Parts(folder, {}, shard)
        if shard is not None:
            own = folder / f"{LOCK}-{shard[0]}-of-{shard[1]}"
            stack.enter_context(locked(own, shared=False, busy=busy))
        if overwrite:
            parts.discard()
        elif not resume and parts.has_work():
            raise unfinished(folder)
        parts.manifest = _shared_manifest(folder, manifest)
        parts.refresh()
        yield parts


def load_parts(folder: Path) -> Parts:
    """Return an existing parts folder and which of its panels are finished.

    Raises:
        PartsMismatchError: no parts folder, or one of another version.
    """
    parts = _find_parts(folder)
    parts.refresh()
    return parts


@contextmanager
def locked_parts(folder: Path) -> Iterator[Parts]:
    """Open an existing parts folder alone; `Parts.refresh` is left to the caller.

    Raises:
        PartsMismatchError: no parts folder, or one of another version.
    """
    busy = f"a run is still at work on {str(folder)!r}. Wait for it, or stop it."
    _find_parts(folder)  # a folder that is none gets no lock
    with locked(folder / LOCK, shared=False, busy=busy):
        yield _find_parts(folder)


def _find_parts(folder: Path) -> Parts:
    manifest = read_manifest(folder)
    if manifest is None:
        raise PartsMismatchError(
            f"expected a folder of parts (OUT.parts) with {MANIFEST}; {str(folder)!r} has none. "
            "Give the folder that `geoseg predict` left."
        )
    return Parts(folder, manifest)


def clear_folder(folder: Path) -> None:
    """Delete what runs leave in a parts folder, all but the locks; other files stay."""
    for path in folder.iterdir():
        if path.is_file() and any(path.match(pattern) for pattern in OWN_FILES):
            path.unlink(missing_ok=True)


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    """Raise a PartsMismatchError that names what differs between two fingerprints."""
    differ = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    if differ:
        listed = "; ".join(f"{k}: {_short(old.get(k))}, now {_short(new.get(k))}" for k in differ)
        raise PartsMismatchError(
            f"the parts in {str(folder)!r} were made with other settings or inputs ({listed}). "
            "Run with the same ones, or give --overwrite instead of --resume to start again."
        )


def _shared_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest in the folder, which must agree; write ours where there is none."""
    current = read_manifest(folder)
    if current is None:
        temporary = folder / f"{MANIFEST}.{os.getpid()}.tmp"
        with machine_errors(folder):
            temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            try:
                # Shards may start at once: the first one's manifest stays.
                os.link(temporary, folder / MANIFEST)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                temporary.replace(folder / MANIFEST)
            temporary.unlink(missing_ok=True)
            sync_folder(folder)
        current = read_manifest(folder)
    assert current is not None
    check_same(current["fingerprint"], manifest["fingerprint"], folder)
    if current["panels"] != manifest["panels"]:  # shards that began at the same time
        raise PartsMismatchError(
            f"the parts in {str(folder)!r} are cut into other panels, for another --max-memory. "
            "Run it again, with the same one."
        )
    return current


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a parts folder's manifest, or None where there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except (OSError, json.JSONDecodeError) as error:
        raise PartsMismatchError(
            f"{str(folder / MANIFEST)!r} is damaged ({error}). Give --overwrite to start again."
        ) from error
    if manifest.get("format") != FORMAT:
        raise PartsMismatchError(
            f"the parts in {str(folder)!r} have format {manifest.get('format')!r}; expected "
            f"{FORMAT}. Use the version of geoseg that made them, or give --overwrite."
        )
    return dict(manifest)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
