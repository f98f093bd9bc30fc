"""What ``geoseg doctor --json`` says, in some lines for the options page. Without QGIS."""

from __future__ import annotations

from typing import Any

# What an algorithm needs beyond the base install: package, and what is lacking without it.
OPTIONAL = {
    "lightning": "Teach a model",
    "onnxruntime": "models in .onnx files",
}


def doctor_lines(record: dict[str, Any], python: str) -> list[str]:
    """Return versions, devices and kernels, and what cannot be done; keys may be missing."""
    packages = _mapping(record.get("packages"))
    lines = [
        f"geoseg {record.get('geoseg')}, Python {record.get('python')}: {python}",
        f"PyTorch {packages.get('torch')}, GDAL {record.get('gdal')}, PROJ {record.get('proj')}",
        *_devices(_mapping(record.get("devices"))),
        _kernels(_mapping(_mapping(record.get("kernels")).get("cpu"))),
    ]
    for package, task in OPTIONAL.items():
        if packages.get(package) is None:
            lines.append(f"Not possible with this engine: {task} ({package} is not installed)")
    return lines


def _devices(devices: dict[str, Any]) -> list[str]:
    cpu = _mapping(devices.get("cpu"))
    lines = [f"CPU: {cpu.get('name')}, {cpu.get('threads')} threads"]
    for name in ("cuda", "mps"):
        device = _mapping(devices.get(name))
        if device.get("usable"):
            names = ", ".join(map(str, device.get("names") or [])) or "yes"
            lines.append(f"{name.upper()}: {names}")
        else:
            lines.append(f"{name.upper()}: no ({device.get('reason', 'not known')})")
    return lines


def _kernels(kernels: dict[str, Any]) -> str:
    if kernels.get("usable"):
        return f"Kernels: compiled, {kernels.get('instruction_set')}"
    return f"Kernels: the slower reference path ({kernels.get('reason', 'not known')})"


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
