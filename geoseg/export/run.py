"""From a model to an ONNX file and the STAC item beside it, in the order of the steps."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from geoseg.checkpoint import is_disk_full, load_model
from geoseg.errors import (
    DiskFullError,
    MachineError,
    ModelFileError,
    OutputExistsError,
    UsageError,
)
from geoseg.export.check import Difference, check_export
from geoseg.export.deepness import deepness_keys, remarks
from geoseg.export.graph import to_onnx
from geoseg.export.network import Served, exported_spec, plan_feeding
from geoseg.export.stac import stac_item
from geoseg.extras import require_extra
from geoseg.segmenter import Segmenter
from geoseg.spec import INPUT_KEY, SPEC_KEY, ModelSpec

# Versions of ONNX's operators, and the oldest file format that has them: Deepness comes with an
# onnxruntime of early 2024 (1.17), which reads format 9 and no later one.
FORMATS = {18: 8, 19: 9, 20: 9}
NAMES = ("image", "probabilities")


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        tile_size_px: side of the tiles that the file takes; None: the model's own.
        opset: version of ONNX's operators, 18 to 20.
        check: compare the file with the model before it gets its name.
        item: where the STAC item goes; None: beside the file, as .json.
        overwrite: replace what is there.
    """

    tile_size_px: int | None = None
    opset: int = 18
    check: bool = True
    item: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: of the ONNX file.
        item: of the STAC item.
        spec: the record in the file.
        operators: number of nodes in the graph.
        size_bytes: of the file.
        differences: from the model; empty if not checked.
        remarks: what users of other tools have to know.
    """

    path: Path
    item: Path
    spec: ModelSpec
    operators: int
    size_bytes: int
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]


def export_model(
    model: str | Path | Segmenter, out: str | Path, options: ExportOptions | None = None
) -> ExportReport:
    """Write a model as ONNX, for geoseg, Deepness, GeoDeep and any runtime, with its STAC item.

    The file takes tiles of one size in any batch, 8-bit values divided by 255 or other values as
    they are, and answers class probabilities.

    Args:
        model: file or name of a geoseg model, or a segmenter.
        out: ends with .onnx.
        options: None: the defaults.

    Raises:
        UsageError: options that do not fit the model or the names.
        ModelFileError: no model of ours, or one that standard operators cannot express.
        BackendUnavailableError: the extra ``export`` is not installed.
    """
    require_extra("export", "onnx", "onnxruntime", "onnxscript", purpose="an export to ONNX")
    options, out = options or ExportOptions(), Path(out)
    item_path = options.item or out.with_suffix(".json")
    _check_names(out, item_path, options)
    segmenter = model if isinstance(model, Segmenter) else _load(Path(model))
    spec = exported_spec(segmenter.spec, options.tile_size_px)
    network = Served(segmenter, spec)
    side = spec.tile.size_px
    graph = to_onnx(network, (len(spec.bands), side, side), opset=options.opset, names=NAMES)
    graph.ir_version = FORMATS[options.opset]
    _describe(graph, spec)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            _save(graph, temporary)
            differences = check_export(temporary, segmenter, spec) if options.check else []
            temporary.replace(out)
        finally:
            with suppress(OSError):
                temporary.unlink()
        _write_item(spec, out, item_path, network)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"the disk of {str(out)!r} is full. Free some space.") from error
        raise MachineError(
            f"{str(out)!r} cannot be written: {error}. Give another name, or mend the cause."
        ) from error
    return ExportReport(
        path=out,
        item=item_path,
        spec=spec,
        operators=len(graph.graph.node),
        size_bytes=out.stat().st_size,
        differences=tuple(differences),
        remarks=tuple(remarks(spec)),
    )


def _check_names(out: Path, item: Path, options: ExportOptions) -> None:
    if out.suffix.lower() != ".onnx":
        raise UsageError(f"expected a name that ends with .onnx; got {out.name!r}.")
    if options.opset not in FORMATS:
        raise UsageError(
            f"expected --opset {min(FORMATS)} to {max(FORMATS)}; got {options.opset}. Leave the "
            "option away for the one that most runtimes know."
        )
    if out.resolve() == item.resolve():
        raise UsageError(f"OUT and --stac have one name, {str(out)!r}. Give another for the item.")
    for path in (out, item):
        if path.exists() and not options.overwrite:
            raise OutputExistsError(f"{str(path)!r} exists. Give --overwrite, or another name.")


def _load(path: Path) -> Segmenter:
    if path.suffix.lower() in {".onnx", ".pt2"}:
        raise ModelFileError(
            f"{str(path)!r} is an exported network already; expected a geoseg model "
            "(.safetensors). Export from the model that it was made of."
        )
    return load_model(str(path))


def _describe(graph: Any, spec: ModelSpec) -> None:
    """Put the record into a model: geoseg's own keys, and Deepness' where they apply."""
    gain, bias = plan_feeding(spec).from_standardised()
    keys = deepness_keys(spec)
    keys[SPEC_KEY] = spec.to_json()
    keys[INPUT_KEY] = json.dumps({"gain": gain, "bias": bias})
    del graph.metadata_props[:]
    for key, value in keys.items():
        graph.metadata_props.add(key=key, value=value)
    graph.producer_name = "geoseg"
    graph.producer_version = spec.versions.get("geoseg", "")
    graph.doc_string = spec.description


def _save(graph: Any, path: Path) -> None:
    import onnx

    path.write_bytes(graph.SerializeToString())
    onnx.checker.check_model(str(path))


def _write_item(spec: ModelSpec, out: Path, item_path: Path, network: nn.Module) -> None:
    same_folder = item_path.resolve().parent == out.resolve().parent
    item = stac_item(
        spec,
        out,
        href=f"./{out.name}" if same_folder else os.path.relpath(out, item_path.parent),
        parameters=sum(p.numel() for p in network.parameters()),
        names=NAMES,
    )
    item_path.parent.mkdir(parents=True, exist_ok=True)
    item_path.write_text(json.dumps(item, indent=2, ensure_ascii=False) + "\n", "utf-8")
