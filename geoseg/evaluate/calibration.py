"""Whether confidences can be taken as probabilities, and the temperature that makes them so.

ECE and the reliability table after Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern
Neural Networks", ICML 2017, with 15 bins; the temperature divides blended logits before the
softmax, as `predict` does, and minimises the negative log likelihood.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geoseg.checkpoint import load_network, save_model
from geoseg.errors import UsageError
from geoseg.evaluate.record import Calibration, ReliabilityBin
from geoseg.model_files import find_model
from geoseg.segmenter import Segmenter

BINS = 15
SAMPLE_PIXELS = 200_000
# Logits of the sample together, whatever the number of classes: 64 MiB.
SAMPLE_LOGITS = 2**24
TEMPERATURES = (0.05, 20.0)
FIT_STEPS = 30  # of the golden section: the interval shrinks to 5e-7 of itself
SMALLEST_PROBABILITY = 1e-30
GOLDEN = (math.sqrt(5.0) - 1) / 2
FEW_PIXELS = 1000


class PixelSample:
    """A uniform random sample of pixels, drawn while they pass by; the same at every run.

    Every pixel draws a number and those with the smallest are kept.

    Args:
        num_classes: K.
        views: test-time views V, whose probabilities are averaged.
        seed: of the draw.
    """

    def __init__(self, num_classes: int, *, views: int = 1, seed: int = 0) -> None:
        self.limit = min(SAMPLE_PIXELS, max(FEW_PIXELS, SAMPLE_LOGITS // (num_classes * views)))
        self.views = views
        self._rng = np.random.default_rng(seed)
        self._shape = (views, num_classes)
        self._keys: list[NDArray[np.float64]] = []
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._threshold = 1.0

    def add(
        self,
        logits: Tensor,
        targets: Tensor,
        known: Tensor,
        *,
        softmax_temperature: float | None = None,
    ) -> None:
        """Let a block of pixels pass by.

        Args:
            logits: (views x K, H, W), before any temperature.
            targets: channel indexes, (H, W).
            known: True where a pixel may be drawn, (H, W).
            softmax_temperature: given, ``logits`` are probabilities made at that temperature.
        """
        where = known.flatten().nonzero()[:, 0]
        keys = self._rng.random(len(where))
        low = keys < self._threshold
        chosen = where[torch.from_numpy(low).to(where.device)]
        if len(chosen) == 0:
            return
        rows = logits.flatten(1).index_select(1, chosen.to(logits.device)).float()  # (V K, n)
        if softmax_temperature is not None:
            rows = rows.clamp_min(SMALLEST_PROBABILITY).log() * softmax_temperature
        self._logits.append(rows.cpu().T.reshape(-1, *self._shape))
        self._targets.append(targets.flatten()[chosen].long().cpu())
        self._keys.append(keys[low])
        if sum(map(len, self._keys)) > 2 * self.limit:
            self._prune()

    def result(self) -> tuple[Tensor, Tensor]:
        """Return logits (n, V, K) float32 and targets (n,) of the sample."""
        self._prune()
        if not self._logits:
            return torch.zeros((0, *self._shape)), torch.zeros(0, dtype=torch.int64)
        return self._logits[0], self._targets[0]

    def _prune(self) -> None:
        if not self._keys:
            return
        keys = np.concatenate(self._keys)
        logits, targets = torch.cat(self._logits), torch.cat(self._targets)
        if len(keys) > self.limit:
            kept = np.sort(np.argpartition(keys, self.limit)[: self.limit])
            self._threshold = float(keys[kept].max())
            keys, rows = keys[kept], torch.from_numpy(kept)
            logits, targets = logits[rows], targets[rows]
        self._keys, self._logits, self._targets = [keys], [logits], [targets]


def calibrate(logits: Tensor, targets: Tensor, temperature: float) -> Calibration | None:
    """Return the calibration of a sample of pixels, as it is and at its best; None without pixels.

    Args:
        logits: (n, V, K), blended, before any temperature.
        targets: channel indexes, (n,).
        temperature: that the model is run with.
    """
    if len(targets) == 0:
        return None
    best = fit_temperature(logits, targets)
    before, after = (probabilities(logits, t) for t in (temperature, best))
    bins, bins_after = reliability(before, targets), reliability(after, targets)
    return Calibration(
        ece=expected_error(bins),
        bins=bins,
        nll=mean_nll(before, targets),
        temperature=temperature,
        best_temperature=best,
        ece_after=expected_error(bins_after),
        nll_after=mean_nll(after, targets),
        bins_after=bins_after,
        pixels=len(targets),
        note=_fit_note(best, len(targets)),
    )


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return (n, K): the softmax of each view (n, V, K) at a temperature, averaged over views."""
    return torch.softmax(logits / temperature, dim=-1).mean(dim=1)


