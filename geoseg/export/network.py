"""What an exported file computes: the image as it is fed to class probabilities."""

import copy
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from geoseg.errors import ModelFileError, UsageError
from geoseg.models.folding import FOLDABLE, fold_for_inference
from geoseg.models.segman_encoder import GlobalMixer
from geoseg.models.segman_position import resize_bias
from geoseg.segmenter import Segmenter, legal_side
from geoseg.spec import ModelSpec

# By which SegMAN's last stage divides the sides of an image.
LAST_STRIDE = 32
# What readers of 8-bit imagery divide by before anything else.
BYTE_RANGE = 255.0


@dataclass(frozen=True)
class Feeding:
    """How raw values become what the file is fed: fed = raw / divisor.

    Attributes:
        divisor: 255 for 8-bit models, as Deepness and GeoDeep do, else 1.
        gain: per band; standardised = fed x gain + bias.
        bias: per band.
    """

    divisor: float
    gain: tuple[float, ...]
    bias: tuple[float, ...]

    def from_standardised(self) -> tuple[list[float], list[float]]:
        """Return gain and bias per band: fed = standardised x gain + bias."""
        gains = [1 / gain for gain in self.gain]
        return gains, [-bias * gain for bias, gain in zip(self.bias, gains, strict=True)]


def plan_feeding(spec: ModelSpec) -> Feeding:
    """Return how a model's file is fed.

    Standardisation is inside of the graph: not every reader of Deepness' keys does it.
    """
    divisor = BYTE_RANGE if spec.dtype == "uint8" else 1.0
    gain = tuple(divisor * band.scale / band.std for band in spec.bands)
    bias = tuple((band.offset - band.mean) / band.std for band in spec.bands)
    return Feeding(divisor, gain, bias)


def exported_spec(spec: ModelSpec, tile_size_px: int | None) -> ModelSpec:
    """Return the record of an exported file: one size of tile, and probabilities.

    Args:
        spec: of the model.
        tile_size_px: side of the tiles; None: the model's own.

    Raises:
        UsageError: the network cannot take such tiles.
    """
    tile = spec.tile
    size = tile_size_px or tile.size_px
    legal = legal_side(size, tile) if size > 0 else 0
    if legal != size:
        raise UsageError(
            f"model {spec.name!r} cannot take tiles of {size} px: it wants at least "
            f"{tile.min_px} px and multiples of {tile.multiple_px} px. "
            f"Give --tile-size {legal or tile.size_px}."
        )
    overlap = round(tile.overlap_px * size / tile.size_px)
    return replace(
        spec,
        output="probabilities",
        temperature=1.0,  # inside of the graph, before its softmax
        tile=replace(tile, size_px=size, overlap_px=overlap, fixed=True),
        precision={},
    )


class Served(nn.Module):
    """Scaling, network and softmax.

    Args:
        segmenter: what is exported.
        spec: record of the exported file.
    """

    gain: Tensor
    bias: Tensor

    def __init__(self, segmenter: Segmenter, spec: ModelSpec) -> None:
        super().__init__()
        if segmenter.spec.output != "logits":
            raise ModelFileError(
                f"model {spec.name!r}: expected a network that answers logits; this one answers "
                f"{segmenter.spec.output}. Take the softmax out of it."
            )
        feeding = plan_feeding(spec)
        self.network = for_size(segmenter.network, spec.tile.size_px)
        self.temperature = segmenter.spec.temperature
        self.register_buffer("gain", torch.tensor(feeding.gain).view(1, -1, 1, 1))
        self.register_buffer("bias", torch.tensor(feeding.bias).view(1, -1, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities (N, K, H, W) for an image (N, C, H, W) as it is fed."""
        logits = self.network(image * self.gain + self.bias)
        if logits.shape[1] == 1:  # taken as the second of two classes
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return torch.softmax(logits / self.temperature, dim=1)


def for_size(network: nn.Module, side_px: int) -> nn.Module:
    """Return a copy of a network, float32 on the CPU, for images of one size.

    What follows from the size is worked out beforehand.

    Args:
        network: of ours, which is folded, or another one.
        side_px: of the square image.
    """
    if isinstance(network, FOLDABLE):
        network = fold_for_inference(network)
    else:
        network = copy.deepcopy(network)
    network = network.float().cpu().eval()
    for module in network.modules():
        if isinstance(module, GlobalMixer):
            pixels = (-(-side_px // LAST_STRIDE)) ** 2
            bias = resize_bias(cast(Tensor, module.rpb[1]).detach(), pixels)
            module.rpb[1] = nn.Parameter(bias, requires_grad=False)
    return network
