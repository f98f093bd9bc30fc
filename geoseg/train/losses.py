"""What is minimised: cross-entropy with both averaging rules, dice, focal and Lovász losses."""

from collections.abc import Sequence

import segmentation_models_pytorch.losses as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.config.run import LossConfig
from geoseg.data.sample import IGNORE
from geoseg.errors import UsageError


class SegmentationLoss(nn.Module):
    """Weighted sum of the losses of a run.

    Args:
        config: the weights and rules.
        class_weights: (K,), for the cross-entropy; None: 1.
    """

    class_weights: Tensor | None

    def __init__(self, config: LossConfig, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.config = config
        others: dict[str, tuple[float, nn.Module]] = {
            "dice": (config.dice, smp.DiceLoss("multiclass", ignore_index=IGNORE)),
            "focal": (config.focal, smp.FocalLoss("multiclass", ignore_index=IGNORE)),
            "lovasz": (config.lovasz, smp.LovaszLoss("multiclass", ignore_index=IGNORE)),
        }
        self.others = [(weight, loss) for weight, loss in others.values() if weight > 0]
        if config.cross_entropy <= 0 and not self.others:
            raise UsageError(
                "loss: expected at least one positive weight among cross_entropy, dice, focal and "
                "lovasz; got none."
            )

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a batch.

        Args:
            logits: (N, K, H, W) float32.
            target: (N, H, W) int64, 0..K-1 or IGNORE.
        """
        total = logits.new_zeros(())
        if self.config.cross_entropy > 0:
            entropy = cross_entropy(
                logits,
                target,
                class_weights=self.class_weights,
                over_all=self.config.averaging == "all",
                label_smoothing=self.config.label_smoothing,
            )
            total = total + self.config.cross_entropy * entropy
        # Those of the library average over what is labelled, and have no answer where nothing is.
        if self.others and bool((target != IGNORE).any()):
            for weight, loss in self.others:
                total = total + weight * loss(logits, target)
        return total


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor | None = None,
    over_all: bool = True,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy of a batch.

    Args:
        logits: (N, K, H, W).
        target: (N, H, W), 0..K-1 or IGNORE.
        class_weights: (K,); a pixel's loss is multiplied with its class's, and the divisor is not.
        over_all: divide by all pixels, ignored ones too (mmseg 0.x); else by the labelled ones, of
            all processes.
        label_smoothing: share of the target that is spread over all classes.
    """
    total = F.cross_entropy(
        logits,
        target,
        class_weights,
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    if over_all:
        return total / target.numel()
    return total / _labelled_per_process((target != IGNORE).sum())


def _labelled_per_process(count: Tensor) -> Tensor:
    """Return the mean number of labelled pixels per process, at least 1.

    Gradients are averaged over processes afterwards: the quotient is then that of one process that
    has the whole batch.
    """
    count = count.double()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(min=1.0)


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Return class weights n / (K n_k), with which all classes count the same in sum.

    Args:
        counts: pixels n_k of each class; a class without any gets the weight 1.
    """
    present = [n for n in counts if n > 0]
    total = sum(present)
    return tuple(total / (len(present) * n) if n > 0 else 1.0 for n in counts)
