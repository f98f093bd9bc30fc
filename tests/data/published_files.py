"""Published sets in their official layouts, made small, through the raster factory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.data.chip_files import PLAIN, picture

# Image and label, given a split's folder and a name; folders of the splits.
LAYOUTS = {
    "ade20k": (
        "images/{}/{}.jpg",
        "annotations/{}/{}.png",
        {"train": "training", "val": "validation"},
    ),
    "cityscapes": (
        "leftImg8bit/{0}/{1}/{1}_leftImg8bit.png",
        "gtFine/{0}/{1}/{1}_gtFine_labelTrainIds.png",
        {"train": "train", "val": "val"},
    ),
    "coco_stuff": (
        "images/{}/{}.jpg",
        "annotations/{}/{}_labelTrainIds.png",
        {"train": "train2017", "val": "val2017"},
    ),
}
# Image, label and list, given a name.
LISTED = {
    "landcoverai": ("output/{}.jpg", "output/{}_m.png", "{}.txt"),
    "voc": ("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "ImageSets/Segmentation/{}.txt"),
}
NAMES = {"train": ("a", "b"), "val": ("c", "d")}
Put = Callable[..., Path]


def picture_writer(make_raster: Callable[..., Path]) -> Put:
    """Return a function that writes an image or a mask where an official layout has it."""

    def put(name: str, values: np.ndarray) -> Path:
        driver = "JPEG" if name.endswith(".jpg") else "PNG"
        return make_raster(values, name, driver=driver, **PLAIN)

    return put


def pair_writer(make_raster: Callable[..., Path]) -> Put:
    """Return a function that writes a mask and an image of random values and its size."""
    put = picture_writer(make_raster)

    def put_pair(image: str, label: str, mask: object, seed: int = 0) -> Path:
        values = np.atleast_2d(np.asarray(mask, np.uint8))
        put(image, picture(seed, values.shape[-2:]))
        return put(label, values)

    return put_pair


def write_published(
    put_pair: Put,
    kind: str,
    root: Path,
    *,
    below: str = "",
    mask: Callable[[int], object] = lambda k: [0, k],
) -> None:
    """Write two pairs to train and two to validate on.

    Args:
        put_pair: writes a pair, named from the root.
        kind: of the set.
        root: what names begin at.
        below: folder in it that holds the layout, ending in ``/``.
        mask: label values of the pair of a number.
    """
    pairs = [(split, name) for split, names in NAMES.items() for name in names]
    for k, (split, name) in enumerate(pairs):
        if kind in LISTED:
            image, label = (pattern.format(name) for pattern in LISTED[kind][:2])
        else:
            *patterns, folders = LAYOUTS[kind]
            image, label = (pattern.format(folders[split], name) for pattern in patterns)
        put_pair(below + image, below + label, mask(k), seed=k)
    if kind in LISTED:
        for split, names in NAMES.items():
            path = root / below / LISTED[kind][2].format(split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(names) + "\n", "utf-8")
