"""Builds a network from its name."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import UsageError
from geoseg.models.mscan import Mscan, MscanClassifier, mscan_b, mscan_l, mscan_s, mscan_t
from geoseg.models.segman import segman_b, segman_l, segman_s, segman_t
from geoseg.models.segman_encoder import (
    SegManClassifier,
    SegManEncoder,
    segman_encoder_b,
    segman_encoder_l,
    segman_encoder_s,
    segman_encoder_t,
)
from geoseg.models.segnext import segnext_b, segnext_l, segnext_s, segnext_t

MODELS: dict[str, Callable[..., nn.Module]] = {
    "segnext_t": segnext_t,
    "segnext_s": segnext_s,
    "segnext_b": segnext_b,
    "segnext_l": segnext_l,
    "segman_t": segman_t,
    "segman_s": segman_s,
    "segman_b": segman_b,
    "segman_l": segman_l,
}

ENCODERS: dict[str, Callable[..., Mscan | SegManEncoder]] = {
    "segnext_t": mscan_t,
    "segnext_s": mscan_s,
    "segnext_b": mscan_b,
    "segnext_l": mscan_l,
    "segman_t": segman_encoder_t,
    "segman_s": segman_encoder_s,
    "segman_b": segman_encoder_b,
    "segman_l": segman_encoder_l,
}


def list_models() -> list[str]:
    """Return the names that `create_model` takes."""
    return list(MODELS)


def create_model(name: str, *, in_channels: int = 3, num_classes: int, **options: Any) -> nn.Module:
    """Build a segmentation network with freshly drawn weights.

    Args:
        name: a key of `MODELS`.
        in_channels: number of input bands.
        num_classes: number of classes K.
        **options: keyword arguments of the network's builder, for example ``drop_path``.

    Returns:
        A module that maps (N, in_channels, H, W) to logits (N, K, H, W).

    Raises:
        UsageError: unknown name or option; the message lists close matches.
    """
    builder = MODELS[_known(name, MODELS, "model")]
    _check_options(options, builder, name, given=2)
    return builder(in_channels, num_classes, **options)


def create_classifier(name: str, num_classes: int = 1000, **options: Any) -> nn.Module:
    """Build the encoder of ``name`` with an image classifier on top, for pre-training.

    Args:
        name: a key of `MODELS`.
        num_classes: number of classes K.
        **options: keyword arguments of the encoder's builder, for example ``drop_path``.

    Returns:
        A module that maps (N, 3, H, W) to logits (N, num_classes).

    Raises:
        UsageError: unknown name or option; the message lists close matches.
    """
    encoder = create_encoder(name, **options)
    if isinstance(encoder, Mscan):
        return MscanClassifier(name, encoder, num_classes)
    return SegManClassifier(name, encoder, num_classes)


def create_encoder(name: str, in_channels: int = 3, **options: Any) -> Mscan | SegManEncoder:
    """Build the encoder of ``name`` with freshly drawn weights.

    Args:
        name: a key of `MODELS`.
        in_channels: number of input bands.
        **options: keyword arguments of the encoder's builder, for example ``drop_path``.

    Returns:
        A module that maps (N, in_channels, H, W) to four feature maps.

    Raises:
        UsageError: unknown name or option; the message lists close matches.
    """
    builder = ENCODERS[_known(name, ENCODERS, "model")]
    _check_options(options, builder, name, given=1)
    return builder(in_channels, **options)


class EncoderOnly(nn.Module):
    """An encoder under the name that it has in whole networks, as pre-training keeps it.

    Attributes:
        name: key in `MODELS`.
        in_channels: input bands.
        encoder: image to four feature maps.
    """

    def __init__(self, name: str, encoder: Mscan | SegManEncoder) -> None:
        super().__init__()
        self.name = name
        self.in_channels = encoder.in_channels
        self.encoder = encoder
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return four feature maps of an image (N, bands, H, W)."""
        return self.encoder(image.contiguous(memory_format=torch.channels_last))


def _check_options(
    options: Iterable[str], builder: Callable[..., nn.Module], name: str, *, given: int
) -> None:
    """Raise for an option that the builder lacks after the ``given`` parameters it has first."""
    allowed = list(inspect.signature(builder).parameters)[given:]
    for option in options:
        _known(option, allowed, f"option of {name}")


def _known(name: str, known: Iterable[str], what: str) -> str:
    known = list(known)
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    raise UsageError(f"unknown {what} {name!r}. Did you mean {' or '.join(close)}?")
