"""How a model is taught: options, the files of a lesson, and the run made of them."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from geoseg.config.run import (
    AugmentConfig,
    CardConfig,
    ClassConfig,
    DataConfig,
    EvaluationConfig,
    FilesConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    SamplingConfig,
    SplitConfig,
    TrainerConfig,
)
from geoseg.spec import ClassSpec, ModelSpec
from geoseg.train.lesson import CLASS_FIELD, Lesson
from geoseg.types import BandIndexes

# The run itself, below the folder that its files lie in.
RUN = "run"
ENCODER_RATES = {"frozen": 0.0, "low": 0.2, "full": 1.0}


@dataclass(frozen=True)
class FinetuneOptions:
    """How a model is taught.

    Attributes:
        class_field: field of vector labels with a class id or name.
        bands: 1-based bands of the raster in the model's order; None: all but alpha.
        complete: vector file of extents in which all ground without a label is background.
        background: id or name of that class.
        encoder: ``frozen``, ``low`` a fifth of the decoder's learning rate, or ``full``.
        steps: of the optimiser.
        batch_size: crops per step.
        crop_px: side of a crop.
        lr: of the decoder at its peak.
        hold_out: share of the polygons, or of a label raster's ground, that is scored and not
            taught.
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda`` ...
        resume: go on with a stopped run.
        overwrite: replace the output, discard a stopped run.
    """

    class_field: str | None = None
    bands: BandIndexes | None = None
    complete: Path | None = None
    background: str | None = None
    encoder: Literal["frozen", "low", "full"] = "low"
    steps: int = 400
    batch_size: int = 4
    crop_px: int = 256
    lr: float = 1e-3
    hold_out: float = 0.2
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False


def write_labels(lesson: Lesson, raster: str, folder: Path) -> list[FilesConfig]:
    """Return the files to train on, and those to score on if polygons are held out."""
    frames = {"train.gpkg": lesson.train, "held_out.gpkg": lesson.held_out}
    files = []
    for name, frame in frames.items():
        if not frame.empty:
            with warnings.catch_warnings():
                # Labels and raster without a CRS are alike in that, which has been checked.
                warnings.filterwarnings("ignore", "'crs' was not provided")
                frame.to_file(folder / name, driver="GPKG")
            files.append(FilesConfig(images=(raster,), labels=(str(folder / name),)))
    return files


def plan_data(
    spec: ModelSpec, stored: list[tuple[float, float]], options: FinetuneOptions
) -> DataConfig:
    """Return how the data of the run are read: sparse labels, the model's own scaling."""
    return DataConfig(
        kind="raster",
        ignore_index=spec.ignore_index,
        bands=options.bands,
        band_names=tuple(band.name for band in spec.bands),
        dtype=spec.dtype,
        mean=tuple(mean for mean, _ in stored),
        std=tuple(std for _, std in stored),
        gsd_m=spec.gsd_m,
        sampling=SamplingConfig(balance=1.0, least_valid=0.0, patches_per_epoch=256),
    )


def with_files(
    data: DataConfig, files: list[FilesConfig], classes: tuple[ClassSpec, ...]
) -> DataConfig:
    """Return the data of the run with its files: what is held out has been chosen already."""
    is_vector = files[0].labels[0].endswith(".gpkg")
    return replace(
        data,
        train=files[0],
        val=files[1] if len(files) > 1 else None,
        split=SplitConfig(val_share=0.0),
        classes=tuple(ClassConfig(c.id, c.name, c.color) for c in classes),
        class_field=CLASS_FIELD if is_vector else None,
    )


def plan_run(start: Path, spec: ModelSpec, data: DataConfig, options: FinetuneOptions) -> RunConfig:
    """Return the run: small steps from what the model knows."""
    crop = max(options.crop_px, spec.tile.min_px)
    return RunConfig(
        out=str(start.parent / RUN),
        model=ModelConfig(
            spec.architecture.name,
            options=dict(spec.architecture.options),
            weights=str(start),
        ),
        data=data,
        augment=AugmentConfig(
            kind="remote_sensing", crop_px=crop, scale=(0.8, 1.25), cat_max_ratio=1.0, jitter=0.5
        ),
        optim=OptimConfig(
            lr=options.lr,
            encoder_lr_factor=ENCODER_RATES[options.encoder],
            decoder_lr_factor=1.0,
            no_decay="vectors",
            schedule="cosine",
            warmup_steps=min(20, options.steps),
            warmup_ratio=0.1,
            clip_norm=5.0,
        ),
        loss=LossConfig(averaging="valid"),
        trainer=TrainerConfig(
            steps=options.steps,
            batch_size=options.batch_size,
            ema_decay=0.98,
            val_every_steps=max(1, options.steps // 4),
            # The statistics of a few crops of one scene would replace those of all it has seen.
            freeze_batch_norm=True,
            workers=0,
            log_every_steps=10,
        ),
        evaluation=EvaluationConfig(crop_px=max(512, crop)),
        card=CardConfig(warning=spec.warning, licence=spec.licence, credits=spec.credits),
        seed=options.seed,
    )
