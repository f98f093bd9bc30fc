"""Published checkpoints: key names, containers and the shapes that tell which network it is.

Proven on the complete key lists of the published models; the published files themselves could not
be opened where this was written (`make verify-official` does, where there is network).
"""

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geoseg.errors import WeightsMismatchError
from geoseg.models.create import ENCODERS, MODELS, create_model

logger = logging.getLogger(__name__)

StateDict = Mapping[str, Tensor]
# Widths and depths of an encoder's stages.
Shape = tuple[tuple[int, ...], tuple[int, ...]]

# Prefixes of the two published layouts -> ours.
PREFIXES = {"backbone.": "encoder.", "decode_head.": "decoder."}
# A model without RAND_INIT keeps the bases of its first forward pass under this name.
RENAMED = {
    ".mlp.dwconv.dwconv.": ".mlp.dwconv.",  # mmseg 0.x; the 1.x re-release has the short form
    ".hamburger.ham.bases": ".hamburger.bases",
}

FIRST_CONVOLUTIONS = ("encoder.patch_embed1.proj.0.weight", "encoder.patch_embed.0.weight")
# Heads of the ImageNet classifiers; the encoders lie beside them without a prefix.
CLASSIFIERS = ("head.", "classifier.")


def from_official(state_dict: Mapping[str, Any]) -> nn.Module:
    """Build and fill the network that a published segmentor checkpoint holds.

    Name, band count and class count are read from the shapes, never from a file name.

    Args:
        state_dict: a segmentor's state dict in either official naming, bare or wrapped.

    Returns:
        The network in eval mode, with ``.name`` and ``.num_classes``.

    Raises:
        WeightsMismatchError: not a segmentor, of no known size, or incomplete.
    """
    weights = official_layout(state_dict)
    name = network_name(weights)
    num_classes = class_count(weights)
    if num_classes is None or not is_segmentor(weights):
        raise WeightsMismatchError(
            f"expected a segmentor with decode_head.conv_seg; got only an encoder of {name}. "
            "Use create_model and load_official_weights to start training from it."
        )
    network = create_model(
        name,
        in_channels=band_count(weights),
        num_classes=num_classes,
        **network_options(weights),
    )
    load_official_weights(network, weights)
    return network.eval()


def load_official_weights(network: nn.Module, state_dict: Mapping[str, Any]) -> list[str]:
    """Copy a published checkpoint into ``network``.

    The dict may be an encoder's, a classifier's or a segmentor's, in the mmseg 0.x or OpenMMLab 1.x
    naming, bare or wrapped. A first convolution for another number of bands is adapted by
    `adapt_bands`.

    Returns:
        The keys of the dict that the network has no use for, in its own naming.

    Raises:
        WeightsMismatchError: a part that the dict covers lacks keys or has other shapes.
    """
    weights = dict(official_layout(state_dict))
    own = network.state_dict()
    # A network has its encoder under that name; alone, it is all there is.
    is_part = not any(key.startswith("encoder.") for key in own)
    if is_part:
        weights = {key.removeprefix("encoder."): value for key, value in weights.items()}
    unused = sorted(set(weights) - set(own))
    usable = {key: weights[key] for key in own if key in weights}
    _adapt_first_convolution(usable, own)
    _check_complete(network, usable, own, is_part=is_part)
    _check_angles(usable, own)
    network.load_state_dict(usable, strict=False)
    return unused


