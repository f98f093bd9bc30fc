"""LandCover.ai v1: the official chips of 512 px, the same chips cut from the scenes, and scenes.

The authors' script cuts each scene into chips row by row and numbers them, those at the right and
lower edge that are smaller included, but writes only whole ones; the lists name scene and number.
The drawn lists put chips of one scene into every split.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from geoseg.config.run import ClassConfig, DataConfig, FilesConfig
from geoseg.data.chips import Chip, describe_image
from geoseg.data.published_classes import LANDCOVERAI
from geoseg.errors import InputError
from geoseg.types import Window

CHIP_PX = 512


def list_chips(root: Path, names: Sequence[str]) -> list[Chip]:
    """Return the pairs ``output/X.jpg`` and ``output/X_m.png`` of a list of names X."""
    folder = root / "output"
    return [
        Chip(name, str(folder / f"{name}.jpg"), str(folder / f"{name}_m.png"), None, scene_of(name))
        for name in names
    ]


def list_windows(root: Path, names: Sequence[str]) -> list[Chip]:
    """Return the same chips as windows of ``images/*.tif`` and ``masks/*.tif``.

    Raises:
        InputError: a name that is not made of a scene and the number of one of its chips.
    """
    return [_window_chip(root, name) for name in names]


def scenes_config(data: DataConfig, root: Path) -> DataConfig:
    """Return the section that takes whole scenes as georeferenced rasters, divided by place."""
    files = FilesConfig(images=str(root / "images/*.tif"), labels=str(root / "masks/*.tif"))
    classes = tuple(ClassConfig(c.id, c.name, c.color) for c in LANDCOVERAI)
    return replace(data, kind="raster", train=files, classes=data.classes or classes)


def scene_of(name: str) -> str:
    """Return the scene that a chip was cut from."""
    return name.rpartition("_")[0]


def _window_chip(root: Path, name: str) -> Chip:
    scene, _, number = name.rpartition("_")
    if not number.isdecimal():
        raise InputError(
            f"LandCover.ai: expected names made of a scene and a number, such as "
            f"'M-33-20-D-c-4-2_0'; got {name!r}. Get the official lists again."
        )
    image = str(root / "images" / f"{scene}.tif")
    height, width = _size(image)
    row, col = divmod(int(number), math.ceil(width / CHIP_PX))
    window = Window(row * CHIP_PX, col * CHIP_PX, CHIP_PX, CHIP_PX)
    if window.row_end > height or window.col_end > width:
        raise InputError(
            f"LandCover.ai: chip {name!r} lies outside of its scene {image!r} of {width} x "
            f"{height} px. Lists and scenes are of different versions; get both again."
        )
    return Chip(name, image, str(root / "masks" / f"{scene}.tif"), window, scene)


@lru_cache(maxsize=64)
def _size(image: str) -> tuple[int, int]:
    """Return height and width of a scene; there are 41."""
    info = describe_image(Chip("", image, ""))
    return info.height, info.width