def mean_nll(probs: Tensor, targets: Tensor) -> float:
    """Return the mean of -log p(target), (n, K) and (n,)."""
    chosen = probs.gather(1, targets[:, None])[:, 0].double()
    return float(-chosen.clamp_min(SMALLEST_PROBABILITY).log().mean())


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """Return the temperature between 0.05 and 20 of the least negative log likelihood.

    With one view the likelihood has a single optimum over the temperature, which a golden section
    of its logarithm finds.
    """
    # Class by class, (V, K, n), less each pixel's greatest: one exponential is all that is left.
    rows = np.ascontiguousarray(logits.permute(1, 2, 0).numpy())
    rows = rows - rows.max(axis=1, keepdims=True)
    wanted = targets.numpy()
    pixels = np.arange(len(wanted))

    def loss(log_temperature: float) -> float:
        weights = np.exp(rows / np.float32(math.exp(log_temperature)))
        probs = (weights[:, wanted, pixels] / weights.sum(axis=1)).mean(axis=0)
        return float(-np.log(probs.clip(SMALLEST_PROBABILITY), dtype=np.float64).mean())

    low, high = (math.log(t) for t in TEMPERATURES)
    return round(math.exp(minimise(loss, low, high)), 6)


def minimise(loss: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with a single minimum in [low, high] has it."""
    inner, outer = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_inner, at_outer = loss(inner), loss(outer)
    for _ in range(FIT_STEPS):
        if at_inner <= at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - GOLDEN * (high - low)
            at_inner = loss(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + GOLDEN * (high - low)
            at_outer = loss(outer)
    return (low + high) / 2


def reliability(probs: Tensor, targets: Tensor) -> tuple[ReliabilityBin, ...]:
    """Return 15 bins of equal width over the confidence, from probabilities (n, K)."""
    confidence, predicted = (values.numpy() for values in probs.double().max(dim=1))
    right = (predicted == targets.numpy()).astype(np.float64)
    # Bins are open below and closed above, so that a confidence of one is in the last.
    index = (np.ceil(confidence * BINS).astype(np.int64) - 1).clip(0, BINS - 1)
    count = np.bincount(index, minlength=BINS)
    with np.errstate(invalid="ignore"):
        sure = np.bincount(index, confidence, BINS) / count
        true = np.bincount(index, right, BINS) / count
    return tuple(
        ReliabilityBin(i / BINS, (i + 1) / BINS, int(count[i]), float(sure[i]), float(true[i]))
        for i in range(BINS)
    )


def expected_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Return the expected calibration error: gaps of the bins, weighted by their pixels."""
    filled = [b for b in bins if b.count]
    total = sum(b.count for b in filled)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in filled) / total


def store_temperature(model: str | Path | nn.Module, temperature: float, out: Path) -> Path:
    """Write a copy of a model file whose record holds another temperature.

    Args:
        model: a ``.safetensors`` file, the name of a shipped model, or a `Segmenter`.
        temperature: that blended logits are divided by.
        out: ends with ``.safetensors``; replaced if it exists.

    Raises:
        UsageError: the model is of another kind.
    """
    check_storable(model, out)
    if isinstance(model, nn.Module):
        assert isinstance(model, Segmenter)
        network, spec, half = model.network, model.spec, False
    else:
        path = find_model(model)
        (network, spec), half = load_network(path), _is_half(path)
    return save_model(out, network, dataclasses.replace(spec, temperature=temperature), half=half)


def check_storable(model: str | Path | nn.Module, out: Path) -> None:
    """Raise a UsageError unless `store_temperature` can write a copy of the model."""
    if out.suffix != ".safetensors":
        raise UsageError(
            f"--store-temperature: expected a name that ends with .safetensors; got {str(out)!r}."
        )
    if isinstance(model, nn.Module):
        able, got = isinstance(model, Segmenter), type(model).__name__
    else:
        able, got = find_model(model).suffix == ".safetensors", str(model)
    if not able:
        raise UsageError(
            "expected a .safetensors model, whose record can hold a temperature; got "
            f"{got!r}. Leave --store-temperature away."
        )


def _is_half(path: Path) -> bool:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return any(file.get_slice(key).get_dtype() == "F16" for key in file.keys())  # noqa: SIM118


def _fit_note(temperature: float, pixels: int) -> str:
    low, high = TEMPERATURES
    if not 1.01 * low < temperature < 0.99 * high:
        return (
            "the likelihood has no optimum between the temperatures "
            f"{low:g} and {high:g}: the map is right or wrong almost everywhere; do not store it"
        )
    if pixels < FEW_PIXELS:
        return f"only {pixels} pixels: the temperature is not worth storing"
    return ""
