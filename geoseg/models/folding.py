"""Networks rewritten for inference: the same answers from fewer operations.

Exact algebra throughout. A BatchNorm at inference is a scale and a shift, which its convolution can
take in. A 1x1 convolution commutes with bilinear resizing, whose weights sum to one, so that it can
run before instead of after; on a concatenation it is a sum of 1x1 convolutions.
"""

import copy
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.models.fused import conv_add, conv_gelu, conv_relu
from geoseg.models.layers import resize_like
from geoseg.models.mscan import MscanBlock
from geoseg.models.segman import SegMan
from geoseg.models.segman_decoder import ConvBnRelu, SegManDecoder, check_features
from geoseg.models.segman_encoder import Mixer
from geoseg.models.segman_layers import LayerScale, SegManBlock
from geoseg.models.segnext import SegNeXt

Affine = tuple[Tensor, Tensor]

# Networks that folding knows.
FOLDABLE = (SegMan, SegNeXt)


def fold_for_inference(network: nn.Module) -> nn.Module:
    """Return a copy of a network that answers the same and cannot be trained.

    BatchNorms and SegMAN's layer scales go into the convolutions beside them; SegMAN's decoder
    projects every map at its own resolution. A network that is neither SegMAN nor SegNeXt is copied
    as it is. Weights are combined in float64 and stored in the network's own type.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    if isinstance(network, SegMan):
        decoder = network.decoder
        fold_modules(network)
        folded = FoldedSegManDecoder(decoder)
        network.decoder = folded  # type: ignore[assignment]
    elif isinstance(network, SegNeXt):
        fold_modules(network)
    return EvalOnly(network.to(memory_format=torch.channels_last))


class EvalOnly(nn.Module):
    """A network that refuses training mode: what it was folded from is no longer in it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, image: Tensor, **options: Any) -> Tensor:
        """Return the network's logits."""
        return self.network(image, **options)

    def train(self, mode: bool = True) -> Self:
        """Set eval mode.

        Raises:
            ValueError: training mode was asked for.
        """
        if mode:
            raise ValueError(
                "expected eval mode for a network folded for inference; got training mode. Train "
                "the network that it was folded from."
            )
        return super().train(mode)

    def __getattr__(self, name: str) -> Any:
        """Return what the network itself has, for example its name and its encoder."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network":
                raise
            return getattr(self.network, name)


def fold_modules(network: nn.Module) -> None:
    """Take BatchNorms and layer scales of known blocks into their convolutions, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_pairs(module)
        elif isinstance(module, ConvBnRelu):
            _fold_after(module.conv, _norm_affine(module.bn))
            module.bn = nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, SegManBlock):
            _fold_scales(module)
        elif isinstance(module, MscanBlock):
            _fold_before(module.mlp.fc1, _norm_affine(module.norm2))
            module.norm2 = nn.Identity()  # type: ignore[assignment]
        elif isinstance(getattr(module, "proj", None), nn.Conv2d) and isinstance(
            getattr(module, "norm", None), nn.BatchNorm2d
        ):
            _fold_after(module.proj, _norm_affine(module.norm))  # type: ignore[arg-type]
            module.norm = nn.Identity()


def _fold_pairs(layers: nn.Sequential) -> None:
    """Fold every BatchNorm that directly follows a convolution; indexes stay as they are."""
    for i in range(1, len(layers)):
        conv, norm = layers[i - 1], layers[i]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            _fold_after(conv, _norm_affine(norm))
            layers[i] = nn.Identity()
            if i + 1 < len(layers) and isinstance(layers[i + 1], nn.GELU):
                layers[i - 1], layers[i + 1] = ConvGelu(conv), nn.Identity()


class ConvGelu(nn.Module):
    """A convolution and the GELU after it, in one pass where the CPU can."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H', W')."""
        return conv_gelu(self.conv, x)


def _fold_scales(block: SegManBlock) -> None:
    mixer, mlp = block.token_mixer, block.mlp
    if isinstance(block.layer_scale1, LayerScale) and isinstance(mixer, Mixer):
        _fold_after(mixer.proj, _scale_affine(block.layer_scale1))
        block.layer_scale1 = nn.Identity()
    if isinstance(block.layer_scale2, LayerScale):
        _fold_after(mlp.fc2, _scale_affine(block.layer_scale2))
        block.layer_scale2 = nn.Identity()


