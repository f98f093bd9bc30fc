"""A network as an ONNX graph of standard operators.

Torch's exporter knows no scan and no neighbourhood attention. So the network is traced with an
opaque node in place of each, ONNX functions are made for the sizes that occur, and ONNX's own
inliner puts them where the nodes were.
"""

import io
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import ModelFileError
from geoseg.export import forms
from geoseg.ops.backends import standing_in

STANDARD_DOMAINS = {"", "ai.onnx"}
# Exporters take a batch of one for a constant.
TRACED_BATCH = 2


class Placeholders:
    """Stands in for SegMAN's operations during a trace: an opaque node each.

    Attributes:
        functions: what makes the function of a name that nodes refer to; takes the opset.
    """

    def __init__(self) -> None:
        self.functions: dict[str, Any] = {}
        self._names: dict[object, str] = {}

    def ss2d_scan(self, x: Tensor, q: Tensor, *parameters: Tensor) -> Tensor:
        """Return a node in place of `geoseg.ops.reference.ss2d_scan`."""
        height, width, channels = x.shape[1:]
        sizes = ((height, width), channels, parameters[0].shape[2])
        name = self._name(("ss2d_scan", *sizes))
        self.functions[name] = partial(forms.ss2d_scan, name, *sizes)
        return _node(name, x, q, *parameters)

    def na2d(self, q: Tensor, k: Tensor, v: Tensor, *settings: Any) -> Tensor:
        """Return a node in place of `geoseg.ops.reference.neighborhood_attention`."""
        height, width, heads, dim = q.shape[1:]
        kernel_size, bias, scale, rope = settings
        of = forms.Attention(
            (height, width), heads, dim, kernel_size, scale, bias is not None, rope is not None
        )
        name = self._name(("na2d", of))
        self.functions[name] = partial(forms.na2d, name, of)
        return _node(name, q, k, v, *(() if bias is None else (bias,)), *(rope or ()))

    def _name(self, key: tuple[Any, ...]) -> str:
        return self._names.setdefault(key, f"{key[0]}_{len(self._names)}")


def _node(name: str, *inputs: Tensor) -> Tensor:
    """Return a node of a name, whose result is like its first input."""
    like = inputs[0]
    return torch.onnx.ops.symbolic(
        f"{forms.DOMAIN}::{name}", inputs, dtype=like.dtype, shape=like.shape, version=1
    )


def to_onnx(
    network: nn.Module, shape: tuple[int, int, int], *, opset: int, names: tuple[str, str]
) -> Any:
    """Return a network as an ONNX model of standard operators, for any batch.

    Args:
        network: (N, C, H, W) -> one tensor, in eval mode, float32, on the CPU.
        shape: (C, H, W).
        opset: version of ONNX's operators.
        names: of input and output.

    Raises:
        ModelFileError: an operation has no form in standard operators; the message names it.
    """
    from onnx.inliner import inline_local_functions

    placeholders = Placeholders()
    with standing_in(placeholders):
        model = _trace(network, torch.zeros(TRACED_BATCH, *shape), opset, names)
    for make in placeholders.functions.values():
        model.functions.append(make(opset=opset))
    if model.functions:
        model = inline_local_functions(model)
    _share_constants(model.graph)
    _tidy(model)
    check_standard(model)
    return model


def _trace(network: nn.Module, image: Tensor, opset: int, names: tuple[str, str]) -> Any:
    """Return what torch's exporter makes of a network, as a protocol buffer."""
    try:
        # Older exporters print.
        with torch.no_grad(), redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                network.eval(),
                (image,),
                input_names=names[:1],
                output_names=names[1:],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelFileError(
            f"the network cannot be written as ONNX: {_reason(error)}. Use the .safetensors file."
        ) from error
    assert program is not None
    return program.model_proto


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _share_constants(graph: Any) -> None:
    """Make constant nodes initializers, equal ones one: every inlined function brought its own."""
    shared: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type != "Constant" or value is None:
            kept.append(node)
            continue
        value.name = ""
        content = value.SerializeToString(deterministic=True)
        if content not in shared:
            shared[content] = value.name = node.output[0]
            graph.initializer.append(value)
        renamed[node.output[0]] = shared[content]
    for node in kept:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    del graph.node[:]
    graph.node.extend(kept)


def _tidy(model: Any) -> None:
    """Drop the opaque domain, and the exporter's notes, which tell paths of this machine."""
    kept = [entry for entry in model.opset_import if entry.domain != forms.DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    graph = model.graph
    del graph.value_info[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def check_standard(model: Any) -> None:
    """Raise a ModelFileError unless all operators of a model are ONNX's own."""
    foreign = {
        f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain not in STANDARD_DOMAINS
    }
    foreign |= {function.name for function in model.functions}
    if foreign:
        raise ModelFileError(
            f"expected standard ONNX operators; the network needs {', '.join(sorted(foreign))}. "
            "Use the .safetensors file."
        )
