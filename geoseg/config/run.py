"""A training run as one flat file: what is in ``configs/*.yaml``, value by value.

Paths are relative to the working directory. Lengths end in their unit.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

DataKind = Literal[
    "folder",
    "raster",
    "landcoverai",
    "landcoverai_scenes",
    "ade20k",
    "voc",
    "cityscapes",
    "coco_stuff",
    "camvid",
]


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        name: key of `geoseg.models.MODELS`.
        in_channels: input bands; None: as many as the data have.
        num_classes: classes; None: as many as the data have. Given, it is checked against them.
        options: keyword arguments of the network's builder, for example ``{drop_path: 0.1}``.
        encoder_weights: file to start the encoder from: an official checkpoint, the output of
            ``geoseg pretrain``, or a geoseg model. None: random.
        weights: model file to start from whole; the last layer is new where the classes differ.
    """

    name: str
    in_channels: int | None = None
    num_classes: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    encoder_weights: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class ClassConfig:
    """A class.

    Attributes:
        id: as in the label files.
        name: said in legends and scores.
        color: #RRGGBB, in quotes; None: one is chosen.
    """

    id: int
    name: str
    color: str | None = None


@dataclass(frozen=True)
class FilesConfig:
    """The files of one split.

    Attributes:
        images: folder, pattern or list of them.
        labels: likewise, paired with the images by file name without suffix (an ending such as
            ``_mask``, ``_m``, ``_label`` is allowed); for ``raster`` data also a vector file.
        names: text file with one name a line; only these images are taken.
        roi: vector file; only ground inside of its polygons is used (``raster`` data).
    """

    images: str | tuple[str, ...]
    labels: str | tuple[str, ...]
    names: str | None = None
    roi: str | None = None


@dataclass(frozen=True)
class SplitConfig:
    """How one set is divided when only ``train`` files are given.

    Attributes:
        by: ``cell`` grid cells on the ground, ``scene`` whole files, ``chip`` single chips, which
            leaks between neighbours and must be asked for by name.
        val_share: share of cells, scenes or chips held out for validation.
        test_share: likewise for the test.
        cell_m: side of a grid cell in metres.
        seed: of the draw.
    """

    by: Literal["cell", "scene", "chip"] = "scene"
    val_share: float = 0.2
    test_share: float = 0.0
    cell_m: float = 500.0
    seed: int = 0


@dataclass(frozen=True)
class SamplingConfig:
    """Which patches of rasters are seen, and how often.

    Attributes:
        balance: 0 draws places uniformly over the ground; 1 draws the class first, each as often
            as another; between them, a mixture of both.
        least_valid: patches with a smaller share of valid, labelled pixels are drawn again.
        per_file: weight files ``area`` by the ground they cover, or ``equal``.
        patches_per_epoch: None: as many as cover the ground once.
        gsd_m: ground sampling distance that all scenes are resampled to; None: each keeps its own.
    """

    balance: float = 0.0
    least_valid: float = 0.05
    per_file: Literal["area", "equal"] = "area"
    patches_per_epoch: int | None = None
    gsd_m: float | None = None


