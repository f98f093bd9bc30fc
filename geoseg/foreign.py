"""Networks made elsewhere, .onnx and .pt2, behind the same face as ours.

The record comes from geoseg's own key, from Deepness' metadata keys in an ONNX file, or from a STAC
Machine Learning Model record: in a .pt2 archive, or as an item in a JSON file beside the model.
"""

import importlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.errors import BackendUnavailableError, ModelFileError
from geoseg.model_files import file_sha256
from geoseg.segmenter import Segmenter
from geoseg.spec import INPUT_KEY, SPEC_KEY, ModelSpec, OutputKind
from geoseg.stac_mlm import spec_from_deepness, spec_from_mlm

DEEPNESS_KEYS = {"model_type", "class_names", "resolution", "tiles_size"}
MLM_ARCHIVE_KEY = "mlm-metadata"
# What may stand between the last activation and the answer without changing what it means.
PASSING_OPERATORS = {"Identity", "Cast", "Resize", "Transpose", "Reshape", "Squeeze", "Unsqueeze"}
PASSING_OPERATIONS = {
    *("clone", "contiguous", "to", "_to_copy", "view", "permute", "alias"),
    *("upsample_bilinear2d", "upsample_nearest2d"),
}
# Gains and biases of the bands.
Scaling = tuple[Sequence[float], Sequence[float]]

# What onnxruntime says when memory runs out.
MEMORY_WORDS = ("allocate memory", "bad allocation", "out of memory")


