"""Masked-image pre-training: an encoder fills in hidden squares of images without labels.

As in SimMIM (Xie et al. 2022) and A2MIM (Li et al. 2023), which suit convolutions: hidden squares
are filled with the mean, a light decoder guesses their pixels, and only these count.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.config.pretrain import MaskedConfig, MaskingConfig
from geoseg.data.sample import Batch
from geoseg.models.create import EncoderOnly
from geoseg.preprocess import Preprocess
from geoseg.spec import ModelSpec
from geoseg.train.pretrain_task import Pace, PretrainTask

STRIDE = 4  # of the first stage, at which pixels are guessed in blocks


class PixelDecoder(nn.Module):
    """Features of four stages to pixels: a 1x1 convolution each, summed, and two more.

    Args:
        channels: of each stage.
        width: of the decoder.
        bands: of the image.
    """

    def __init__(self, channels: tuple[int, ...], width: int, bands: int) -> None:
        super().__init__()
        self.into = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, bands * STRIDE**2, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Return pixels (N, bands, H, W) from stages (N, C, H/4..H/32, W/4..W/32)."""
        size = stages[0].shape[-2:]
        parts = (conv(x) for conv, x in zip(self.into, stages, strict=True))
        resized = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in parts]
        summed = torch.stack(resized).sum(dim=0)  # (N, width, H/4, W/4)
        hidden = F.gelu(self.mix(F.gelu(summed)))
        return F.pixel_shuffle(self.out(hidden), STRIDE)


class MaskedNetwork(nn.Module):
    """Encoder, light decoder, and what standardises raw values.

    Args:
        network: holds the encoder.
        spec: its record, for bands and statistics.
        masking: widths and squares.
    """

    def __init__(self, network: EncoderOnly, spec: ModelSpec, masking: MaskingConfig) -> None:
        super().__init__()
        self.network = network
        self.preprocess = Preprocess(spec.bands)
        encoder = network.encoder
        self.decoder = PixelDecoder(encoder.channels, masking.decoder_channels, spec.in_channels)
        self.to(memory_format=torch.channels_last)

    def forward(self, values: Tensor, valid: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return guessed and true standardised pixels, both (N, bands, H, W).

        Args:
            values: raw, (N, bands, H, W).
            valid: True where usable, (N, H, W).
            hidden: True where the encoder sees the mean, (N, H, W).
        """
        target = self.preprocess(values, valid)
        seen = torch.where(hidden[:, None], 0.0, target)
        return self.decoder(self.network(seen)), target


def draw_hidden(
    size: tuple[int, int, int], masking: MaskingConfig, device: torch.device | None = None
) -> Tensor:
    """Return which pixels are hidden, (N, H, W) bool: as many squares of every image.

    Args:
        size: N, H, W; H and W are multiples of the square's side.
        masking: side and share of the squares.
        device: of the result; draws are made on the CPU.
    """
    side = masking.patch_px
    batch, rows, cols = size[0], size[1] // side, size[2] // side
    count = round(masking.share * rows * cols)
    rank = torch.rand(batch, rows * cols).argsort(dim=1).argsort(dim=1)
    squares = (rank < count).view(batch, rows, cols).to(device)
    return squares.repeat_interleave(side, 1).repeat_interleave(side, 2)


class MaskedTask(PretrainTask):
    """Raw values in, mean absolute error of hidden pixels out.

    Validates by the share of the hidden pixels' deviation from the mean that is guessed right: 0 is
    as good as the mean, 1 is perfect.

    Args:
        trained: encoder and decoder.
        spec: record of the encoder.
        config: the run.
        pace: samples and steps.
    """

    def __init__(
        self, trained: MaskedNetwork, spec: ModelSpec, config: MaskedConfig, pace: Pace
    ) -> None:
        super().__init__(trained, spec, config, pace)
        self.masking = config.masking
        self.counted = torch.zeros(2, dtype=torch.float64)  # errors, deviations from the mean

    def kept_network(self) -> nn.Module:
        """Return the encoder without the decoder."""
        assert isinstance(self.best, MaskedNetwork)
        return self.best.network

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch."""
        error, _, values = self._errors(self.trained, batch)
        return error / values.clamp(min=1)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add up errors; the same squares are hidden at every validation."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(batch_idx)
            error, deviation, _ = self._errors(self.best, batch)
        self.counted += torch.stack([error, deviation]).double().cpu()

    def on_validation_epoch_end(self) -> None:
        """Add up the processes' errors and take the share."""
        error, deviation = self.counted_by_all()
        self.val_scores = {"explained": 1 - error / max(1e-9, deviation)}

    def _errors(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return summed error, summed deviation from the mean, and their number of values."""
        values, valid = batch["image"], batch["valid"]
        size = values.shape[0], values.shape[2], values.shape[3]
        hidden = draw_hidden(size, self.masking, values.device)
        guess, target = network(values, valid, hidden)
        counts = (hidden & valid)[:, None].expand_as(target)
        error = (guess.float() - target).abs() * counts
        return error.sum(), (target.abs() * counts).sum(), counts.sum()
