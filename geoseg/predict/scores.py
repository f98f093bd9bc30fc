"""Blended logits to class ids, confidence and probabilities.

Softmax is taken once, after blending; with several views their probabilities are averaged.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg import _native
from geoseg.errors import ModelFileError
from geoseg.spec import ModelSpec
from geoseg.types import ValidMask

SCORE_STEPS = 254  # probabilities are stored as round(254 p); 255 is nodata
SCORE_NODATA = 255

Layers = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class ScoreKinds:
    """Which scores a run wants beside the class map."""

    confidence: bool = False
    probabilities: bool = False


def empty_layers(spec: ModelSpec, kinds: ScoreKinds, height: int, width: int) -> Layers:
    """Return unfilled arrays (bands, height, width) of the class map and the wanted scores."""
    layers: dict[str, NDArray[np.generic]] = {
        "class_map": np.empty((1, height, width), spec.map_dtype)
    }
    if kinds.confidence:
        layers["confidence"] = np.empty((1, height, width), np.uint8)
    if kinds.probabilities:
        layers["probabilities"] = np.empty((spec.num_classes, height, width), np.uint8)
    return layers


def fill_nodata(layers: Layers, spec: ModelSpec) -> None:
    """Fill layers where no pixel has an answer."""
    for name, layer in layers.items():
        layer[:] = spec.map_nodata if name == "class_map" else SCORE_NODATA


def classify(
    logits: Tensor, valid: ValidMask | None, spec: ModelSpec, views: int, layers: Layers
) -> None:
    """Fill the layers of a block of pixels; nodata where not valid.

    Args:
        logits: blended, (views x K, H, W), float32.
        valid: True where the map has an answer, (H, W); None: everywhere.
        spec: class ids and temperature.
        views: test-time views, outermost in the first axis.
        layers: as `empty_layers` makes them, or parts of such.

    Raises:
        ModelFileError: the network answered NaN or infinity at a valid pixel.
    """
    if logits.device.type == "cpu" and _native.library() is not None:
        bad = _native.classify(
            logits.numpy(),
            valid,
            views=views,
            inverse_temperature=1.0 / spec.temperature,
            ids=np.array([c.id for c in spec.classes], dtype=np.uint16),
            nodata=spec.map_nodata,
            layers=layers,
        )
    else:
        bad = classify_reference(logits, valid, spec, views, layers)
    if bad:
        raise ModelFileError(
            f"model {spec.name!r} answered NaN or infinity at {bad} pixels. Give --precision "
            "fp32; if it is that already, the weights are damaged or the values out of range."
        )


def classify_reference(
    logits: Tensor, valid: ValidMask | None, spec: ModelSpec, views: int, layers: Layers
) -> int:
    """Do the same and return the number of bad pixels: the specification of the kernel.

    It also runs where there is no compiled library, and on other devices.
    """
    planes, height, width = logits.shape
    by_view = logits.view(views, planes // views, height, width)
    broken = (~torch.isfinite(logits)).any(dim=0).cpu().numpy()
    index = by_view[0].argmax(dim=0)
    if views > 1 or len(layers) > 1:
        probs = torch.softmax(by_view / spec.temperature, dim=1).mean(dim=0)  # (K, H, W)
        if views > 1:
            index = probs.argmax(dim=0)
        if "confidence" in layers:
            layers["confidence"][:] = _quantize(probs.amax(dim=0, keepdim=True))
        if "probabilities" in layers:
            layers["probabilities"][:] = _quantize(probs)
    ids = np.array([c.id for c in spec.classes], dtype=spec.map_dtype)
    layers["class_map"][0] = ids[index.cpu().numpy()]
    if valid is None:
        return int(broken.sum())
    for name, layer in layers.items():
        layer[:, ~valid] = spec.map_nodata if name == "class_map" else SCORE_NODATA
    return int((broken & valid).sum())


def _quantize(probs: Tensor) -> NDArray[np.uint8]:
    # NaN would be an undefined uint8; such pixels are refused or nodata.
    stored = torch.nan_to_num(probs) * SCORE_STEPS
    return (stored + 0.5).to(torch.uint8).cpu().numpy()