@dataclass(frozen=True)
class DataConfig:
    """Imagery and labels.

    Attributes:
        kind: ``folder`` pairs of image and mask files; ``raster`` georeferenced scenes with label
            rasters or vectors; else a published set in its official folder layout.
        root: folder of a published set.
        train: files of the training split, for ``folder`` and ``raster``.
        val: of the validation split; None: divided off ``train`` as ``split`` says.
        test: of the test split.
        split: how to divide one set.
        official_split: take a published set's own lists; if not, it is divided as ``split`` says,
            which keeps the chips of one LandCover.ai scene together.
        train_list: official list of the training images; None: ``train``. ``voc`` also has
            ``trainaug`` and ``trainval``.
        val_halves: half of the official validation images, drawn with ``subset_seed``, is the
            validation split and the other half the test split.
        subset: share of the training samples that is used, drawn without replacement.
        subset_seed: of that draw (NumPy's legacy generator, as the published recipes have it).
        classes: None: those of the published set.
        labels_as: whether masks hold class ids, or the classes' colours.
        class_field: attribute of vector labels that holds a class id or name.
        ignore: ids, colours or (vector) names that are left out of loss and metrics.
        reduce_zero_label: label 0 is ignored and the others drop by one; the classes' ids are those
            after it. ``ade20k`` does so by itself.
        background_id: class of ground outside of all vector labels; None: it is ignored.
        ignore_index: label value that is left out of loss and metrics.
        bands: 1-based bands of the image files; None: all but alpha.
        band_names: None: red, green, blue for three bands, else band1, band2, ...
        dtype: data type of the image files.
        mean: per band; None: computed over the training split.
        std: per band; likewise.
        gsd_m: (finest, coarsest) ground sampling distance the model is for; None: unknown.
        sampling: for ``raster`` data.
        cache_gb: pairs of files that fit into this much memory are decoded once and kept.
    """

    kind: DataKind
    root: str | None = None
    train: FilesConfig | None = None
    val: FilesConfig | None = None
    test: FilesConfig | None = None
    split: SplitConfig = SplitConfig()
    official_split: bool = True
    train_list: str | None = None
    val_halves: bool = False
    subset: float = 1.0
    subset_seed: int = 123
    classes: tuple[ClassConfig, ...] | None = None
    labels_as: Literal["ids", "colors"] = "ids"
    class_field: str | None = None
    ignore: tuple[int | str, ...] = ()
    reduce_zero_label: bool = False
    background_id: int | None = None
    ignore_index: int = 255
    bands: tuple[int, ...] | None = None
    band_names: tuple[str, ...] | None = None
    dtype: str = "uint8"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    gsd_m: tuple[float, float] | None = None
    sampling: SamplingConfig = SamplingConfig()
    cache_gb: float = 2.0


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to training samples.

    Attributes:
        kind: ``paper`` the published chain (resize, crop, flip, photometric distortion);
            ``remote_sensing`` crops with turns, scale and radiometric jitter of any band; ``none``
            random crops alone.
        crop_px: side of a training crop.
        scale: range of the resize ratio.
        base_size_px: (long side, short side) that a ratio of 1 resizes to, keeping the aspect;
            None: the image's own size.
        cat_max_ratio: a crop in which one class covers more is drawn again, up to 10 times.
        flip: probability of a left-right flip; ``remote_sensing`` also turns by 90 degrees.
        free_rotation: share of samples turned by any angle (``remote_sensing``).
        jitter: strength of the radiometric jitter, 1 = usual (``remote_sensing``).
        photometric: whether the ``paper`` chain distorts colours.
    """

    kind: Literal["paper", "remote_sensing", "none"] = "paper"
    crop_px: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    base_size_px: tuple[int, int] | None = None
    cat_max_ratio: float = 0.75
    flip: float = 0.5
    free_rotation: float = 0.0
    jitter: float = 1.0
    photometric: bool = True


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule, by step.

    Attributes:
        lr: at its peak.
        betas: of AdamW.
        weight_decay: see ``no_decay``.
        decoder_lr_factor: times ``lr`` for the decoder.
        encoder_lr_factor: times ``lr`` for the encoder; 0 freezes it.
        no_decay: ``norm`` exempts parameters whose name contains "norm", as the published recipes
            do; ``vectors`` exempts all with one dimension.
        schedule: after the warm-up; ``poly`` to 0 over all steps.
        power: of ``poly``.
        min_lr: at the end of ``cosine``.
        warmup_steps: of linear rise.
        warmup_ratio: factor at step 0.
        clip_norm: gradients are scaled down to this norm; None: not.
    """

    lr: float = 6e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    decoder_lr_factor: float = 10.0
    encoder_lr_factor: float = 1.0
    no_decay: Literal["norm", "vectors"] = "norm"
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: float = 1.0
    min_lr: float = 0.0
    warmup_steps: int = 1500
    warmup_ratio: float = 1e-6
    clip_norm: float | None = None


