"""Scores of a model on one split of a data set, as the benchmarks compute them."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.config.run import EvaluationConfig
from geoseg.data.sample import IGNORE, Sample, Split
from geoseg.errors import BandMismatchError, InputError
from geoseg.evaluate.boundary import BoundaryCounts, default_distance_px
from geoseg.evaluate.calibration import PixelSample, calibrate
from geoseg.evaluate.examples import ExampleKeeper, picture_step, to_picture
from geoseg.evaluate.metrics import ConfusionMatrix, class_scores, count_pairs
from geoseg.evaluate.protocol import infer_benchmark
from geoseg.evaluate.record import EvaluationRecord, Picture
from geoseg.evaluate.summary import all_scores, class_rows, matrix, matrix_rows, versions
from geoseg.listener import Listener
from geoseg.segmenter import Segmenter
from geoseg.spec import ClassSpec, ModelSpec


class DatasetCounts:
    """What the samples of a split add up to.

    Args:
        spec: of the model.
        to_model: model channel of each channel of the data, see `match_classes`.
        seed: of the pixels that calibration is measured on.
    """

    def __init__(self, spec: ModelSpec, to_model: NDArray[np.uint8], seed: int) -> None:
        self.spec = spec
        self.to_model = torch.from_numpy(to_model)
        self.confusion = ConfusionMatrix(spec.num_classes)
        self.boundary = BoundaryCounts(spec.num_classes)
        self.sample = PixelSample(spec.num_classes, seed=seed)
        self.examples = ExampleKeeper()
        self.ignored = 0
        self.samples = 0

    def add(self, sample: Sample, probs: Tensor, dtype: str) -> None:
        """Count one sample.

        Args:
            sample: with ``image``, ``mask``, ``valid`` and ``name``.
            probs: (K, H, W).
            dtype: of the image files, for the picture.
        """
        valid: Tensor = sample["valid"].cpu()
        target = self._target(sample["mask"].cpu(), valid)
        predicted = probs.argmax(dim=0).to("cpu", torch.uint8)
        counts = count_pairs(target, predicted, self.spec.num_classes)
        self.confusion.counts += counts
        distance_px = default_distance_px(*target.shape)
        labels, answer = target.numpy(), predicted.numpy()
        self.boundary.update(labels, np.where(valid.numpy(), answer, IGNORE), distance_px)
        self.sample.add(probs, target, target != IGNORE, softmax_temperature=self.spec.temperature)
        self.ignored += int((target == IGNORE).sum())
        self.samples += 1
        iou = class_scores(counts)["iou"]
        score = float(np.nanmean(iou)) if counts.sum() else float("nan")
        self.examples.offer(score, lambda: _picture(sample, score, labels, answer, dtype))

    def _target(self, mask: Tensor, valid: Tensor) -> Tensor:
        """Return labels as the model's channels, uint8 (H, W); IGNORE where not valid."""
        known = (mask != IGNORE) & valid
        channels = self.to_model[torch.where(known, mask, 0)]
        return torch.where(known, channels, torch.tensor(IGNORE, dtype=torch.uint8))


def evaluate_dataset(
    segmenter: Segmenter,
    split: Split,
    evaluation: EvaluationConfig,
    *,
    data: str,
    listener: Listener | None = None,
    seed: int = 0,
) -> EvaluationRecord:
    """Return the scores of a model on a split.

    Args:
        segmenter: in eval mode, on its device.
        split: the samples.
        evaluation: sizes, windows, ratios and mirroring.
        data: what the split is called in the record.
        listener: hears of each sample and may stop.
        seed: of the pixels that calibration is measured on.

    Raises:
        InputError: model and data have other classes or bands, or nothing is labelled.
    """
    began, listener = time.perf_counter(), listener or Listener()
    spec = segmenter.spec
    check_bands(spec, split)
    counts = DatasetCounts(spec, match_classes(spec, split.classes), seed)
    indexes = _indexes(split)
    sentence = f"{spec.name}: {len(indexes)} samples, {data}"
    listener.start({"unit": "samples", "sentence": sentence, "samples": len(indexes)})
    pixels = 0
    for done, index in enumerate(indexes):
        listener.check()
        sample: Sample = split.dataset[index]
        probs = infer_benchmark(segmenter, sample["image"], sample["valid"], evaluation)
        counts.add(sample, probs, split.dtype)
        pixels += probs.shape[-2] * probs.shape[-1]
        listener.progress(done + 1, len(indexes), pixels)
    scored = int(counts.confusion.counts.sum())
    if scored == 0:
        raise InputError(
            f"expected labelled pixels in {data}; {counts.samples} samples have none. Check the "
            "labels, with `geoseg describe`."
        )
    return EvaluationRecord(
        kind="dataset",
        model=spec.name,
        data=data,
        scores=all_scores(counts.confusion, counts.boundary, spec.classes),
        classes=class_rows(counts.confusion, counts.boundary, spec.classes),
        confusion=matrix_rows(counts.confusion),
        samples=counts.samples,
        pixels=scored,
        ignored_pixels=counts.ignored,
        calibration=calibrate(*counts.sample.result(), spec.temperature),
        pictures=counts.examples.pictures(),
        settings=_settings(evaluation, spec),
        notes=(*split.notes, *_notes(matrix(counts.confusion), evaluation, spec)),
        versions=versions(),
        seconds=time.perf_counter() - began,
    )


