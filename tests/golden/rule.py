"""Rebuilds the weights, images and bases of the golden vectors from their names."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent
SALT = 20250611


def generator(tag: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([SALT, zlib.crc32(tag.encode("utf-8"))]))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the tensor of a state-dict key without ``backbone.``; the first rule that fits."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("rope.angle"):  # not random
        theta = 1.0 / 10_000 ** torch.linspace(0, 1, shape[0] // 2)
        return theta.repeat_interleave(2).numpy()
    z = generator(f"w:{name}").standard_normal(shape)
    return _scaled(z, name).astype(np.float32)


# Tests on a name with the value they give to normal numbers, the first that fits.
RULES = (
    (lambda name: name.endswith("running_mean"), lambda z: 0.1 * z),
    (lambda name: name.endswith("running_var"), lambda z: np.exp(0.2 * z)),
    (lambda name: name.endswith("A_logs"), lambda z: 0.3 * z),
    (lambda name: name.endswith("Ds"), lambda z: 1 + 0.2 * z),
    (lambda name: name.endswith("dt_projs_bias"), lambda z: -2 + 0.5 * z),
    (lambda name: "layer_scale" in name and not name.endswith(".bias"), lambda z: 0.15 * z),
    (lambda name: "rpb." in name, lambda z: 0.3 * z),
    (lambda name: name.endswith("bias"), lambda z: 0.1 * z),
)


def _scaled(z: np.ndarray, name: str) -> np.ndarray:
    for fits, value in RULES:
        if fits(name):
            return value(z)
    if z.ndim == 1:
        return 1 + 0.1 * z
    gain = 0.15 if ".cpe" in f".{name}" else 0.5 if ".conv3." in name else 1.0
    fan = z.shape[-1] if name.endswith("dt_projs_weight") else np.prod(z.shape[1:])
    return gain * z / np.sqrt(fan)


def state_dict(keys: str, *, num_classes: int | None = None) -> dict[str, torch.Tensor]:
    """Return the weights for a file of official keys."""
    weights = {}
    for key, shape, _, _ in load(f"keys/{keys}.json"):
        if num_classes is not None and "conv_seg" in key:
            shape = [num_classes, *shape[1:]]
        array = weight(key.removeprefix("backbone."), tuple(shape))
        weights[key] = torch.from_numpy(np.asarray(array))
    return weights


def image(tag: str) -> torch.Tensor:
    """Return the image of a tag ``image:BxCxHxW``."""
    batch, bands, height, width = map(int, tag.split(":")[1].split("x"))
    g = generator(tag)
    coarse = g.standard_normal((batch, bands, -(-height // 16), -(-width // 16)))
    fine = g.standard_normal((batch, bands, height, width))
    large = coarse.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    return torch.from_numpy((large + 0.5 * fine).astype(np.float32))


def bases(tag: str) -> torch.Tensor:
    """Return the bases of a tag ``nmf_bases:NxDxR``, before they are normalised."""
    shape = tuple(map(int, tag.split(":")[1].split("x")))
    return torch.from_numpy(generator(tag).random(shape).astype(np.float32))


def labels(tag: str) -> torch.Tensor:
    """Return the labels of a tag ``labels:BxHxW:K``; a tenth of them is 255."""
    _, sizes, classes = tag.split(":")
    shape = tuple(map(int, sizes.split("x")))
    g = generator(tag)
    target = g.integers(0, int(classes), shape)
    target[g.random(shape) < 0.1] = 255
    return torch.from_numpy(target)


def load(name: str) -> object:
    return json.loads((GOLDEN / name).read_text("utf-8"))


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


def sampled(tensor: torch.Tensor, stored: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Return the values of a tensor that a golden file stores under ``name``."""
    assert tuple(tensor.shape) == tuple(stored[f"{name}__shape"])
    flat = tensor.detach().contiguous(memory_format=torch.contiguous_format).flatten()
    return flat[:: int(stored[f"{name}__stride"])].numpy()


def error(tensor: torch.Tensor, stored: dict[str, np.ndarray], name: str) -> float:
    """Return the largest absolute error over the stored values."""
    return float(np.abs(sampled(tensor, stored, name) - stored[f"{name}__sample"]).max())
