"""From a run file to network, record and task."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import geoseg
from geoseg.config.run import ClassConfig, RunConfig
from geoseg.convert import advised_tile
from geoseg.data.datamodule import SegmentationDataModule
from geoseg.errors import UsageError
from geoseg.models import create_model
from geoseg.segmenter import Segmenter
from geoseg.spec import Architecture, BandSpec, ModelSpec
from geoseg.train.losses import SegmentationLoss, balanced_weights
from geoseg.train.start import load_start
from geoseg.train.task import SegmentationTask


def resolve(config: RunConfig, data: SegmentationDataModule) -> RunConfig:
    """Return the run with everything written out that the data decide.

    Raises:
        UsageError: the model's bands or classes are not those of the data.
    """
    model = config.model
    for what, asked, found in (
        ("in_channels", model.in_channels, len(data.bands)),
        ("num_classes", model.num_classes, len(data.classes)),
    ):
        if asked is not None and asked != found:
            raise UsageError(
                f"model.{what}: expected {found}, as the data have; got {asked}. Leave it out."
            )
    classes = tuple(ClassConfig(c.id, c.name, c.color) for c in data.classes)
    return replace(
        config,
        model=replace(model, in_channels=len(data.bands), num_classes=len(data.classes)),
        data=replace(
            config.data,
            classes=classes,
            band_names=data.bands,
            dtype=data.dtype,
            mean=data.mean,
            std=data.std,
        ),
    )


def build_network(config: RunConfig) -> tuple[nn.Module, str]:
    """Return the network with its start weights, and how its first convolution was made."""
    model = config.model
    assert model.in_channels is not None
    assert model.num_classes is not None
    torch.manual_seed(config.seed)
    network = create_model(
        model.name,
        in_channels=model.in_channels,
        num_classes=model.num_classes,
        **model.options,
    )
    return network, load_start(network, model)


def build_spec(
    config: RunConfig, data: SegmentationDataModule, first_convolution: str
) -> ModelSpec:
    """Return the record of the model that the run makes."""
    card = config.card
    tile = replace(
        advised_tile(config.model.name), size_px=card.tile_size_px, overlap_px=card.overlap_px
    )
    bands = zip(data.bands, data.mean, data.std, strict=True)
    return ModelSpec(
        name=card.name or Path(config.out).resolve().name,
        architecture=Architecture(config.model.name, dict(config.model.options)),
        bands=tuple(BandSpec(name, mean=mean, std=std) for name, mean, std in bands),
        dtype=data.dtype,
        classes=data.classes,
        gsd_m=config.data.gsd_m,
        ignore_index=config.data.ignore_index,
        tile=tile,
        first_convolution=first_convolution,
        description=card.description,
        warning=card.warning,
        licence=card.licence,
        credits=card.credits,
        data=card.data,
        versions={"geoseg": geoseg.__version__, "torch": str(torch.__version__)},
    )


def recipe(config: RunConfig) -> str:
    """Return the command and the values that matter most, in one line."""
    t, o, a = config.trainer, config.optim, config.augment
    start = config.model.weights or config.model.encoder_weights
    return (
        f"geoseg train; {t.steps} steps of {t.batch_size}x{t.accumulate} crops of {a.crop_px} px "
        f"({a.kind}), AdamW {o.lr:g} {o.schedule}, decay {o.weight_decay:g}, EMA {t.ema_decay}, "
        f"{t.precision}, seed {config.seed}, from {Path(start).name if start else 'random weights'}"
    )


def build_task(
    config: RunConfig, data: SegmentationDataModule, segmenter: Segmenter
) -> SegmentationTask:
    """Return the Lightning module.

    Raises:
        UsageError: another number of class weights than there are classes, or no loss at all.
    """
    weights = config.loss.class_weights
    if weights == "balanced":
        weights = balanced_weights(data.class_counts())
    if weights is not None and len(weights) != len(data.classes):
        raise UsageError(
            f"loss.class_weights: expected one for each of the {len(data.classes)} classes; got "
            f"{len(weights)}."
        )
    return SegmentationTask(
        segmenter,
        SegmentationLoss(config.loss, weights),
        optim=config.optim,
        trainer=config.trainer,
        evaluation=config.evaluation,
        seed=config.seed,
    )
