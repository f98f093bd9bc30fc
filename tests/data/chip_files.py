"""Small image and mask files for the tests of chips, through the raster factory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from geoseg.config.run import ClassConfig, DataConfig, FilesConfig

PLAIN = {"transform": None, "crs": None}
CLASSES = (ClassConfig(0, "other", "#000000"), ClassConfig(1, "house", "#FF0000"))


def picture(seed: int = 0, size: tuple[int, int] = (8, 10), bands: int = 3) -> np.ndarray:
    """Return an image of random values, never 0."""
    return np.random.default_rng(seed).integers(1, 255, (bands, *size), dtype=np.uint8)


def halves(first: int = 0, second: int = 1, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    """Return a mask whose upper half holds one value and whose lower half another."""
    mask = np.full(size, first, np.uint8)
    mask[size[0] // 2 :] = second
    return mask


def write_pairs(
    make_raster: Callable[..., Path], names: tuple[str, ...] = ("a", "b"), folder: str = "set"
) -> FilesConfig:
    """Write images and masks of these names as PNG, and return where they are."""
    images = [
        make_raster(picture(i), f"{folder}/images/{n}.png", driver="PNG", **PLAIN)
        for i, n in enumerate(names)
    ]
    masks = [make_raster(halves(), f"{folder}/masks/{n}.png", driver="PNG", **PLAIN) for n in names]
    root = images[0].parents[len(Path(names[0]).parts)]
    assert masks[0].is_relative_to(root)
    return FilesConfig(str(root / "images"), str(root / "masks"))


def folder_data(train: FilesConfig, **fields: object) -> DataConfig:
    """Return the section of a folder of two classes."""
    values: dict[str, object] = {"kind": "folder", "train": train, "classes": CLASSES}
    return DataConfig(**{**values, **fields})
