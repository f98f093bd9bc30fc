"""Tiny wheels: of a geoseg that only knows `doctor`, and of a program in uv's place."""

import json
import zipfile
from pathlib import Path


def write_wheel(folder: Path, name: str, version: str, files: dict, *, tag="py3-none-any") -> Path:
    """Write a wheel that pip and uv take."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    extras = "Provides-Extra: train\nProvides-Extra: export\n"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{extras}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{member},,\n" for member in files) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(member, content)
    return path


def write_geoseg(folder: Path, version: str = "0.1.0", protocol: int = 1, extra: str = "") -> Path:
    """Write a wheel whose ``python -m geoseg`` prints doctor's record."""
    record = json.dumps({"geoseg": version, "protocol": protocol, "packages": {}})
    main = f"{extra}\nprint({record!r})\n"
    return write_wheel(folder, "geoseg", version, {"geoseg/__main__.py": main})
