"""Images in one folder per class, as ImageNet is laid out, with timm's transforms."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from geoseg.config.pretrain import ClassFoldersConfig, ImageNetAugmentConfig
from geoseg.convert import class_color
from geoseg.data.sample import Sample, Split
from geoseg.data.stream import mix
from geoseg.errors import InputError
from geoseg.spec import ClassSpec

LAYOUT = (
    "ImageNet comes from https://image-net.org (an account is needed): unpack the archives "
    "ILSVRC2012_img_train and _img_val so that there are {root}/train/n01440764/*.JPEG and "
    "{root}/val/n01440764/*.JPEG, one folder per class in both. The val archive is flat: sort it "
    "into folders by its ground truth. Any other images sorted like this do as well."
)


def class_folder_split(
    data: ClassFoldersConfig, split: Literal["train", "val"], augment: ImageNetAugmentConfig
) -> Split:
    """Return a split of images with the index of their folder as ``label``.

    Samples have ``image`` (3, crop, crop) float32, standardised, ``label`` int64 and ``name``.

    Args:
        data: where the folders are.
        split: ``train`` is augmented; erasing and mixing are left to the batch.
        augment: crops and colours.

    Raises:
        InputError: no such folders, or one without images.
    """
    found = _scan(data.root, split)
    transform = make_image_transform(data, augment, training=split == "train")
    classes = tuple(ClassSpec(i, n, class_color(i)) for i, n in enumerate(found.classes))
    return Split(ClassFolders(found.samples, transform), classes)


def make_image_transform(
    data: ClassFoldersConfig, augment: ImageNetAugmentConfig, *, training: bool
) -> Callable[[Image.Image], Tensor]:
    """Return timm's transform of a picture to a standardised tensor (3, crop, crop)."""
    mean, std = (tuple(v / 255 for v in values) for values in (data.mean, data.std))
    if not training:
        return create_transform(
            augment.crop_px,
            interpolation=augment.val_interpolation,
            mean=mean,
            std=std,
            crop_pct=augment.val_crop_share,
        )
    return create_transform(
        augment.crop_px,
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.flip,
        color_jitter=augment.color_jitter,
        auto_augment=augment.rand_augment,
        interpolation=augment.interpolation,
        mean=mean,
        std=std,
    )


class ClassFolders(Dataset[Sample]):
    """Pictures with the index of their class.

    Args:
        files: path and class index of each picture.
        transform: picture to tensor.
    """

    def __init__(
        self, files: list[tuple[str, int]], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample.

        Raises:
            InputError: the file cannot be read.
        """
        path, label = self.files[index]
        image = self.transform(read_picture(path))
        return {"image": image, "label": torch.tensor(label), "name": path}


def read_picture(path: str) -> Image.Image:
    """Return a picture as RGB.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
        raise InputError(
            f"{path!r}: expected a picture; it cannot be read: {error}. Get the file again, or "
            "take it out."
        ) from error


@dataclass(frozen=True)
class SeedGenerators:
    """Seeds Python's, NumPy's and torch's generators, from all of which timm draws.

    Attributes:
        seed: of the run.
    """

    seed: int

    def __call__(self, *position: int) -> None:
        """Let draws begin as they do at this position in every run of the seed."""
        seed = mix(self.seed, *position)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)


def _scan(root: str, split: str) -> ImageFolder:
    folder = Path(root) / split
    if not folder.is_dir():
        raise InputError(
            f"data.root: expected a folder {str(folder)!r} with one folder of images per class; "
            f"there is none. {LAYOUT.format(root=root)}"
        )
    try:
        return ImageFolder(folder)
    except FileNotFoundError as error:
        raise InputError(f"data.root: {error} {LAYOUT.format(root=root)}") from error
