"""A pre-training run as one flat file: what is in ``configs/*_imagenet.yaml``, value by value.

Two kinds share optimiser and trainer: `PretrainConfig` learns to name whole images, `MaskedConfig`
to fill in hidden squares, without labels. Paths are relative to the working directory. Lengths end
in their unit.
"""

from dataclasses import dataclass, field
from typing import Literal

from geoseg.config.run import CardConfig, ModelConfig


@dataclass(frozen=True)
class ClassFoldersConfig:
    """Images sorted into one folder per class, as ImageNet is.

    Attributes:
        root: folder with ``train`` and ``val`` inside, and in both one folder per class.
        mean: per band, in 0..255.
        std: per band; likewise.
    """

    root: str
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class ImageNetAugmentConfig:
    """What is done to images, by timm's tools.

    Attributes:
        crop_px: side of a crop, in training and validation.
        scale: range of a crop's share of the image's area.
        ratio: range of a crop's width over its height.
        flip: probability of a left-right flip.
        color_jitter: strength; without effect where ``rand_augment`` is given.
        rand_augment: timm's name of the policy; None: none.
        interpolation: of the crops: ``random`` draws bilinear or bicubic.
        erase: probability of erasing a box.
        erase_mode: what the box is filled with; ``pixel`` is noise.
        erase_count: boxes.
        mixup: parameter of the beta distribution of mixup's shares; 0: none.
        cutmix: likewise of cutmix.
        mix: probability that a batch is mixed.
        mix_switch: probability that a mixed batch is cut, not blended, where both are on.
        label_smoothing: of the targets.
        val_crop_share: share of the shorter side that the validation's centre crop takes.
        val_interpolation: of the validation.
    """

    crop_px: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    color_jitter: float = 0.4
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    erase: float = 0.25
    erase_mode: Literal["pixel", "rand", "const"] = "pixel"
    erase_count: int = 1
    mixup: float = 0.8
    cutmix: float = 1.0
    mix: float = 1.0
    mix_switch: float = 0.5
    label_smoothing: float = 0.1
    val_crop_share: float = 0.875
    val_interpolation: Literal["bilinear", "bicubic"] = "bicubic"


@dataclass(frozen=True)
class UnlabelledConfig:
    """Images alone.

    Attributes:
        images: folder, pattern or list of them, of image files or rasters.
        val_share: share of the files held out, at least one.
        bands: 1-based bands of the files; None: all but alpha.
        band_names: None: red, green, blue for three bands, else band1, band2, ...
        dtype: data type of the files.
        mean: per band, in the files' own values; None: computed over the training images.
        std: per band; likewise.
        crops_per_epoch: None: as many as cover the training images once.
    """

    images: str | tuple[str, ...]
    val_share: float = 0.1
    bands: tuple[int, ...] | None = None
    band_names: tuple[str, ...] | None = None
    dtype: str = "uint8"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crops_per_epoch: int | None = None


@dataclass(frozen=True)
class MaskingConfig:
    """What is hidden, and from which crops.

    Attributes:
        crop_px: side of a crop; a multiple of ``patch_px``.
        scale: range of the resize ratio of crops.
        jitter: strength of the radiometric jitter, 1 = usual.
        patch_px: side of the squares that are hidden whole.
        share: of the squares that are hidden.
        decoder_channels: width of the light decoder, which is not kept.
    """

    crop_px: int = 224
    scale: tuple[float, float] = (0.5, 2.0)
    jitter: float = 0.0
    patch_px: int = 32
    share: float = 0.6
    decoder_channels: int = 128


@dataclass(frozen=True)
class PretrainOptimConfig:
    """AdamW and its schedule, by epoch: linear warm-up, cosine, then the lowest rate.

    Attributes:
        lr: at its peak; None: ``lr_at_1024`` times the samples of a step over all devices / 1024.
        lr_at_1024: see ``lr``.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: of all parameters but biases and those with one dimension.
        warmup_epochs: of linear rise.
        warmup_lr: of the first epoch.
        min_lr: at the end of the cosine, and in the cool-down.
        clip_norm: gradients are scaled down to this norm; None: not.
    """

    lr: float | None = None
    lr_at_1024: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.05
    warmup_epochs: int = 5
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    clip_norm: float | None = None


@dataclass(frozen=True)
class PretrainTrainerConfig:
    """How long and on what.

    Attributes:
        epochs: of warm-up and cosine.
        cooldown_epochs: after them, at the lowest rate.
        val_every_epochs: between validations, after which the state is saved.
        batch_size: samples per device and step.
        accumulate: batches per optimiser step.
        precision: ``fp32``, or mixed with bfloat16 or float16.
        ema_decay: of averaged weights, which are then validated and saved; None: none.
        workers: processes that read and crop; None: one per core up to 8.
        devices: number of devices; None: all GPUs, or 1 CPU process.
        accelerator: ``auto``, ``cpu``, ``gpu`` or ``mps``.
        nodes: machines.
        sync_batch_norm: share BatchNorm's statistics between GPUs.
        deterministic: refuse operations that differ from run to run.
        log_every_steps: rows of the metrics file.
        loggers: besides metrics.csv; ``wandb`` must be installed.
    """

    epochs: int = 300
    cooldown_epochs: int = 10
    val_every_epochs: int = 1
    batch_size: int = 128
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema_decay: float | None = None
    workers: int | None = None
    devices: int | None = None
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    nodes: int = 1
    sync_batch_norm: bool = True
    deterministic: bool = False
    log_every_steps: int = 50
    loggers: tuple[Literal["csv", "tensorboard", "wandb"], ...] = ("csv",)


@dataclass(frozen=True)
class PretrainConfig:
    """A run that teaches an encoder to name whole images.

    Attributes:
        out: folder that the run writes into.
        task: tells the two kinds of run files apart.
        model: the network whose encoder is trained; ``options`` are those of the encoder, and
            ``num_classes`` None: as many as there are folders.
        data: the images.
        augment: what is done to them.
        optim: optimiser and schedule.
        trainer: how long and on what.
        card: what the model file says of itself.
        seed: of everything random.
    """

    out: str
    model: ModelConfig
    data: ClassFoldersConfig
    task: Literal["classification"] = "classification"
    augment: ImageNetAugmentConfig = ImageNetAugmentConfig()
    optim: PretrainOptimConfig = PretrainOptimConfig()
    trainer: PretrainTrainerConfig = PretrainTrainerConfig()
    card: CardConfig = field(default_factory=CardConfig)
    seed: int = 42


@dataclass(frozen=True)
class MaskedConfig:
    """A run that teaches an encoder to fill in hidden squares of images without labels.

    Attributes:
        out: folder that the run writes into.
        task: tells the two kinds of run files apart.
        model: the network whose encoder is trained; ``options`` are those of the encoder, and
            ``in_channels`` None: as many as the images have.
        data: the images.
        masking: what is hidden.
        optim: optimiser and schedule.
        trainer: how long and on what.
        card: what the model file says of itself.
        seed: of everything random.
    """

    out: str
    task: Literal["masked"]
    model: ModelConfig
    data: UnlabelledConfig
    masking: MaskingConfig = MaskingConfig()
    optim: PretrainOptimConfig = PretrainOptimConfig()
    trainer: PretrainTrainerConfig = PretrainTrainerConfig()
    card: CardConfig = field(default_factory=CardConfig)
    seed: int = 0
