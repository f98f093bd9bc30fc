"""Model files by name, and the records in their headers; without torch, which takes seconds."""

import hashlib
import json
import struct
from importlib import resources
from pathlib import Path
from typing import Any

from geoseg.errors import ModelFileError
from geoseg.spec import SPEC_KEY, ModelSpec

# A header larger than this is not a model but a broken or hostile file.
LARGEST_HEADER_BYTES = 100 * 2**20


def read_spec(path: str | Path) -> ModelSpec:
    """Return the record in a model file's header, without reading the weights.

    Raises:
        ModelFileError: not a safetensors file, or one without a geoseg record.
    """
    path = Path(path)
    try:
        header = _read_header(path)
    except FileNotFoundError:
        raise ModelFileError(f"model file {str(path)!r} does not exist. Check the path.") from None
    except OSError as error:
        raise ModelFileError(
            f"model file {str(path)!r} cannot be read: {error.strerror}."
        ) from error
    except json.JSONDecodeError as error:
        raise not_a_model(path, "a damaged header") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    if SPEC_KEY not in metadata:
        raise not_a_model(path, "a safetensors file without a geoseg record")
    return ModelSpec.from_json(metadata[SPEC_KEY])


def _read_header(path: Path) -> Any:
    """Return the JSON at the start of a safetensors file, whose size comes first."""
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < size <= LARGEST_HEADER_BYTES:
            raise not_a_model(path, "another kind of file")
        try:
            return json.loads(file.read(size))
        except UnicodeDecodeError as error:
            raise not_a_model(path, "another kind of file") from error


def find_model(model: str | Path) -> Path:
    """Return the file of a model given by path or by the name of a shipped one."""
    shipped = shipped_models()
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    if path.suffix or path.exists():
        return path
    raise ModelFileError(
        f"no model {str(model)!r}: neither a file nor a shipped model ({', '.join(shipped)}). "
        "Give the path of a model file, or see `geoseg models`."
    )


def shipped_models() -> dict[str, Path]:
    """Return name -> file of the models that come with geoseg, short names included."""
    folder = Path(str(resources.files("geoseg") / "assets"))
    found = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    names = folder / "short_names.json"
    short = json.loads(names.read_text("utf-8")) if names.exists() else {}
    return found | {name: found[full] for name, full in short.items() if full in found}


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def not_a_model(path: Path, got: str) -> ModelFileError:
    """Return the error for a file that is ``got`` instead of a model."""
    return ModelFileError(
        f"{str(path)!r}: expected a geoseg model (.safetensors with a record); got {got}. "
        "Make one from an official checkpoint with `geoseg convert`, or in Python with save_model."
    )
