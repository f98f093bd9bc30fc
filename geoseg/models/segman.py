"""SegMAN (Fu, Lou and Yu, CVPR 2025): a scan and attention network in four sizes."""

import torch
from torch import Tensor, nn

from geoseg.models.layers import check_bands, resize_like
from geoseg.models.segman_decoder import SegManDecoder
from geoseg.models.segman_encoder import (
    SegManEncoder,
    segman_encoder_b,
    segman_encoder_l,
    segman_encoder_s,
    segman_encoder_t,
)

# The decoder folds 4x4 pixels at 1/8; the attention of the last stage needs 7 pixels at 1/32.
SIDE_MULTIPLE_PX = 32
SMALLEST_SIDE_PX = 224


class SegMan(nn.Module):
    """Semantic segmentation network for images of any number of bands.

    Attributes:
        name: key in `geoseg.models.MODELS`.
        in_channels: input bands.
        num_classes: classes K.
        encoder: image to four feature maps.
        decoder: feature maps to logits at one eighth of the input size.
    """

    def __init__(self, name: str, encoder: SegManEncoder, decoder: SegManDecoder) -> None:
        super().__init__()
        self.name = name
        self.in_channels = encoder.in_channels
        self.num_classes = decoder.conv_seg.out_channels
        self.encoder = encoder
        self.decoder = decoder
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits at the input's size.

        Args:
            image: preprocessed image, (N, bands, H, W), H and W multiples of 32 from 224 (up to 7
                px less than such a multiple will do).

        Returns:
            (N, K, H, W), float32 (the decoder's logits are widened before they are resized).

        Raises:
            ValueError: the image has another size or number of bands, or is alone in training.
        """
        check_bands(self.name, image, self.in_channels)
        check_size(self.name, image.shape[-2], image.shape[-1])
        features = self.encoder(image.contiguous(memory_format=torch.channels_last))
        logits = self.decoder(features).float()  # (N, K, H/8, W/8)
        # Planes, not pixels, from here on: they resize and blend faster.
        logits = logits.contiguous()
        return resize_like(logits, (image.shape[-2], image.shape[-1]))


def check_size(name: str, height: int, width: int) -> None:
    """Raise a ValueError unless an image of that size goes through encoder and decoder."""
    # Sides are halved and rounded up, so that 250 px count as 256.
    eighths = -(-height // 8), -(-width // 8)
    small = min(eighths) * 8 < SMALLEST_SIDE_PX
    if small or any(8 * side % SIDE_MULTIPLE_PX for side in eighths):
        raise ValueError(
            f"{name} needs images whose sides are multiples of {SIDE_MULTIPLE_PX} px and at least "
            f"{SMALLEST_SIDE_PX} px a side; got {height}x{width}. Pad the image."
        )


def segman_t(
    in_channels: int,
    num_classes: int,
    *,
    drop_path: float = 0.0,
    dropout: float = 0.1,
    decoder_channels: int = 128,
    projection_channels: int = 192,
) -> SegMan:
    """Return the tiny network, 6.4 M parameters."""
    encoder = segman_encoder_t(in_channels, drop_path=drop_path)
    decoder = SegManDecoder(
        encoder.channels[1:],
        decoder_channels,
        projection_channels,
        num_classes=num_classes,
        dropout=dropout,
    )
    return SegMan("segman_t", encoder, decoder)


def segman_s(
    in_channels: int,
    num_classes: int,
    *,
    drop_path: float = 0.15,
    dropout: float = 0.1,
    decoder_channels: int = 144,
    projection_channels: int = 288,
) -> SegMan:
    """Return the small network, 29.4 M parameters; for Cityscapes its decoder is 152 wide."""
    encoder = segman_encoder_s(in_channels, drop_path=drop_path)
    decoder = SegManDecoder(
        encoder.channels[1:],
        decoder_channels,
        projection_channels,
        num_classes=num_classes,
        dropout=dropout,
    )
    return SegMan("segman_s", encoder, decoder)


def segman_b(
    in_channels: int,
    num_classes: int,
    *,
    drop_path: float = 0.25,
    dropout: float = 0.1,
    decoder_channels: int = 180,
    projection_channels: int = 320,
) -> SegMan:
    """Return the base network, 51.8 M parameters."""
    encoder = segman_encoder_b(in_channels, drop_path=drop_path)
    decoder = SegManDecoder(
        encoder.channels[1:],
        decoder_channels,
        projection_channels,
        num_classes=num_classes,
        dropout=dropout,
    )
    return SegMan("segman_b", encoder, decoder)


def segman_l(
    in_channels: int,
    num_classes: int,
    *,
    drop_path: float = 0.25,
    dropout: float = 0.1,
    decoder_channels: int = 224,
    projection_channels: int = 432,
    stage3_of_448: bool = False,
) -> SegMan:
    """Return the large network, 92.3 M parameters; see `segman_encoder_l` for ``stage3_of_448``."""
    encoder = segman_encoder_l(in_channels, drop_path=drop_path, stage3_of_448=stage3_of_448)
    decoder = SegManDecoder(
        encoder.channels[1:],
        decoder_channels,
        projection_channels,
        num_classes=num_classes,
        dropout=dropout,
    )
    return SegMan("segman_l", encoder, decoder)