def official_layout(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint under our key names."""
    weights = _unwrap(state_dict)
    prefixed = any(key.startswith(tuple(PREFIXES)) for key in weights)
    return {_rename(key, prefixed=prefixed): value for key, value in weights.items()}


def adapt_bands(weight: Tensor, in_channels: int) -> Tensor:
    """Return a first convolution's weight for another number of input bands.

    Rule: band c takes the kernel of the given band c modulo their number, and all are rescaled by
    given / wanted, so that equal bands give the response they gave before.

    Args:
        weight: (C, given, k, k).
        in_channels: wanted number of bands.

    Returns:
        (C, in_channels, k, k).
    """
    given = weight.shape[1]
    index = torch.arange(in_channels) % given
    return weight[:, index] * (given / in_channels)


def _unwrap(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    for wrapper in ("state_dict_ema", "state_dict", "model"):
        inner = state_dict.get(wrapper)
        if isinstance(inner, Mapping) and inner:
            state_dict = inner
            break
    weights = {
        key.removeprefix("module."): value
        for key, value in state_dict.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not weights:
        keys = ", ".join(map(str, list(state_dict)[:5]))
        raise WeightsMismatchError(
            f"expected a state dict of tensors, bare or under 'state_dict'; got keys: {keys}. "
            "Give the checkpoint file as published."
        )
    return weights


def _rename(key: str, *, prefixed: bool) -> str:
    for old, new in PREFIXES.items():
        if key.startswith(old):
            key = new + key.removeprefix(old)
            break
    else:
        if not prefixed and not key.startswith(("encoder.", "decoder.", *CLASSIFIERS)):
            key = "encoder." + key
    for old, new in RENAMED.items():
        key = key.replace(old, new)
    return key


def _adapt_first_convolution(usable: dict[str, Tensor], own: StateDict) -> None:
    for key in (*FIRST_CONVOLUTIONS, *(k.removeprefix("encoder.") for k in FIRST_CONVOLUTIONS)):
        if key in usable and usable[key].shape[1] != own[key].shape[1]:
            given, wanted = usable[key].shape[1], own[key].shape[1]
            usable[key] = adapt_bands(usable[key], wanted)
            logger.info("first convolution: kernels of %d bands repeated for %d", given, wanted)


def _check_complete(
    network: nn.Module, usable: StateDict, own: StateDict, *, is_part: bool
) -> None:
    """Raise unless all of a part, or each part of a network that the dict covers, is there."""
    covered = {key.split(".")[0] for key in usable}
    # Bases are ours: the published code draws them anew in every forward pass.
    missing = [
        key
        for key in own
        if (is_part or key.split(".")[0] in covered)
        and key not in usable
        and not key.endswith(".bases")
    ]
    if "encoder" not in covered and any(key.startswith("encoder.") for key in own):
        missing = [key for key in own if key.startswith("encoder.")]
    if missing:
        raise WeightsMismatchError(
            f"checkpoint lacks {len(missing)} of the keys of {_label(network)}, "
            f"for example {missing[0]!r}. Give a checkpoint of the same network and size."
        )
    for key, value in usable.items():
        if value.shape != own[key].shape:
            raise WeightsMismatchError(
                f"{key!r}: {_label(network)} expects shape {tuple(own[key].shape)}; "
                f"the checkpoint has {tuple(value.shape)}. "
                "Give a checkpoint of the same network and size, or another num_classes."
            )


def _check_angles(usable: StateDict, own: StateDict) -> None:
    """Say which rotary angles differ from the architecture's; they are loaded as they are."""
    for key, angle in usable.items():
        if not key.endswith("rope.angle"):
            continue
        if not torch.equal(angle[::2], angle[1::2]):
            raise WeightsMismatchError(
                f"{key!r}: expected each angle twice in a row; got {angle[:4].tolist()}, ... "
                "Give a checkpoint of the published SegMAN."
            )
        if not torch.allclose(angle.float(), own[key].float().to(angle.device), rtol=1e-4, atol=0):
            logger.warning("%s differs from the published architecture's; loaded as it is", key)


def _label(network: nn.Module) -> str:
    return str(getattr(network, "name", type(network).__name__))


def is_segmentor(weights: StateDict) -> bool:
    """Return whether weights under our key names hold an encoder and a decoder."""
    return "decoder.conv_seg.weight" in weights


def band_count(weights: StateDict) -> int:
    """Return the number of input bands of weights under our key names.

    Raises:
        WeightsMismatchError: there is no first convolution.
    """
    first = next((key for key in FIRST_CONVOLUTIONS if key in weights), None)
    if first is None:
        raise WeightsMismatchError(
            f"checkpoint lacks the first convolution, {' or '.join(FIRST_CONVOLUTIONS)}. Get the "
            "file again."
        )
    return weights[first].shape[1]


def class_count(weights: StateDict) -> int | None:
    """Return the number of classes of a segmentor or classifier; None for a bare encoder."""
    for key in ("decoder.conv_seg.weight", "head.weight", "classifier.4.weight"):
        if key in weights:
            return weights[key].shape[0]
    return None


def network_name(weights: StateDict) -> str:
    """Return the network whose stage widths and depths the weights have.

    Raises:
        WeightsMismatchError: none has.
    """
    return _architecture(weights)[0]


def network_options(weights: StateDict) -> dict[str, Any]:
    """Return the builder options by which a segmentor's shapes differ from its size's usual ones.

    SegMAN's Cityscapes files have decoders of other widths than those for ADE20K.
    """
    name, options = _architecture(weights)
    wide = weights.get("decoder.linear_c2.proj.weight"), weights.get("decoder.conv_seg.weight")
    if wide[0] is None or wide[1] is None:
        return options
    found = {"projection_channels": wide[0].shape[0], "decoder_channels": wide[1].shape[1]}
    usual = inspect.signature(MODELS[name]).parameters
    return options | {key: n for key, n in found.items() if n != usual[key].default}


def _architecture(weights: StateDict) -> tuple[str, dict[str, Any]]:
    """Return the name of the network with the weights' encoder, and the options it needs."""
    found = _encoder_shape(weights)
    for name in ENCODERS:
        if _own_shape(name) == found:
            return name, {}
    if _own_shape("segman_l", stage3_of_448=True) == found:
        return "segman_l", {"stage3_of_448": True}
    raise WeightsMismatchError(
        f"expected a checkpoint of {', '.join(ENCODERS)}; got stage widths {found[0]} and depths "
        f"{found[1]}. Give an official checkpoint."
    )


@functools.cache
def _own_shape(name: str, **options: bool) -> Shape:
    """Return stage widths and depths of an encoder that is built here."""
    with torch.device("meta"):
        encoder = ENCODERS[name](**options)
    return encoder.channels, encoder.depths


def _encoder_shape(weights: StateDict) -> Shape:
    channels, depths = [], []
    is_segman = "encoder.patch_embed.0.weight" in weights
    for stage in range(4):
        prefix = (
            f"encoder.layers.{2 * stage}.blocks." if is_segman else f"encoder.block{stage + 1}."
        )
        blocks = {
            key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)
        }
        norm = f"{prefix}0.norm1.weight" if is_segman else f"encoder.norm{stage + 1}.weight"
        channels.append(weights[norm].shape[0] if norm in weights else 0)
        depths.append(len(blocks))
    return tuple(channels), tuple(depths)
