"""The weights that a training run starts from."""

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from geoseg.checkpoint import load_network
from geoseg.config.run import ModelConfig
from geoseg.convert import load_checkpoint
from geoseg.model_files import find_model, shipped_models
from geoseg.models.weights import FIRST_CONVOLUTIONS, load_official_weights, official_layout

logger = logging.getLogger(__name__)

LAST_LAYER = "decoder.conv_seg."


def load_start(network: nn.Module, model: ModelConfig) -> str:
    """Fill a network from ``model.weights`` and ``model.encoder_weights``, in this order.

    Args:
        network: with freshly drawn weights, which stay where no file is given.
        model: names the files: geoseg models (the output of ``geoseg pretrain`` is one) or
            published checkpoints.

    Returns:
        How the first convolution was made from one for other bands; empty where it was not.

    Raises:
        ModelFileError: a file is missing, damaged, or of another network.
    """
    note = ""
    if model.weights is not None:
        weights = read_weights(model.weights)
        _renew_last_layer(weights, network, model.weights)
        note = _fill(network, weights, model.weights)
    if model.encoder_weights is not None:
        weights = read_weights(model.encoder_weights)
        encoder = {key: value for key, value in weights.items() if key.startswith("encoder.")}
        note = _fill(network, encoder, model.encoder_weights)
    return note


def read_weights(file: str) -> dict[str, Tensor]:
    """Return the tensors of a geoseg model or a published checkpoint, under geoseg's names."""
    if file in shipped_models() or Path(file).suffix == ".safetensors":
        stored, _ = load_network(find_model(file))
        return dict(stored.state_dict())
    return official_layout(load_checkpoint(Path(file)))


def _renew_last_layer(weights: dict[str, Tensor], network: nn.Module, file: str) -> None:
    """Put the network's own last layer in where the number of classes differs."""
    own = network.state_dict()
    weight, bias = f"{LAST_LAYER}weight", f"{LAST_LAYER}bias"
    if weight not in weights or weights[weight].shape[0] == own[weight].shape[0]:
        return
    logger.info(
        "%s has %d classes, the data have %d: the last layer starts anew",
        file,
        weights[weight].shape[0],
        own[weight].shape[0],
    )
    weights |= {weight: own[weight], bias: own[bias]}


def _fill(network: nn.Module, weights: Mapping[str, Tensor], file: str) -> str:
    before = {key: weights[key].shape[1] for key in FIRST_CONVOLUTIONS if key in weights}
    load_official_weights(network, weights)
    own = network.state_dict()
    logger.info("start from %s", file)
    for key, bands in before.items():
        if key in own and own[key].shape[1] != bands:
            return f"kernels of {bands} bands of {Path(file).name} repeated for {own[key].shape[1]}"
    return ""
