"""Raw band values to what a network eats, as the model's record says; never guessed from pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from geoseg import _native
from geoseg.spec import BandSpec


class Preprocess(nn.Module):
    """Scales and standardises raster values, one gain and bias per band.

    Physical value = stored x scale + offset, where a raster's own scale and offset replace the
    record's; network input = (physical - mean) / std. Invalid pixels become 0, the mean.

    Args:
        bands: the model's input bands in order.
        scaling: (scale, offset) per band as the raster declares them; None for a band without.
    """

    gain: Tensor
    bias: Tensor

    def __init__(
        self,
        bands: Sequence[BandSpec],
        scaling: Sequence[tuple[float, float] | None] | None = None,
    ) -> None:
        super().__init__()
        gains, biases = [], []
        for band, declared in zip(bands, scaling or [None] * len(bands), strict=True):
            scale, offset = declared or (band.scale, band.offset)
            gains.append(scale / band.std)
            biases.append((offset - band.mean) / band.std)
        # Not part of a state dict: the record is the one place where these numbers live.
        self.register_buffer("gain", torch.tensor(gains, dtype=torch.float32), persistent=False)
        self.register_buffer("bias", torch.tensor(biases, dtype=torch.float32), persistent=False)

    def forward(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the network's input.

        Args:
            values: raw values, (N, C, H, W), any real dtype.
            valid: True where usable, (N, H, W) bool; None: everywhere.

        Returns:
            (N, C, H, W) float32, channels_last.

        Raises:
            ValueError: other shapes than the record's bands and the values' pixels, or no booleans.
        """
        if values.ndim != 4 or values.shape[1] != len(self.gain):
            raise ValueError(
                f"expected values (N, {len(self.gain)}, H, W); got {tuple(values.shape)}."
            )
        wanted = (values.shape[0], *values.shape[2:])
        if valid is not None and (valid.dtype != torch.bool or valid.shape != wanted):
            raise ValueError(
                f"expected valid of shape {wanted}, bool; got {tuple(valid.shape)}, {valid.dtype}."
            )
        if _native_can(values):
            return normalize_native(values, valid, self.gain, self.bias)
        return normalize_reference(values, valid, self.gain, self.bias)


def normalize_reference(values: Tensor, valid: Tensor | None, gain: Tensor, bias: Tensor) -> Tensor:
    """Return values x gain + bias per band, 0 where not valid: the specification of the kernel."""
    scaled = values.to(torch.float32) * gain.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    if valid is not None:
        # A select, not a product: what lies under nodata may be NaN.
        scaled = torch.where(valid[:, None], scaled, scaled.new_zeros(()))
    return scaled.contiguous(memory_format=torch.channels_last)


def normalize_native(values: Tensor, valid: Tensor | None, gain: Tensor, bias: Tensor) -> Tensor:
    """Return the same as `normalize_reference` for CPU tensors, by the compiled kernel."""
    batch, bands, height, width = values.shape
    out = torch.empty((batch, height, width, bands), dtype=torch.float32)
    raw, gain_np, bias_np = values.numpy(), gain.numpy(), bias.numpy()
    for i in range(batch):
        mask = None if valid is None else np.ascontiguousarray(valid[i].numpy())
        _native.normalize(raw[i], mask, gain_np, bias_np, out[i].numpy())
    return out.permute(0, 3, 1, 2)  # (N, C, H, W), channels_last


def _native_can(values: Tensor) -> bool:
    if values.device.type != "cpu" or values.requires_grad or torch.compiler.is_compiling():
        return False
    name = str(values.dtype).removeprefix("torch.")
    dense = values.shape[-1] > 0 and values.stride(-1) == 1
    return dense and name in _native.DTYPE_CODES and _native.library() is not None
