"""Model files: weights and the record of how they are fed, in one .safetensors."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geoseg.errors import DiskFullError, MachineError, ModelFileError
from geoseg.model_files import file_sha256, find_model, not_a_model, read_spec
from geoseg.models import MODELS, create_classifier, create_model
from geoseg.models.create import EncoderOnly, create_encoder
from geoseg.segmenter import Segmenter
from geoseg.spec import SPEC_KEY, ModelSpec

__all__ = ["load_model", "load_network", "read_spec", "save_model"]


def save_model(
    path: str | Path, network: nn.Module, spec: ModelSpec, *, half: bool = False
) -> Path:
    """Write a model file; an existing one is replaced in one step.

    Args:
        path: ends with ``.safetensors``.
        network: its state dict is written.
        spec: the record that goes into the header.
        half: store matrices in half precision; vectors (biases, statistics) keep float32.

    Returns:
        The path.

    Raises:
        ModelFileError: another ending of the name.
        DiskFullError: no room; an existing file is as it was.
        MachineError: the file cannot be written there.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelFileError(f"expected a name that ends with .safetensors; got {path.name!r}.")
    weights = {k: _stored(v, half=half) for k, v in network.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(weights, temporary, metadata={SPEC_KEY: spec.to_json()})
            temporary.chmod(mode)  # safetensors leaves a file that only its owner can read
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink()
    except (OSError, SafetensorError) as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"the disk of {str(path)!r} is full; no model was written. Free some space."
            ) from error
        raise MachineError(
            f"{str(path)!r} cannot be written: {error}. Give another name, or mend the cause."
        ) from error
    return path


def is_disk_full(error: Exception) -> bool:
    """Return whether a file could not be written for want of room."""
    # safetensors and torch's zip writer pass the system's number on as text, or not at all.
    full = {errno.ENOSPC, errno.EDQUOT}
    text = str(error)
    return getattr(error, "errno", None) in full or "StorageFull" in text or "code: 28" in text


def load_network(path: str | Path) -> tuple[nn.Module, ModelSpec]:
    """Return the network of a model file in eval mode, float32, with its record."""
    spec = read_spec(path)
    name = spec.architecture.name
    if name not in MODELS:
        raise ModelFileError(
            f"{str(path)!r}: expected one of the networks {', '.join(MODELS)}; got {name!r}. "
            "Update geoseg, or build the network in Python and wrap it in Segmenter."
        )
    network = _build(spec)
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise not_a_model(Path(path), f"damaged weights ({error})") from error
    _fill(network, weights, Path(path))
    return network.eval(), spec


def _build(spec: ModelSpec) -> nn.Module:
    """Return the network that a record describes, with freshly drawn weights."""
    name, options = spec.architecture.name, spec.architecture.options
    if spec.task == "classification":
        return create_classifier(name, spec.num_classes, **options)
    if spec.task == "pre-training":
        return EncoderOnly(name, create_encoder(name, spec.in_channels, **options))
    return create_model(name, in_channels=spec.in_channels, num_classes=spec.num_classes, **options)


def load_model(
    model: str | Path, *, device: str | torch.device = "cpu", precision: str = "fp32"
) -> Segmenter:
    """Return a ready segmenter.

    Args:
        model: path of a ``.safetensors`` file, or the name of a shipped model.
        device: where it runs.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ModelFileError: no such model, damaged, or not one that predicts maps.
    """
    path = find_model(model)
    network, spec = load_network(path)
    segmenter = Segmenter(network, spec, sha256=file_sha256(path)).eval()
    return segmenter.to_precision(precision).to(device)


def _stored(tensor: Tensor, *, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if half and tensor.ndim > 1 and tensor.dtype == torch.float32:
        tensor = tensor.half()
    return tensor


def _fill(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    own = network.state_dict()
    differ = sorted(set(own) ^ set(weights))
    differ += [k for k in own if k in weights and own[k].shape != weights[k].shape]
    if differ:
        raise ModelFileError(
            f"{str(path)!r}: weights and record disagree in {len(differ)} tensors, for example "
            f"{differ[0]!r}. Save or convert the model again."
        )
    network.load_state_dict(weights)
