"""What every run trains: a network, the moving average of its weights, and a record."""

import copy
from typing import Any, Self

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from geoseg.data.sample import Batch
from geoseg.data.stream import mix
from geoseg.spec import ModelSpec


class AveragedTask(L.LightningModule):
    """A Lightning module whose weights are averaged; callbacks know no more of a run than this.

    Args:
        trained: module whose parameters are trained.
        spec: record of the model that the run makes.
        ema_decay: of the average; None: there is none.
        seed: of dropout and the like.

    Attributes:
        averaged: exponential moving average of the trained module; None: not asked for.
        val_scores: of the last validation, the same in every process; higher is better.
    """

    def __init__(
        self, trained: nn.Module, spec: ModelSpec, *, ema_decay: float | None, seed: int
    ) -> None:
        super().__init__()
        self.trained = trained
        self.spec = spec
        self.ema_decay = ema_decay
        self.seed = seed
        self.averaged = averaged_copy(trained) if ema_decay is not None else None
        self.val_scores: dict[str, float] = {}

    @property
    def best(self) -> nn.Module:
        """The module that is validated and saved."""
        return self.averaged if self.averaged is not None else self.trained

    def kept_network(self) -> nn.Module:
        """Return the network that goes into the model file."""
        return self.best

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, before the factors of groups."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Switch to training, except for the average."""
        super().train(mode)
        if self.averaged is not None:
            self.averaged.eval()
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Make dropout a function of the step, so that a resumed run is the same run."""
        torch.manual_seed(mix(self.seed, 3, batch_idx, self.global_rank))

    def optimizer_step(self, *args: Any, **named: Any) -> None:
        """Take a step, then move the average along."""
        super().optimizer_step(*args, **named)
        if self.averaged is not None and self.ema_decay is not None:
            decay = warm_decay(self.ema_decay, self.global_step)
            update_average(self.averaged, self.trained, decay)


def averaged_copy[Trained: nn.Module](trained: Trained) -> Trained:
    """Return a copy that is not trained."""
    averaged = copy.deepcopy(trained).eval()
    return averaged.requires_grad_(requires_grad=False)


def warm_decay(decay: float, step: int) -> float:
    """Return the decay at a step: at first less, so that the random start is soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Move an average towards the current weights; statistics move along, counters are copied."""
    average = get_ema_multi_avg_fn(decay)
    new = current.state_dict()
    floats: list[tuple[Tensor, Tensor]] = []
    others: list[tuple[Tensor, Tensor]] = []
    for key, old in averaged.state_dict().items():
        (floats if old.is_floating_point() else others).append((old, new[key]))
    average([old for old, _ in floats], [value for _, value in floats], 0)
    for old, value in others:
        old.copy_(value)