def match_classes(spec: ModelSpec, classes: Sequence[ClassSpec]) -> NDArray[np.uint8]:
    """Return the model's channel of each channel of the data, matched by name.

    Raises:
        InputError: the two have not the same classes.
    """
    own = [c.name.strip().casefold() for c in spec.classes]
    names = [c.name.strip().casefold() for c in classes]
    if sorted(own) != sorted(names) or len(set(own)) != len(own):
        if own == names:  # names that occur twice
            return np.arange(len(own), dtype=np.uint8)
        missing = [c.name for c, name in zip(classes, names, strict=True) if name not in own]
        lacking = [c.name for c, name in zip(spec.classes, own, strict=True) if name not in names]
        differ = "; ".join(
            f"only the {who} {'have' if who == 'data' else 'has'} {', '.join(found[:6])}"
            for who, found in (("data", missing), ("model", lacking))
            if found
        )
        raise InputError(
            f"expected the {len(own)} classes of model {spec.name!r}; the data have {len(names)} "
            f"({differ}). Evaluate on data with the model's classes, named alike."
        )
    return np.array([own.index(name) for name in names], dtype=np.uint8)


def check_bands(spec: ModelSpec, split: Split) -> None:
    """Raise a BandMismatchError unless the data have the model's bands in its order."""
    wanted, got = [b.name.lower() for b in spec.bands], [b.lower() for b in split.bands]
    swapped = wanted != got and sorted(wanted) == sorted(got)
    if len(wanted) == len(got) and not swapped:
        return
    raise BandMismatchError(
        f"model {spec.name!r} expects {len(wanted)} band(s) ({', '.join(wanted)}); the data have "
        f"{len(got)} ({', '.join(got)}). Set data.bands in the run file."
    )


def _indexes(split: Split) -> Sequence[Any]:
    indexes: Iterable[Any] = split.sampler or range(len(split.dataset))  # type: ignore[arg-type]
    return list(indexes)


def _picture(
    sample: Sample,
    score: float,
    target: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    dtype: str,
) -> Picture:
    step = picture_step(*target.shape)
    values = sample["image"][:, ::step, ::step].cpu().numpy()
    valid = sample["valid"][::step, ::step].cpu().numpy()
    image = to_picture(values, valid, dtype)
    small, answer = (labels[::step, ::step].copy() for labels in (target, predicted))
    return Picture(str(sample["name"]), "best", score, image, small, answer)


def _settings(evaluation: EvaluationConfig, spec: ModelSpec) -> dict[str, Any]:
    sliding = {"crop_px": evaluation.crop_px, "stride_px": evaluation.stride_px}
    return {
        "mode": evaluation.mode,
        **(sliding if evaluation.mode == "slide" else {}),
        "base_size_px": evaluation.base_size_px,
        "multiple_px": evaluation.multiple_px,
        "ratios": evaluation.ratios,
        "flip": evaluation.flip,
        "temperature": spec.temperature,
        "boundary_distance": "2 % of each image's diagonal",
    }


def _notes(counts: NDArray[np.int64], evaluation: EvaluationConfig, spec: ModelSpec) -> list[str]:
    notes = []
    absent = [c.name for c, n in zip(spec.classes, counts.sum(axis=1), strict=True) if n == 0]
    if absent:
        notes.append(f"not labelled anywhere in these data: {', '.join(absent)}")
    if len(evaluation.ratios) > 1 or evaluation.flip:
        notes.append("the temperature is fitted on the averaged probabilities of several views")
    return notes
