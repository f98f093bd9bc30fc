"""AdamW and its schedule by epoch for pre-training, with timm's tools."""

import torch
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]  # no __all__
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import nn

from geoseg.config.pretrain import PretrainOptimConfig, PretrainTrainerConfig


def peak_lr(optim: PretrainOptimConfig, samples_per_step: int) -> float:
    """Return the highest learning rate for a number of samples over all devices."""
    return optim.lr if optim.lr is not None else optim.lr_at_1024 * samples_per_step / 1024


def epoch_rates(
    optim: PretrainOptimConfig, trainer: PretrainTrainerConfig, samples_per_step: int
) -> tuple[float, ...]:
    """Return the learning rate of each epoch: warm-up, cosine, cool-down."""
    stand_in = torch.optim.SGD([nn.Parameter(torch.zeros(()))], peak_lr(optim, samples_per_step))
    schedule, epochs = create_scheduler_v2(
        stand_in,
        sched="cosine",
        num_epochs=trainer.epochs,
        cooldown_epochs=trainer.cooldown_epochs,
        min_lr=optim.min_lr,
        warmup_lr=optim.warmup_lr,
        warmup_epochs=optim.warmup_epochs,
    )
    rates = []
    for epoch in range(epochs):
        schedule.step(epoch)
        rates.append(float(stand_in.param_groups[0]["lr"]))
    return tuple(rates)


def build_adamw(network: nn.Module, optim: PretrainOptimConfig, lr: float) -> torch.optim.AdamW:
    """Return AdamW.

    Biases and parameters with one dimension do not decay. All others do, as in the published run:
    also matrices of state-space models, position biases and SegMAN's scales of four dimensions.
    """
    groups = param_groups_weight_decay(network, optim.weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=optim.betas, eps=optim.eps)
