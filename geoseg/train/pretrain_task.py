"""Lightning modules of pre-training: what both kinds share, and the classifier."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.utils.metrics import accuracy
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from geoseg.config.pretrain import ImageNetAugmentConfig, MaskedConfig, PretrainConfig
from geoseg.data.class_folders import SeedGenerators
from geoseg.data.sample import Batch
from geoseg.spec import ModelSpec
from geoseg.train.averaging import AveragedTask
from geoseg.train.pretrain_optimizer import build_adamw, epoch_rates, peak_lr


@dataclass(frozen=True)
class Pace:
    """How many samples and steps.

    Attributes:
        samples_per_step: over all devices.
        steps_per_epoch: of the optimiser.
        steps: of the run.
    """

    samples_per_step: int
    steps_per_epoch: int
    steps: int


class PretrainTask(AveragedTask):
    """What both kinds of pre-training share: the optimiser, its schedule, counts over processes.

    Args:
        trained: module whose parameters are trained.
        spec: record of the model that the run makes.
        config: the run.
        pace: samples and steps.

    Attributes:
        rates: learning rate of each epoch.
        counted: what a validation adds up, float64.
    """

    counted: Tensor

    def __init__(
        self, trained: nn.Module, spec: ModelSpec, config: PretrainConfig | MaskedConfig, pace: Pace
    ) -> None:
        super().__init__(trained, spec, ema_decay=config.trainer.ema_decay, seed=config.seed)
        self.config = config
        self.pace = pace
        self.rates = epoch_rates(config.optim, config.trainer, pace.samples_per_step)

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self.counted.zero_()

    def counted_by_all(self) -> list[float]:
        """Return what all processes have counted."""
        if self.trainer.world_size == 1:
            return self.counted.tolist()
        counted = self.counted.to(self.device)
        torch.distributed.all_reduce(counted)
        return counted.tolist()

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, which is that of its epoch."""
        epoch = step // self.pace.steps_per_epoch
        return self.rates[min(epoch, len(self.rates) - 1)]

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule."""
        peak = peak_lr(self.config.optim, self.pace.samples_per_step)
        optimizer = build_adamw(self.trained, self.config.optim, peak)
        schedule = LambdaLR(optimizer, lambda step: self.learning_rate(step) / peak)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class BatchAugment:
    """Mixes the images of a batch with each other, then erases boxes, as timm's loader does.

    Args:
        augment: strengths and probabilities.
        num_classes: of the targets.
    """

    def __init__(self, augment: ImageNetAugmentConfig, num_classes: int) -> None:
        self.num_classes = num_classes
        self.smoothing = augment.label_smoothing
        self.mixes = (augment.mixup > 0 or augment.cutmix > 0) and augment.mix > 0
        self.mixup = Mixup(  # type: ignore[no-untyped-call]  # timm has no types
            mixup_alpha=augment.mixup,
            cutmix_alpha=augment.cutmix,
            prob=augment.mix,
            switch_prob=augment.mix_switch,
            label_smoothing=augment.label_smoothing,
            num_classes=num_classes,
        )
        self.erase = RandomErasing(  # type: ignore[no-untyped-call]
            augment.erase, mode=augment.erase_mode, max_count=augment.erase_count, device="cpu"
        )

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return changed images and their soft targets (N, K), whose rows sum to 1.

        Args:
            images: (N, 3, H, W), standardised; changed in place.
            labels: (N,) int64.
        """
        self.erase.device = images.device  # the noise is drawn there
        if self.mixes:
            images, targets = self.mixup(images, labels)
        else:
            targets = smooth_targets(labels, self.num_classes, self.smoothing)
        return self.erase(images), targets


def smooth_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Return one-hot targets (N, K) of which a share is spread over all classes."""
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


class ClassificationTask(PretrainTask):
    """Standardised images in, loss out; validates by top-1 and top-5 accuracy.

    Args:
        classifier: the network.
        spec: its record.
        config: the run.
        pace: samples and steps.
    """

    def __init__(
        self, classifier: nn.Module, spec: ModelSpec, config: PretrainConfig, pace: Pace
    ) -> None:
        super().__init__(classifier, spec, config, pace)
        self.augment = BatchAugment(config.augment, spec.num_classes)
        self.loss = SoftTargetCrossEntropy()  # type: ignore[no-untyped-call]
        self.counted = torch.zeros(3, dtype=torch.float64)  # top-1 hits, top-5 hits, images

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Make mixing, erasing and dropped paths a function of the step."""
        SeedGenerators(self.seed)(3, batch_idx, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch."""
        images, targets = self.augment(batch["image"], batch["label"])
        loss: Tensor = self.loss(self.trained(images), targets)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Count the hits of a batch."""
        logits, labels = self.best(batch["image"]).float(), batch["label"]
        count = len(labels)
        # Of fewer than five classes, all count as the first five.
        shares = accuracy(logits, labels, (1, 5))  # type: ignore[no-untyped-call]
        hits = [float(share) / 100 * count for share in shares]
        self.counted += torch.tensor([*hits, count], dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Add up the processes' counts and take the shares."""
        top1, top5, count = self.counted_by_all()
        self.val_scores = {"top1": top1 / max(1, count), "top5": top5 / max(1, count)}
