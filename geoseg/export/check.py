"""Whether an exported file answers what the model does: onnxruntime against torch."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from geoseg.errors import ModelFileError
from geoseg.export.network import plan_feeding
from geoseg.segmenter import Segmenter
from geoseg.spec import ModelSpec

TOLERANCE = 1e-4
# Of smaller probabilities, the logarithm says more of rounding than of the model.
LEAST_PROBABILITY = 1e-6
SCENE = "banepa_scene.tif"


@dataclass(frozen=True)
class Difference:
    """How far onnxruntime is from torch on a tile.

    Attributes:
        tile: what it shows.
        probability: largest difference of a probability.
        logit: largest difference of a probability's logarithm.
        same_class: share of pixels of the same class.
    """

    tile: str
    probability: float
    logit: float
    same_class: float

    def __str__(self) -> str:
        """Return a line for people."""
        return (
            f"{self.tile} tile: probabilities differ by {self.probability:.1e} at most, logits by "
            f"{self.logit:.1e}; {100 * self.same_class:.3f} % of pixels have the same class"
        )


def check_export(path: Path, segmenter: Segmenter, spec: ModelSpec) -> list[Difference]:
    """Return how far an exported file is from its model, on noise and on a real scene.

    Args:
        path: of the file.
        segmenter: the model.
        spec: record of the file.

    Raises:
        ModelFileError: a probability differs by more than 1e-4.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tiles = {"random": noise(spec), "real": real_values(spec)}
    differences = [compare(session, segmenter, values, name=name) for name, values in tiles.items()]
    for found in differences:
        if not found.probability <= TOLERANCE:  # so that NaN is refused too
            raise ModelFileError(
                f"the exported model {spec.name!r} does not answer what the model does: expected "
                f"probabilities within {TOLERANCE:g}; on the {found.tile} tile they differ by "
                f"{found.probability:.2g}. Use the .safetensors file, or give --no-check."
            )
    return differences


def compare(
    session: Any, segmenter: Segmenter, values: NDArray[np.generic], *, name: str
) -> Difference:
    """Return how far a session of onnxruntime is from a model on raw values (C, H, W)."""
    raw = torch.from_numpy(values)[None].to(segmenter.preprocess.gain.device)
    with torch.inference_mode():
        logits = segmenter(raw).double() / segmenter.spec.temperature
        wanted = torch.softmax(logits, dim=1).cpu().numpy()
    fed = values[None].astype(np.float32) / np.float32(plan_feeding(segmenter.spec).divisor)
    given = session.get_inputs()[0].name
    answer = session.run(None, {given: fed})[0].astype(np.float64)
    clear = np.maximum(wanted, answer) > LEAST_PROBABILITY
    logs = np.log(np.maximum(np.stack([wanted[clear], answer[clear]]), LEAST_PROBABILITY / 10))
    return Difference(
        tile=name,
        probability=float(np.abs(answer - wanted).max()),
        logit=float(np.abs(logs[0] - logs[1]).max()),
        same_class=float((answer.argmax(1) == wanted.argmax(1)).mean()),
    )


def noise(spec: ModelSpec) -> NDArray[np.generic]:
    """Return a tile of raw values that are normally distributed about the model's means."""
    side = spec.tile.size_px
    shape = (len(spec.bands), side, side)
    return _raw(spec, np.random.default_rng(0).standard_normal(shape))


def real_values(spec: ModelSpec) -> NDArray[np.generic]:
    """Return a tile of a real scene, brought to the means and deviations that a model knows.

    A model of another number of bands sees red, green and blue again and again.
    """
    side = spec.tile.size_px
    with rasterio.open(str(resources.files("geoseg") / "assets" / SCENE)) as scene:
        part = scene.read(window=((0, side), (0, side))).astype(np.float64)  # (3, H, W)
    part = (part - part.mean((1, 2), keepdims=True)) / part.std((1, 2), keepdims=True)
    missing = side - np.array(part.shape[1:])
    part = np.pad(part, [(0, 0), (0, missing[0]), (0, missing[1])], mode="wrap")
    return _raw(spec, part[np.arange(len(spec.bands)) % 3])


def _raw(spec: ModelSpec, standardised: NDArray[np.float64]) -> NDArray[np.generic]:
    """Return values (C, H, W) as a raster of the model's data type stores them."""
    column = (-1, 1, 1)
    std = np.array([b.std for b in spec.bands]).reshape(column)
    mean = np.array([b.mean for b in spec.bands]).reshape(column)
    scale = np.array([b.scale for b in spec.bands]).reshape(column)
    offset = np.array([b.offset for b in spec.bands]).reshape(column)
    values = (standardised * std + mean - offset) / scale
    dtype = np.dtype(np.float32 if spec.dtype == "any" else spec.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)
