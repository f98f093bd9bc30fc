"""Learning rates by step and parameter groups, as the published recipes have them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from geoseg.config.run import OptimConfig


def lr_factor(step: int, total_steps: int, optim: OptimConfig) -> float:
    """Return what the peak learning rate is multiplied with at a step.

    The warm-up multiplies the schedule, which decays from step 0 on (mmcv's rule): at step t of a
    warm-up over w steps with ratio r the factor is s(t) * (1 - (1 - t/w) * (1 - r)).

    Args:
        step: from 0.
        total_steps: of the run.
        optim: kind and numbers of the schedule.
    """
    factor = _decay(min(1.0, step / total_steps), optim)
    if step < optim.warmup_steps:
        missing = (1.0 - step / optim.warmup_steps) * (1.0 - optim.warmup_ratio)
        factor *= 1.0 - missing
    return factor


def _decay(progress: float, optim: OptimConfig) -> float:
    """Return the schedule without its warm-up; ``progress`` from 0 to 1."""
    if optim.schedule == "poly":
        return float((1.0 - progress) ** optim.power)
    if optim.schedule == "cosine":
        least = optim.min_lr / optim.lr
        return least + (1.0 - least) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def parameter_groups(network: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """Return the optimiser's groups: parameters, name, learning rate and weight decay of each.

    The published rule goes by the name: the decoder (there called head) has a rate of its own and
    decays throughout; elsewhere, a name that contains "norm" does not decay. Frozen parameters are
    in no group.

    Args:
        network: with its parameters under ``encoder.`` and ``decoder.``.
        optim: rates, decay and the rule for exemptions.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = optim.decoder_lr_factor if is_decoder(name) else optim.encoder_lr_factor
        decay = 0.0 if _is_exempt(name, parameter, optim) else optim.weight_decay
        if (factor, decay) not in groups:
            groups[factor, decay] = {
                "params": [],
                "name": f"{'decoder' if is_decoder(name) else 'encoder'}"
                f"{'' if decay else ', no decay'}",
                "lr": optim.lr * factor,
                "weight_decay": decay,
            }
        groups[factor, decay]["params"].append(parameter)
    return list(groups.values())


def is_decoder(name: str) -> bool:
    """Return whether a parameter's name is the decoder's."""
    return name.startswith("decoder.")


def build_optimizer(
    groups: Iterable[dict[str, Any]], optim: OptimConfig, total_steps: int, *, fused: bool = True
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Return AdamW and its schedule by step.

    Args:
        groups: of `parameter_groups`.
        optim: betas and schedule.
        total_steps: of the run.
        fused: one kernel for all of a group; not with float16, whose gradients are scaled.
    """
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=fused)
    factor: Callable[[int], float] = lambda step: lr_factor(step, total_steps, optim)  # noqa: E731
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def freeze_encoder(network: nn.Module) -> None:
    """Take an encoder's parameters out of training."""
    encoder = network.get_submodule("encoder")
    encoder.requires_grad_(requires_grad=False)


def _is_exempt(name: str, parameter: nn.Parameter, optim: OptimConfig) -> bool:
    if optim.no_decay == "vectors":
        return parameter.ndim <= 1
    return "norm" in name and not is_decoder(name)
