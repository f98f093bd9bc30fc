"""How far bfloat16 moves a model's maps, measured on the validation images."""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from geoseg.checkpoint import load_model, read_spec
from geoseg.config.run import EvaluationConfig
from geoseg.data.sample import Split
from geoseg.data.stream import split_items
from geoseg.evaluate.metrics import ConfusionMatrix, scores
from geoseg.evaluate.protocol import infer_benchmark
from geoseg.segmenter import Segmenter
from geoseg.spec import PrecisionRecord
from geoseg.train.checkpoints import write_model

# More images change the fourth digit.
MOST_IMAGES = 100


def record_bf16(
    model: Path,
    split: Split,
    evaluation: EvaluationConfig,
    *,
    device: torch.device,
    half: bool,
    network: nn.Module | None = None,
) -> PrecisionRecord:
    """Measure a model file's maps in bfloat16 against float32 and write the record into it.

    Args:
        model: file, which is replaced.
        split: of the validation.
        evaluation: how its images are predicted.
        device: to run on.
        half: store the model's matrices in half precision.
        network: that the file's weights are of; None: the one that its record names.
    """
    exact = load_model(model, device=device) if network is None else _filled(network, model, device)
    rough = copy.deepcopy(exact).to_precision("bf16")
    found = measure_agreement((exact, rough), split, evaluation)
    record = replace(found, device=device.type)
    spec = replace(exact.spec, precision=exact.spec.precision | {"bf16": record})
    write_model(model, exact.network, spec, half=half)
    return record


def _filled(network: nn.Module, model: Path, device: torch.device) -> Segmenter:
    """Return a copy of a network with the weights of a model file."""
    filled = copy.deepcopy(network).float()
    filled.load_state_dict(load_file(model))
    return Segmenter(filled, read_spec(model)).eval().to(device)


def measure_agreement(
    segmenters: tuple[Segmenter, Segmenter],
    split: Split,
    evaluation: EvaluationConfig,
) -> PrecisionRecord:
    """Return on which share of pixels two segmenters agree, and what the second adds to the mIoU.

    Args:
        segmenters: in eval mode, with their record.
        split: of images and labels.
        evaluation: how images are predicted.
    """
    counts = [ConfusionMatrix(len(split.classes)) for _ in segmenters]
    same = pixels = 0
    for item in split_items(split)[:MOST_IMAGES]:
        sample = split.dataset[item]
        maps = []
        for segmenter, confusion in zip(segmenters, counts, strict=True):
            probs = infer_benchmark(segmenter, sample["image"], sample["valid"], evaluation)
            maps.append(probs.argmax(dim=0).cpu())
            confusion.update(sample["mask"], maps[-1])
        same += int((maps[0] == maps[1]).sum())
        pixels += maps[0].numel()
    names = [c.name for c in split.classes]
    exact, rough = (scores(confusion.counts, names)["miou"] for confusion in counts)
    return PrecisionRecord(round(same / pixels, 5), round(100 * (rough - exact), 4))
