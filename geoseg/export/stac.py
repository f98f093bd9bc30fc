"""A STAC item that describes an exported file, by the Machine Learning Model extension.

Field names and rules: github.com/stac-extensions/mlm, version 1.5.2, and STAC 1.1.
"""

import importlib.metadata
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoseg.export.deepness import middle_gsd_m
from geoseg.export.network import BYTE_RANGE, plan_feeding
from geoseg.spec import ModelSpec
from geoseg.stac_mlm import class_identifier

STAC_VERSION = "1.1.0"
MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
MODEL_TYPE = "application/octet-stream; framework=onnx"
TASK = "semantic-segmentation"


def stac_item(
    spec: ModelSpec, path: Path, *, href: str, parameters: int, names: tuple[str, str]
) -> dict[str, Any]:
    """Return the STAC item of an exported file, as JSON has it.

    Args:
        spec: record of the file.
        path: of the file.
        href: of the file, as seen from the item.
        parameters: number of weights.
        names: of input and output.
    """
    bands = [{"name": band.name} for band in spec.bands]
    properties: dict[str, Any] = {
        "datetime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "title": spec.name,
        "description": _description(spec),
        "license": spec.licence if re.fullmatch(r"[\w\-.+]+", spec.licence) else "other",
        "bands": bands,
        "mlm:name": _model_name(spec.name),
        "mlm:architecture": spec.architecture.name,
        "mlm:tasks": [TASK],
        "mlm:framework": "ONNX",
        "mlm:framework_version": _release(importlib.metadata.version("onnx")),
        "mlm:memory_size": path.stat().st_size,
        "mlm:total_parameters": parameters,
        "mlm:batch_size_suggestion": 1,
        "mlm:accelerator": None,  # whatever the runtime has
        "mlm:input": [_input(spec, names[0])],
        "mlm:output": [_output(spec, names[1])],
    }
    if spec.gsd_m is not None:
        properties["gsd"] = round(middle_gsd_m(spec.gsd_m), 4)  # m
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [MLM_SCHEMA],
        "id": path.stem,
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {
            "model": {
                "href": href,
                "type": MODEL_TYPE,
                "title": f"{spec.name} as ONNX",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "onnx",
                "bands": bands,
            }
        },
    }


def _input(spec: ModelSpec, name: str) -> dict[str, Any]:
    side, divisor = spec.tile.size_px, plan_feeding(spec).divisor
    scaling = [{"type": "scale", "value": BYTE_RANGE}] if divisor == BYTE_RANGE else None
    return {
        "name": name,
        "bands": [band.name for band in spec.bands],
        "input": {
            "shape": [-1, len(spec.bands), side, side],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": scaling,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(spec: ModelSpec, name: str) -> dict[str, Any]:
    side = spec.tile.size_px
    return {
        "name": name,
        "tasks": [TASK],
        "result": {
            "shape": [-1, len(spec.classes), side, side],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": [
            {
                "value": c.id,
                "name": class_identifier(c.name),
                "description": c.name,
                "color_hint": c.color.removeprefix("#").upper(),
            }
            for c in spec.classes
        ],
        "post_processing_function": None,
    }


def _description(spec: ModelSpec) -> str:
    """Return all that the record says in words."""
    licence = f"Licence: {spec.licence}" if spec.licence else ""
    trained = f"Trained on: {spec.data}" if spec.data else ""
    said = (spec.description, spec.warning, trained, licence, *spec.credits)
    return "\n\n".join(text for text in said if text) or spec.name


def _model_name(name: str) -> str:
    """Return a name as the extension wants it: a letter, and no other signs than ``_.-``."""
    kept = re.sub(r"[^a-zA-Z0-9_.\-]+", "-", name).strip("-_.")
    return kept if re.match(r"[a-zA-Z]..", kept) else f"model-{kept or 'unnamed'}"


def _release(version: str) -> str:
    """Return major, minor and patch of a version."""
    numbers = re.findall(r"\d+", version)[:3]
    return ".".join([*numbers, "0", "0"][:3])
