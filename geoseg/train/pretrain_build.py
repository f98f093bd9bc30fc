"""Data, network and Lightning module of a pre-training run, of both kinds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import geoseg
from geoseg.config.pretrain import MaskedConfig, PretrainConfig
from geoseg.convert import advised_tile
from geoseg.data.class_folders import SeedGenerators, class_folder_split
from geoseg.data.loaders import StreamDataModule
from geoseg.data.sample import Split
from geoseg.data.unlabelled import Unlabelled, unlabelled_crops
from geoseg.errors import InputError, UsageError
from geoseg.models import create_classifier
from geoseg.models.create import EncoderOnly, create_encoder
from geoseg.spec import Architecture, BandSpec, ClassSpec, ModelSpec, Task
from geoseg.train.masked import MaskedNetwork, MaskedTask
from geoseg.train.pretrain_optimizer import peak_lr
from geoseg.train.pretrain_task import ClassificationTask, Pace, PretrainTask
from geoseg.train.start import load_start

AnyConfig = PretrainConfig | MaskedConfig
COLORS = ("red", "green", "blue")


def build(config: AnyConfig, processes: int) -> tuple[AnyConfig, StreamDataModule, PretrainTask]:
    """Return the run with everything written out, its data and its Lightning module."""
    if isinstance(config, PretrainConfig):
        return build_classification(config, processes)
    return build_masked(config, processes)


def build_classification(
    config: PretrainConfig, processes: int
) -> tuple[PretrainConfig, StreamDataModule, ClassificationTask]:
    """Return a run on images in class folders.

    Raises:
        InputError: folders are missing or differ.
        UsageError: the model's classes are not the folders, or batches that cannot be mixed.
    """
    check_mixing(config)
    train = class_folder_split(config.data, "train", config.augment)
    val = class_folder_split(config.data, "val", config.augment)
    check_classes(config, train.classes, val.classes)
    config = replace(
        config, model=replace(config.model, in_channels=3, num_classes=len(train.classes))
    )
    pace = find_pace(config, len(train.dataset), processes)  # type: ignore[arg-type]
    torch.manual_seed(config.seed)
    model = config.model
    classifier = create_classifier(model.name, len(train.classes), **model.options)
    load_start(classifier, model)
    statistics = zip(COLORS, config.data.mean, config.data.std, strict=True)
    bands = tuple(BandSpec(name, mean=mean, std=std) for name, mean, std in statistics)
    spec = build_spec(config, pace, "classification", bands, train.classes)
    data = build_loaders(config, train, val, SeedGenerators(config.seed))
    return config, data, ClassificationTask(classifier, spec, config, pace)


def check_mixing(config: PretrainConfig) -> None:
    """Raise a UsageError if images are mixed in pairs and a batch has an odd one."""
    size = config.trainer.batch_size
    if size % 2 and config.augment.mix > 0 and max(config.augment.mixup, config.augment.cutmix) > 0:
        raise UsageError(
            f"trainer.batch_size: expected an even number, since mixup and cutmix pair the images "
            f"of a batch; got {size}. Change it, or set augment.mix=0."
        )


def check_classes(
    config: PretrainConfig, train: tuple[ClassSpec, ...], val: tuple[ClassSpec, ...]
) -> None:
    """Raise unless both splits have the same folders, as many as the model has classes."""
    names = [{c.name for c in classes} for classes in (train, val)]
    differ = sorted(names[0] ^ names[1])
    if differ:
        raise InputError(
            f"data.root: expected the same class folders in train and val; {len(differ)} are in "
            f"one of them alone, for example {differ[0]!r}."
        )
    asked = config.model.num_classes
    if asked not in {None, len(train)}:
        raise UsageError(
            f"model.num_classes: expected {len(train)}, as there are class folders in "
            f"{config.data.root!r}; got {asked}. Get the missing ones, or leave it out."
        )


def build_masked(
    config: MaskedConfig, processes: int
) -> tuple[MaskedConfig, StreamDataModule, MaskedTask]:
    """Return a run on images without labels.

    Raises:
        InputError: files are missing or differ.
        UsageError: the model's bands are not those of the images, or squares do not fit a crop.
    """
    check_squares(config)
    crops = unlabelled_crops(config.data, config.masking, seed=config.seed)
    config = resolve_masked(config, crops)
    pace = find_pace(config, len(crops.train), processes)
    torch.manual_seed(config.seed)
    model = config.model
    encoder = create_encoder(model.name, len(crops.bands), **model.options)
    network = EncoderOnly(model.name, encoder)
    load_start(network, model)
    statistics = zip(crops.bands, crops.mean, crops.std, strict=True)
    bands = tuple(BandSpec(name, mean=mean, std=std) for name, mean, std in statistics)
    spec = build_spec(config, pace, "pre-training", bands, ())
    train = Split(crops.train, (), bands=crops.bands, dtype=config.data.dtype)
    val = None if crops.val is None else Split(crops.val, (), bands=crops.bands)
    data = build_loaders(config, train, val, crops.train.restart)
    trained = MaskedNetwork(network, spec, config.masking)
    return config, data, MaskedTask(trained, spec, config, pace)


def check_squares(config: MaskedConfig) -> None:
    """Raise a UsageError unless whole squares fill a crop and some are hidden."""
    masking = config.masking
    if masking.patch_px % 32 or masking.crop_px % masking.patch_px:
        raise UsageError(
            "masking: expected patch_px to be a multiple of 32, the encoder's stride, and crop_px "
            f"one of patch_px; got {masking.patch_px} and {masking.crop_px}."
        )
    if not 0 < masking.share < 1:
        raise UsageError(
            f"masking.share: expected more than 0 and less than 1; got {masking.share}."
        )


def resolve_masked(config: MaskedConfig, crops: Unlabelled) -> MaskedConfig:
    """Return the run with everything written out that the images decide."""
    asked = config.model.in_channels
    if asked not in {None, len(crops.bands)}:
        raise UsageError(
            f"model.in_channels: expected {len(crops.bands)}, as the images have; got {asked}. "
            "Leave it out."
        )
    return replace(
        config,
        model=replace(config.model, in_channels=len(crops.bands)),
        data=replace(config.data, band_names=crops.bands, mean=crops.mean, std=crops.std),
    )


def find_pace(config: AnyConfig, samples: int, processes: int) -> Pace:
    """Return the steps of an epoch, which are whole, and of the run."""
    options = config.trainer
    per_step = options.batch_size * options.accumulate * processes
    per_epoch = max(1, samples // per_step)
    return Pace(per_step, per_epoch, per_epoch * (options.epochs + options.cooldown_epochs))


def build_loaders(
    config: AnyConfig, train: Split, val: Split | None, restart: Any
) -> StreamDataModule:
    """Return the loaders."""
    options = config.trainer
    return StreamDataModule(
        train,
        val,
        batch_size=options.batch_size,
        val_batch_size=options.batch_size,
        seed=config.seed,
        accumulate=options.accumulate,
        workers=options.workers,
        restart=restart,
    )


def build_spec(
    config: AnyConfig,
    pace: Pace,
    task: Task,
    bands: tuple[BandSpec, ...],
    classes: tuple[ClassSpec, ...],
) -> ModelSpec:
    """Return the record of the model that the run makes."""
    card = config.card
    return ModelSpec(
        name=card.name or Path(config.out).resolve().name,
        architecture=Architecture(config.model.name, dict(config.model.options)),
        bands=bands,
        dtype=config.data.dtype if isinstance(config, MaskedConfig) else "uint8",
        classes=classes,
        task=task,
        tile=advised_tile(config.model.name),
        description=card.description,
        warning=card.warning,
        licence=card.licence,
        credits=card.credits,
        data=card.data,
        recipe=recipe(config, pace),
        versions={"geoseg": geoseg.__version__, "torch": str(torch.__version__)},
    )


def recipe(config: AnyConfig, pace: Pace) -> str:
    """Return the command and the values that matter most, in one line."""
    t, o = config.trainer, config.optim
    start_from = config.model.weights or config.model.encoder_weights or "random weights"
    return (
        f"geoseg pretrain ({config.task}); {t.epochs}+{t.cooldown_epochs} epochs of "
        f"{pace.steps_per_epoch} steps of {pace.samples_per_step} crops, AdamW "
        f"{peak_lr(o, pace.samples_per_step):g} cosine, decay {o.weight_decay:g}, EMA "
        f"{t.ema_decay}, {t.precision}, seed {config.seed}, from {start_from}"
    )
