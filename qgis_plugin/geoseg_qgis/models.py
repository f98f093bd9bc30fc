"""The models a user can choose: those that come with geoseg, and the files he has added.

The record inside a ``.safetensors`` file is read with the standard library; of an ``.onnx`` file
only the engine knows what is in it. What the engine ships is asked once and kept in QGIS's
settings, so that a dialog opens at once.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgis.core import QgsSettings

from geoseg_qgis.engine import Engine, ask_engine
from geoseg_qgis.translate import tr

if TYPE_CHECKING:
    from geoseg_qgis.settings import Settings

SUFFIXES = (".safetensors", ".onnx", ".pt2")
SPEC_KEY = "geoseg.spec"
CACHE_KEY = "geoseg/shipped_models"
# A header of safetensors is some hundred kilobytes; a length beyond this is no header.
LONGEST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Model:
    """One row of the model list.

    ``value`` is what the engine is given: a shipped name, or the path of a file.
    """

    value: str
    file: str
    description: str = ""
    warning: str = ""
    classes: tuple[str, ...] = ()
    gsd_m: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """Name for the list; a demonstration model says that it is one."""
        name = Path(self.value).name
        return tr("{} (demonstration model)").format(name) if self.warning else name

    @property
    def hint(self) -> str:
        """Some lines on what the model is for, for a tool tip."""
        lines = [self.description, self.warning]
        if self.classes:
            lines.append(tr("Classes: {}").format(", ".join(self.classes)))
        if self.gsd_m:
            lines.append(tr("Made for {:g} to {:g} m per pixel").format(*self.gsd_m))
        return "\n".join(line for line in [*lines, self.file] if line)


def read_spec(path: str | Path) -> dict[str, Any]:
    """Return the record inside a ``.safetensors`` model.

    Raises:
        ValueError: the file is none, or not one of geoseg's; the message is for the user.
    """
    try:
        with Path(path).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LONGEST_HEADER_BYTES:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        spec = json.loads(header["__metadata__"][SPEC_KEY])
    except OSError as error:
        raise ValueError(
            tr("{!r} cannot be read: {}.").format(str(path), error.strerror or error)
        ) from error
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise ValueError(
            tr(
                "{!r} was expected to be a model of geoseg (.safetensors with a record); it is "
                "not. Choose another file, or make one with Teach a model."
            ).format(str(path))
        ) from error
    if not isinstance(spec, dict):
        raise ValueError(tr("The record of {!r} is damaged.").format(str(path)))
    return spec


def model_of_file(path: str) -> Model:
    """Return the row of a file; what cannot be read is said in its description."""
    if not path.lower().endswith(".safetensors"):
        return Model(path, path, description=tr("A network in ONNX or PyTorch's format"))
    try:
        spec = read_spec(path)
    except ValueError as error:
        return Model(path, path, description=str(error))
    gsd_m = spec.get("gsd_m")
    return Model(
        value=path,
        file=path,
        description=str(spec.get("description") or ""),
        warning=str(spec.get("warning") or ""),
        classes=tuple(str(c.get("name")) for c in spec.get("classes") or ()),
        gsd_m=(float(gsd_m[0]), float(gsd_m[1])) if gsd_m else None,
    )


def known_models(engine: Engine | None, settings: Settings) -> list[Model]:
    """Return the list without starting anything: shipped as last heard of, then added files."""
    shipped = _cached(engine) or [] if engine is not None else []
    files = [path for path in settings.model_files if Path(path).is_file()]
    return [*map(_shipped_model, _one_per_file(shipped)), *map(model_of_file, files)]


def is_list_known(engine: Engine) -> bool:
    """Return whether the engine has been asked already what it ships."""
    return _cached(engine) is not None


def ask_shipped_models(engine: Engine) -> None:
    """Ask the engine what it ships, and keep the answer. Takes seconds: not for the main thread."""
    record = ask_engine(engine, "models", ["--json"], timeout_s=300.0)
    shipped = record.get("shipped", []) if isinstance(record, dict) else []
    kept = {"of": _mark(engine), "shipped": shipped}
    QgsSettings().setValue(CACHE_KEY, json.dumps(kept))


def add_model(path: str, settings: Settings) -> None:
    """Put a file into the list, at its beginning: what was made last is wanted next."""
    others = [p for p in settings.model_files if p != path]
    settings.model_files = [path, *others]


def gsd_of(engine: Engine, value: str) -> float | None:
    """Return the metres per pixel that a model is made for: the middle of its range, if it has one.

    Asks the engine: not for the main thread.
    """
    if value.lower().endswith(".safetensors") and Path(value).is_file():
        record: Any = read_spec(value)
    else:
        record = ask_engine(engine, "describe", [value, "--json"], timeout_s=300.0)
    gsd_m = record.get("gsd_m") if isinstance(record, dict) else None
    return float(gsd_m[0] * gsd_m[1]) ** 0.5 if gsd_m else None


def _cached(engine: Engine) -> list[dict[str, Any]] | None:
    try:
        kept = json.loads(QgsSettings().value(CACHE_KEY, "") or "null")
    except (TypeError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("of") != _mark(engine):
        return None
    return [m for m in kept.get("shipped", []) if isinstance(m, dict) and m.get("name")]


def _mark(engine: Engine) -> list[Any]:
    """Return what changes when the engine is another one, or was installed anew."""
    try:
        return [engine.python, int(os.lstat(engine.python).st_mtime)]
    except OSError:
        return [engine.python, 0]


def _one_per_file(shipped: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the shipped models without their short names; those that have one come first."""
    by_file: dict[Any, dict[str, Any]] = {}
    preferred = set()
    for model in shipped:
        key = model.get("file") or model["name"]
        by_file.setdefault(key, model)
        if by_file[key] is not model:
            preferred.add(key)
    return [by_file[key] for key in sorted(by_file, key=lambda key: key not in preferred)]


def _shipped_model(entry: dict[str, Any]) -> Model:
    gsd_m = entry.get("gsd_m")
    return Model(
        value=str(entry["name"]),
        file=str(entry.get("file") or ""),
        description=str(entry.get("description") or ""),
        warning=str(entry.get("warning") or ""),
        classes=tuple(map(str, entry.get("classes") or ())),
        gsd_m=(float(gsd_m[0]), float(gsd_m[1])) if gsd_m else None,
    )