class OnnxNetwork(nn.Module):
    """An ONNX network run by onnxruntime.

    Args:
        path: of the file.
        session: of onnxruntime.
        scaling: gain and bias per band, from standardised values to what the network is fed; None:
            it is fed with standardised values.
    """

    is_foreign = True

    def __init__(
        self,
        path: Path,
        session: Any,
        scaling: Scaling | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self._session = session
        self._scaling = scaling and tuple(torch.tensor(v).view(1, -1, 1, 1) for v in scaling)
        given = session.get_inputs()
        if len(given) != 1 or len(given[0].shape) != 4:
            raise ModelFileError(
                f"{str(path)!r}: expected one input (batch, bands, rows, columns); got "
                f"{[list(i.shape) for i in given]}. Export the network with a single image input."
            )
        self._input = given[0]
        self.shape = [n if isinstance(n, int) else None for n in given[0].shape]

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's first output for (N, C, H, W)."""
        batch = self.shape[0] or x.shape[0]
        if self._scaling is not None:
            gain, bias = (v.to(x.device) for v in self._scaling)
            x = x * gain + bias
        array: NDArray[np.generic] = (
            x.detach().cpu().contiguous().numpy().astype(_numpy_type(self._input.type))
        )
        answers = []
        for start in range(0, len(array), batch):
            part = array[start : start + batch]
            filled = np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)])
            answer = self._run(np.ascontiguousarray(filled))
            answers.append(answer[: len(part)])
        return torch.from_numpy(np.concatenate(answers)).to(x.device)

    def _run(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        try:
            answer: NDArray[np.generic] = self._session.run(None, {self._input.name: array})[0]
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            if any(word in first.lower() for word in MEMORY_WORDS):
                raise MemoryError(first) from error
            raise ModelFileError(
                f"{str(self.path)!r} cannot run on tiles of {array.shape[2]} x {array.shape[3]} px "
                f"with {array.shape[1]} band(s): {first}. Give a --tile-size that it can take."
            ) from error
        return answer


class ExportedNetwork(nn.Module):
    """A network saved by torch.export.

    Args:
        path: of the archive.
        module: its program as a module.
        batch: batch size that it was exported for; None: any.
    """

    is_foreign = True

    def __init__(self, path: Path, module: nn.Module, batch: int | None) -> None:
        super().__init__()
        self.path = path
        self.module = module
        self._batch = batch

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's answer for (N, C, H, W)."""
        size = self._batch or x.shape[0]
        answers = []
        for part in torch.split(x.contiguous(), size):
            missing = size - part.shape[0]
            filled = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part
            answers.append(_first(self.module(filled))[: part.shape[0]])
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def train(self, mode: bool = True) -> "ExportedNetwork":
        """Do nothing: an exported program has no training mode."""
        return self


def load_foreign(path: Path) -> Segmenter:
    """Return the segmenter in an ``.onnx`` or ``.pt2`` file.

    Raises:
        ModelFileError: unreadable, or without a record of how it is fed.
        BackendUnavailableError: onnxruntime is not installed.
    """
    if not path.exists():
        raise ModelFileError(f"model file {str(path)!r} does not exist. Check the path.")
    load = load_onnx if path.suffix.lower() == ".onnx" else load_pt2
    network, spec = load(path)
    return Segmenter(network, spec, sha256=file_sha256(path))


def load_onnx(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Return network and record of an ONNX file."""
    runtime = _import("onnxruntime", "an .onnx model")
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise ModelFileError(f"{str(path)!r} cannot be read as ONNX: {first}") from error
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    network = OnnxNetwork(path, session, _scaling(metadata, path))
    if SPEC_KEY in metadata:
        return network, ModelSpec.from_json(metadata[SPEC_KEY])
    if DEEPNESS_KEYS & set(metadata):
        answered = session.get_outputs()[0].shape
        channels = answered[1] if len(answered) == 4 and isinstance(answered[1], int) else None
        spec = spec_from_deepness(
            metadata, path.stem, network.shape, channels, output=_onnx_output(path, channels)
        )
        return network, spec
    return network, _from_sidecar(path, _onnx_output(path))


def _scaling(metadata: Mapping[str, str], path: Path) -> Scaling | None:
    """Return gains and biases of a file that standardises by itself and has a geoseg record.

    The record stays that of the model, so that pixels without data become its mean as ever.
    """
    if SPEC_KEY not in metadata or INPUT_KEY not in metadata:
        return None
    try:
        scaling = json.loads(metadata[INPUT_KEY])
        return tuple(map(float, scaling["gain"])), tuple(map(float, scaling["bias"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{str(path)!r}: expected the key {INPUT_KEY!r} to hold gain and bias of each band; "
            f"got {metadata[INPUT_KEY]!r}. Export the model again."
        ) from error


def load_pt2(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Return network and record of a torch.export archive."""
    try:
        program = torch.export.load(path)
        extra = _archive_extras(path)
    except (OSError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        first = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(
            f"{str(path)!r} cannot be read as a torch.export archive: {first}"
        ) from error
    network = ExportedNetwork(path, program.module(), _exported_batch(program))
    if SPEC_KEY in extra:
        return network, ModelSpec.from_json(extra[SPEC_KEY])
    if MLM_ARCHIVE_KEY in extra:
        yaml = _import("yaml", "a .pt2 archive with a YAML record")
        record = yaml.safe_load(extra[MLM_ARCHIVE_KEY])
        return network, spec_from_mlm(record, path.stem, output=_exported_output(program))
    return network, _from_sidecar(path, _exported_output(program))


def _onnx_output(path: Path, channels: int | None = None) -> OutputKind:
    """Return what an ONNX network answers, read off the operators before its first output.

    Other tools' records do not say it. A single channel without a sigmoid is what Deepness compares
    with a threshold between 0 and 1, which makes it a probability too.
    """
    graph = _import("onnx", "an .onnx model").load(str(path), load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in PASSING_OPERATORS:
        node = makers.get(node.input[0])
    is_probability = node is not None and node.op_type in {"Softmax", "Sigmoid"}
    return "probabilities" if is_probability or channels == 1 else "logits"


def _exported_output(program: torch.export.ExportedProgram) -> OutputKind:
    """Return what an exported network answers, read off the operations before its output."""
    node = next(node for node in program.graph.nodes if node.op == "output").args[0]
    while isinstance(node, (tuple, list)) and node:
        node = node[0]
    while _operation(node) in PASSING_OPERATIONS:
        node = node.args[0]
    return "probabilities" if _operation(node) in {"softmax", "_softmax", "sigmoid"} else "logits"


def _operation(node: Any) -> str:
    """Return the name of an operation without library and overload: ``aten.softmax.int``."""
    parts = str(getattr(node, "target", "")).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _from_sidecar(path: Path, output: OutputKind) -> ModelSpec:
    """Return the record in a STAC item beside the model."""
    for beside in (path.with_suffix(".json"), path.with_name(path.name + ".json")):
        if not beside.exists():
            continue
        try:
            item = json.loads(beside.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{str(beside)!r} cannot be read: {error}.") from error
        return spec_from_mlm(item.get("properties", item), path.stem, output=output)
    raise ModelFileError(
        f"{str(path)!r} does not say how it is fed. Add Deepness metadata keys or the key "
        f"{SPEC_KEY!r} to the file, or put a STAC item with mlm: properties beside it as "
        f"{path.with_suffix('.json').name!r}."
    )


def _archive_extras(path: Path) -> dict[str, str]:
    """Return the extra files of a torch.export archive that can hold a record."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            key = name.rpartition("extra/")[2].removesuffix(".json")
            if "extra/" in name and key in {SPEC_KEY, MLM_ARCHIVE_KEY}:
                found[key] = archive.read(name).decode("utf-8")
    return found


def _exported_batch(program: torch.export.ExportedProgram) -> int | None:
    """Return the batch size that a program is fixed to, or None."""
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            size = node.meta["val"].shape[0]
            return size if isinstance(size, int) else None
    return None


def _first(answer: Any) -> Tensor:
    """Return the tensor in an answer that may be a tuple, a list or a dict."""
    while not isinstance(answer, Tensor):
        answer = next(iter(answer.values() if isinstance(answer, Mapping) else answer))
    return answer


def _numpy_type(onnx_type: str) -> type:
    kinds: dict[str, type] = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    return kinds.get(onnx_type, np.float32)


def _import(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendUnavailableError(
            f"{what} needs the package {name!r}, which is not installed. "
            "Install it with: pip install 'geoseg[export]'."
        ) from error