@dataclass(frozen=True)
class LossConfig:
    """Weighted sum of losses.

    Attributes:
        cross_entropy: weight.
        averaging: ``all`` divides by all pixels, ignored ones included, as the published recipes
            do; ``valid`` by the labelled ones.
        class_weights: one per class; ``balanced``: computed from the training split; None: 1.
        label_smoothing: of the cross-entropy.
        dice: weight.
        focal: weight.
        lovasz: weight.
    """

    cross_entropy: float = 1.0
    averaging: Literal["all", "valid"] = "all"
    class_weights: tuple[float, ...] | Literal["balanced"] | None = None
    label_smoothing: float = 0.0
    dice: float = 0.0
    focal: float = 0.0
    lovasz: float = 0.0


@dataclass(frozen=True)
class TrainerConfig:
    """How long and on what.

    Attributes:
        steps: optimiser steps.
        batch_size: samples per device and step; ``auto``: the largest that fits.
        accumulate: batches per optimiser step.
        precision: ``fp32``, or mixed with bfloat16 or float16.
        ema_decay: of averaged weights, which are then validated and saved; None: none.
        val_every_steps: between validations.
        patience: validations without a better score after which the run stops; None: never.
        monitor: score by which the best weights are chosen.
        workers: processes that read and crop; None: one per core up to 8.
        devices: number of devices; None: all GPUs, or 1 CPU process.
        accelerator: ``auto``, ``cpu``, ``gpu`` or ``mps``.
        nodes: machines.
        sync_batch_norm: share BatchNorm's statistics between GPUs.
        freeze_batch_norm: keep BatchNorm's statistics as they are.
        deterministic: refuse operations that differ from run to run.
        log_every_steps: rows of the metrics file.
        loggers: besides metrics.csv; ``wandb`` must be installed.
    """

    steps: int = 160_000
    batch_size: int | Literal["auto"] = 16
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema_decay: float | None = None
    val_every_steps: int = 8000
    patience: int | None = None
    monitor: str = "miou"
    workers: int | None = None
    devices: int | None = None
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    nodes: int = 1
    sync_batch_norm: bool = True
    freeze_batch_norm: bool = False
    deterministic: bool = False
    log_every_steps: int = 50
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ("csv",)


@dataclass(frozen=True)
class EvaluationConfig:
    """How images are scored, in validation during the run and by ``geoseg evaluate``.

    Attributes:
        mode: ``whole`` images, or ``slide`` windows whose logits are averaged.
        crop_px: side of a window.
        stride_px: between windows.
        base_size_px: (long side, short side) to resize to first, keeping the aspect; None: not.
        multiple_px: sides are then resized up to a multiple of this.
        ratios: of the multi-scale test.
        flip: also average over the mirrored image.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop_px: int = 512
    stride_px: int = 384
    base_size_px: tuple[int, int] | None = None
    multiple_px: int = 1
    ratios: tuple[float, ...] = (1.0,)
    flip: bool = False


@dataclass(frozen=True)
class CardConfig:
    """What the model file says of itself.

    Attributes:
        name: of the model; None: the name of the folder ``out``.
        description: one paragraph.
        warning: said at every prediction.
        licence: of the weights.
        credits: whom to name when maps are published.
        data: what it was trained on.
        tile_size_px: advised side of a tile.
        overlap_px: advised overlap.
        half: store matrices in half precision: half the size, hardly another map.
        measure_bf16: at the end, note how far bfloat16 moves the maps of the validation images;
            ``geoseg predict`` then takes it on CUDA by itself.
    """

    name: str | None = None
    description: str = ""
    warning: str = ""
    licence: str = ""
    credits: tuple[str, ...] = ()
    data: str = ""
    tile_size_px: int = 512
    overlap_px: int = 128
    half: bool = False
    measure_bf16: bool = False


@dataclass(frozen=True)
class RunConfig:
    """A training run.

    Attributes:
        out: folder that the run writes into.
        model: the network.
        data: imagery and labels.
        augment: what is done to training samples.
        optim: optimiser and schedule.
        loss: what is minimised.
        trainer: how long and on what.
        evaluation: how images are scored.
        card: what the model file says of itself.
        seed: of everything random.
    """

    out: str
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    loss: LossConfig = LossConfig()
    trainer: TrainerConfig = TrainerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    card: CardConfig = CardConfig()
    seed: int = 0
