"""Turns what a caller means by "model" and "device" into a segmenter that can run there."""

import copy
import hashlib
from pathlib import Path

import torch
from torch import nn

from geoseg.checkpoint import load_model, read_spec
from geoseg.errors import BackendUnavailableError, ModelFileError, UsageError
from geoseg.model_files import find_model
from geoseg.models.folding import FOLDABLE, fold_for_inference
from geoseg.segmenter import DTYPES, Segmenter
from geoseg.spec import ModelSpec
from geoseg.types import Precision

# bf16 is taken by itself only where the model's record shows that the map stays the same.
LEAST_AGREEMENT = 0.999
LARGEST_MIOU_DELTA = 0.1  # points


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        BackendUnavailableError: the named device is not there.
        UsageError: no such kind of device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"expected --device auto, cpu, cuda, cuda:N or mps; got {name!r}."
        ) from error
    reason = device_refusal(device)
    if reason is not None:
        raise BackendUnavailableError(
            f"device {name!r} was asked for, but {reason}. Give --device cpu or --device auto; "
            "`geoseg doctor` says more."
        )
    return device


def device_refusal(device: torch.device) -> str | None:
    """Return why a device cannot be used, or None."""
    if device.type == "cuda":
        if not torch.cuda.is_available():
            built = "" if torch.version.cuda else ", and this torch is built without CUDA"
            return f"no CUDA device is usable{built}"
        if device.index is not None and device.index >= torch.cuda.device_count():
            return f"there are only {torch.cuda.device_count()} CUDA devices"
    elif device.type == "mps" and not torch.backends.mps.is_available():
        return "this machine or this torch has no MPS"
    elif device.type not in {"cpu", "cuda", "mps"}:
        return "only cpu, cuda and mps are supported"
    return None


def choose_precision(precision: Precision, spec: ModelSpec, device: torch.device) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16``; ``auto`` is fp32 unless bf16 is known to do."""
    if precision != "auto":
        return precision
    record = spec.precision.get("bf16")
    if device.type != "cuda" or record is None:
        return "fp32"
    able = torch.cuda.get_device_capability(device) >= (8, 0)
    good = record.agreement >= LEAST_AGREEMENT and abs(record.miou_delta) <= LARGEST_MIOU_DELTA
    return "bf16" if able and good else "fp32"


def as_segmenter(
    model: str | Path | nn.Module, device: torch.device, precision: Precision
) -> Segmenter:
    """Return a segmenter on its device, in eval mode and in the wanted precision.

    A module made in Python is left as it is: another precision works on a copy.

    Raises:
        ModelFileError: no model file, or a module without a record.
        UsageError: the model cannot run in that precision.
    """
    if not isinstance(model, nn.Module):
        segmenter = load_segmenter(model)
    elif isinstance(model, Segmenter):
        segmenter = model
    else:
        segmenter = _wrap(model)
    wanted = choose_precision(precision, segmenter.spec, device)
    is_foreign = getattr(segmenter.network, "is_foreign", False)
    if is_foreign and wanted != "fp32":
        raise UsageError(
            f"model {segmenter.spec.name!r} is an exported network that runs in the precision it "
            f"was exported in; got --precision {wanted}. Leave the option away."
        )
    if isinstance(model, nn.Module) and DTYPES[wanted] != segmenter.compute_dtype:
        segmenter = copy.deepcopy(segmenter)
    if not segmenter.sha256:
        segmenter.sha256 = network_sha256(segmenter)
    if not is_foreign:
        segmenter = folded(segmenter).to_precision(wanted)
    return segmenter.to(device).eval()


def folded(segmenter: Segmenter) -> Segmenter:
    """Return a segmenter that answers the same from fewer operations; another one of our networks.

    Networks of other kinds are left as they are.
    """
    if not isinstance(segmenter.network, FOLDABLE):
        return segmenter
    network = fold_for_inference(segmenter.network)
    other = Segmenter(network, segmenter.spec, sha256=segmenter.sha256)
    other.preprocess = segmenter.preprocess
    other.compute_dtype = segmenter.compute_dtype
    return other


def load_segmenter(model: str | Path) -> Segmenter:
    """Return the segmenter in a file of any supported kind, in fp32 on the CPU."""
    suffix = Path(model).suffix.lower()
    if suffix in {".onnx", ".pt2"}:
        from geoseg.foreign import load_foreign

        return load_foreign(Path(model))
    if suffix in {".pth", ".pt", ".ckpt", ".tar", ".bin"}:
        raise ModelFileError(
            f"{str(model)!r}: expected a .safetensors, .onnx or .pt2 model; got a checkpoint "
            "without a record of how it is fed. Convert an official one with `geoseg convert`."
        )
    return load_model(model)


def network_sha256(segmenter: Segmenter) -> str:
    """Return a hash of a network's weights and record, for one that comes from no file."""
    digest = hashlib.sha256(segmenter.spec.to_json().encode())
    for key, value in segmenter.network.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _wrap(module: nn.Module) -> Segmenter:
    spec = getattr(module, "spec", None)
    if not isinstance(spec, ModelSpec):
        raise ModelFileError(
            f"expected a module with a ModelSpec; {type(module).__name__} has none. Wrap it: "
            "Segmenter(network, ModelSpec(...)), or set its attribute spec."
        )
    return Segmenter(module, spec)


def load_record(model: str | Path) -> ModelSpec:
    """Return the record of a model of any supported kind."""
    if Path(model).suffix.lower() in {".onnx", ".pt2"}:
        return load_segmenter(model).spec
    return read_spec(find_model(model))