def _norm_affine(norm: nn.BatchNorm2d) -> Affine:
    """Return scale and shift of a BatchNorm at inference, (C,) each, float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = _exact(norm.weight) / torch.sqrt(_exact(norm.running_var) + norm.eps)
    return scale, _exact(norm.bias) - _exact(norm.running_mean) * scale


def _scale_affine(layer: LayerScale) -> Affine:
    return _exact(layer.weight).flatten(), _exact(layer.bias)


def _fold_after(conv: nn.Conv2d, affine: Affine) -> None:
    """Let a convolution do what a per-channel scale and shift did after it."""
    scale, shift = affine
    if conv.bias is not None:
        shift = shift + scale * _exact(conv.bias)
    _set(conv, _exact(conv.weight) * scale.view(-1, 1, 1, 1), shift)


def _fold_before(conv: nn.Conv2d, affine: Affine) -> None:
    """Let a 1x1 convolution do what a per-channel scale and shift did before it."""
    scale, shift = affine
    weight = _exact(conv.weight)  # (C_out, C_in, 1, 1)
    bias = weight[:, :, 0, 0] @ shift
    if conv.bias is not None:
        bias = bias + _exact(conv.bias)
    _set(conv, weight * scale.view(1, -1, 1, 1), bias)


def _exact(tensor: Tensor) -> Tensor:
    """Return a tensor in float64 on the CPU: not every device has that type."""
    return tensor.detach().cpu().double()


def _set(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    like = conv.weight
    conv.weight = nn.Parameter(weight.to(like.device, like.dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(like.device, like.dtype), requires_grad=False)


def _convolution(weight: Tensor, bias: Tensor | None, like: Tensor, stride: int = 1) -> nn.Conv2d:
    """Return a convolution of given weight (C_out, C_in, k, k) in the type of ``like``."""
    outgoing, incoming, kernel, _ = weight.shape
    has_bias = bias is not None
    conv = nn.Conv2d(incoming, outgoing, kernel, stride=stride, bias=has_bias, device="meta")
    conv.weight = nn.Parameter(weight.to(like.device, like.dtype), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.to(like.device, like.dtype), requires_grad=False)
    return conv


class FoldedSegManDecoder(nn.Module):
    """`SegManDecoder` with each 1x1 convolution at its input's own resolution.

    Args:
        decoder: whose BatchNorms are folded already, so that its convolutions have biases.
    """

    def __init__(self, decoder: SegManDecoder) -> None:
        super().__init__()
        self.conv_seg = decoder.conv_seg
        self.short_path = decoder.short_path.conv
        self.image_pool = cast(ConvBnRelu, decoder.image_pool[1]).conv
        self.conv_downsample_2 = decoder.conv_downsample_2.conv
        self.conv_downsample_4 = decoder.conv_downsample_4.conv
        self.reduce_channels = _reductions(decoder)
        self.vssm = decoder.vssm
        self.proj_out = decoder.proj_out.conv
        self.fuse2, self.fuse3, self.fuse4 = _merge_fuse(decoder)
        self._merge_cat(decoder)

    def _merge_cat(self, decoder: SegManDecoder) -> None:
        """Cut the last convolution by its input's parts; projected stages go back to the stages."""
        width, projected = decoder.channels, decoder.projection
        conv = decoder.cat.conv
        assert conv.bias is not None
        weight, bias, like = _exact(conv.weight), _exact(conv.bias), conv.weight
        sizes = [width, width, 3 * width, projected, projected, projected]
        short, pooled, context, *stages = torch.split(weight, sizes, dim=1)
        # The same map p is added to all three projected stages.
        self.cat_p = _convolution(stages[0] + stages[1] + stages[2], None, like)
        self.cat_short = _convolution(short, None, like)
        self.cat_context = _convolution(context, None, like)
        linears = (decoder.linear_c2.proj, decoder.linear_c3.proj, decoder.linear_c4.proj)
        merged = [_through(part, linear) for part, linear in zip(stages, linears, strict=True)]
        self.cat2, self.cat3, self.cat4 = (_convolution(w, None, like) for w, _ in merged)
        # All constants meet in the pooled branch, which is one vector per image.
        self.cat_pooled = _convolution(pooled, bias + sum(b for _, b in merged), like)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return logits (N, K, H/8, W/8) from the four stages; the first is not used.

        Raises:
            ValueError: sides at 1/8 are no multiples of 4.
        """
        second, third, fourth = features[1:]
        check_features(second, trained=False)
        size = second.shape[-2], second.shape[-1]
        x = conv_add(self.fuse2, second, resize_like(self.fuse3(third), size))
        x = F.relu(x.add_(resize_like(self.fuse4(fourth), size)), inplace=True)  # (N, E, H/8, W/8)
        context = self.vssm(self._scales(x))  # (N, 3E, H/32, W/32)
        # Projected where it is, and together with what else lies at that resolution.
        deep = conv_add(self.cat4, fourth, self.cat_context(context))  # (N, E, H/32, W/32)
        p = F.relu(resize_like(self.proj_out(context), size), inplace=True)  # (N, P, H/8, W/8)
        fused = conv_add(self.cat2, second, resize_like(deep, size))
        fused.add_(resize_like(self.cat3(third), size))
        fused.add_(self.cat_pooled(F.relu(self.image_pool(x.mean((2, 3), keepdim=True)))))
        fused = conv_add(self.cat_p, p, fused)
        fused = conv_add(self.cat_short, conv_relu(self.short_path, x), fused)
        return self.conv_seg(F.relu(fused, inplace=True))

    def _scales(self, x: Tensor) -> Tensor:
        """Return three views of the map at 1/32, (N, 3E, H/32, W/32)."""
        half = conv_relu(self.conv_downsample_2, x)  # (N, 2E, H/16, W/16)
        quarter = conv_relu(self.conv_downsample_4, x)  # (N, 4E, H/32, W/32)
        whole, halved, quartered = self.reduce_channels
        inputs = (whole, x), (halved, half), (quartered, quarter)
        maps = [conv_relu(cast(nn.Conv2d, conv), given) for conv, given in inputs]
        return torch.cat(maps, dim=1)


def _reductions(decoder: SegManDecoder) -> nn.ModuleList:
    """Return the three reductions; unshuffling before a 1x1 is a convolution that strides."""
    convs = []
    quartered, halved, whole = (cast(ConvBnRelu, m).conv for m in decoder.reduce_channels)
    for conv, factor in ((whole, 4), (halved, 2)):
        # Unshuffled channels are ordered (channel, row, column), as a kernel is.
        kernel = conv.weight.detach().reshape(conv.out_channels, -1, factor, factor)
        convs.append(_convolution(kernel, conv.bias, conv.weight, stride=factor))
    return nn.ModuleList([*convs, quartered])


def _merge_fuse(decoder: SegManDecoder) -> list[nn.Conv2d]:
    """Return 1x1 convolutions of stages 2, 3 and 4 whose sum is the fused map before its ReLU."""
    conv = decoder.linear_fuse.conv
    assert conv.bias is not None
    # The concatenation is in the order 4, 3, 2.
    parts = reversed(torch.split(_exact(conv.weight), decoder.projection, dim=1))
    linears = (decoder.linear_c2.proj, decoder.linear_c3.proj, decoder.linear_c4.proj)
    merged = [_through(part, linear) for part, linear in zip(parts, linears, strict=True)]
    constants = [_exact(conv.bias) + sum(b for _, b in merged), None, None]
    return [
        _convolution(weight, bias, conv.weight)
        for (weight, _), bias in zip(merged, constants, strict=True)
    ]


def _through(weight: Tensor, linear: nn.Linear) -> Affine:
    """Return weight and bias of a 1x1 convolution after a linear layer, as one 1x1."""
    matrix = weight[:, :, 0, 0]
    return (matrix @ _exact(linear.weight))[:, :, None, None], matrix @ _exact(linear.bias)
