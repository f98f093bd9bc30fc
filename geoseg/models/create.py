"""Builds a network from its name."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

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
    allowed = list(inspect.signature(builder).parameters)[2:]
    for option in options:
        _known(option, allowed, f"option of {name}")
    return builder(in_channels, num_classes, **options)


def create_classifier(name: str, num_classes: int = 1000) -> nn.Module:
    """Build the encoder of ``name`` with an image classifier on top, for pre-training.

    Returns:
        A module that maps (N, 3, H, W) to logits (N, num_classes).
    """
    encoder = ENCODERS[_known(name, ENCODERS, "model")]()
    if isinstance(encoder, Mscan):
        return MscanClassifier(name, encoder, num_classes)
    return SegManClassifier(name, encoder, num_classes)


def _known(name: str, known: Iterable[str], what: str) -> str:
    known = list(known)
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
    raise UsageError(f"unknown {what} {name!r}. Did you mean {' or '.join(close)}?")
