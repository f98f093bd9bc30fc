"""SegNeXt (Guo et al., NeurIPS 2022): MSCAN encoder and Hamburger decoder in four sizes."""

import torch
from torch import Tensor, nn

from geoseg.models.hamburger import LightHamHead
from geoseg.models.layers import check_bands, resize_like
from geoseg.models.mscan import Mscan, mscan_b, mscan_l, mscan_s, mscan_t

SMALLEST_SIDE_PX = 32


class SegNeXt(nn.Module):
    """Semantic segmentation network for images of any size from 32 px and any number of bands.

    Attributes:
        name: key in `geoseg.models.MODELS`.
        in_channels: input bands.
        num_classes: classes K.
        encoder: image to four feature maps.
        decoder: feature maps to logits at one eighth of the input size.
    """

    def __init__(self, name: str, encoder: Mscan, decoder: LightHamHead) -> None:
        super().__init__()
        self.name = name
        self.in_channels = encoder.in_channels
        self.num_classes = decoder.conv_seg.out_channels
        self.encoder = encoder
        self.decoder = decoder
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor, bases: Tensor | None = None) -> Tensor:
        """Return logits at the input's size.

        Args:
            image: preprocessed image, (N, bands, H, W), H and W at least 32.
            bases: NMF bases (1 or N, D, R) in place of the saved ones.

        Returns:
            (N, K, H, W), float32 (the decoder's logits are widened before they are resized).

        Raises:
            ValueError: the image is smaller than 32 px or has another number of bands.
        """
        check_image(self.name, image, self.in_channels)
        features = self.encoder(image.contiguous(memory_format=torch.channels_last))
        logits = self.decoder(features, bases=bases).float()  # (N, K, H/8, W/8)
        # Planes, not pixels, from here on: they resize and blend faster.
        logits = logits.contiguous()
        return resize_like(logits, (image.shape[-2], image.shape[-1]))


def check_image(name: str, image: Tensor, in_channels: int) -> None:
    """Raise a ValueError unless ``image`` is (N, in_channels, H >= 32, W >= 32)."""
    check_bands(name, image, in_channels)
    height, width = image.shape[-2:]
    if min(height, width) < SMALLEST_SIDE_PX:
        raise ValueError(
            f"{name} needs images of at least {SMALLEST_SIDE_PX} px a side; "
            f"got {height}x{width}. Pad the image."
        )


def segnext_t(
    in_channels: int,
    num_classes: int,
    *,
    drop_path: float = 0.1,
    dropout: float = 0.1,
    random_bases_in_training: bool = False,
) -> SegNeXt:
    """Return the tiny network, 4.3 M parameters."""
    encoder = mscan_t(in_channels, drop_path=drop_path)
    decoder = LightHamHead(
        encoder.channels[1:],
        256,
        num_classes,
        rank=16,
        dropout=dropout,
        random_bases_in_training=random_bases_in_training,
    )
    return SegNeXt("segnext_t", encoder, decoder)


def segnext_s(
    in_channels: int,
    num_classes: int,
    *,
    drop_path: float = 0.1,
    dropout: float = 0.1,
    random_bases_in_training: bool = False,
) -> SegNeXt:
    """Return the small network, 13.9 M parameters."""
    encoder = mscan_s(in_channels, drop_path=drop_path)
    decoder = LightHamHead(
        encoder.channels[1:],
        256,
        num_classes,
        rank=16,
        dropout=dropout,
        random_bases_in_training=random_bases_in_training,
    )
    return SegNeXt("segnext_s", encoder, decoder)


def segnext_b(
    in_channels: int,
    num_classes: int,
    *,
    drop_path: float = 0.1,
    dropout: float = 0.1,
    random_bases_in_training: bool = False,
) -> SegNeXt:
    """Return the base network, 27.6 M parameters."""
    encoder = mscan_b(in_channels, drop_path=drop_path)
    decoder = LightHamHead(
        encoder.channels[1:],
        512,
        num_classes,
        rank=64,
        dropout=dropout,
        random_bases_in_training=random_bases_in_training,
    )
    return SegNeXt("segnext_b", encoder, decoder)


def segnext_l(
    in_channels: int,
    num_classes: int,
    *,
    drop_path: float = 0.3,
    dropout: float = 0.1,
    random_bases_in_training: bool = False,
) -> SegNeXt:
    """Return the large network, 48.9 M parameters."""
    encoder = mscan_l(in_channels, drop_path=drop_path)
    decoder = LightHamHead(
        encoder.channels[1:],
        1024,
        num_classes,
        rank=64,
        dropout=dropout,
        random_bases_in_training=random_bases_in_training,
    )
    return SegNeXt("segnext_l", encoder, decoder)
