"""Guesses the run file's ``data`` section of a folder, so that it can be described without one."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from geoseg.config.run import ClassConfig, DataConfig, FilesConfig, SplitConfig
from geoseg.data.build import list_split
from geoseg.data.chips import Chip, read_label
from geoseg.data.folder import list_chips
from geoseg.data.labels import LabelRule
from geoseg.data.published import PUBLISHED
from geoseg.errors import GeosegError, InputError

IMAGE_FOLDERS = ("images", "image", "img_dir", "imgs", "img")
LABEL_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "ann_dir", "gt"),
    "masks_rgb",
)
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# More different values than this are no classes but heights, probabilities or a lossy picture.
MOST_CLASSES = 64


def find_data(folder: str) -> DataConfig:
    """Return the section that fits a folder: a published layout, or images beside masks.

    Raises:
        InputError: no layout fits; the message lists what is looked for.
    """
    for kind in PUBLISHED:
        data = DataConfig(kind=kind, root=folder)  # type: ignore[arg-type]  # keys are kinds
        if _holds(data):
            return data
    root = Path(folder)
    files = {name: _pair_of_folders(root, names) for name, names in SPLIT_FOLDERS.items()}
    whole = _find_pair(root)
    train = files["train"] or whole
    if train is None:
        raise InputError(
            f"{folder!r}: expected a published data set, or folders images and masks (or labels), "
            "perhaps within train, val and test; got neither. Describe it by a YAML file with "
            "kind: folder, train: {images: ..., labels: ...} and classes."
        )
    # What is not divided is described whole.
    data = DataConfig("folder", train=train, split=SplitConfig(val_share=0.0))
    return name_classes(replace(data, val=files["val"], test=files["test"]))


def name_classes(data: DataConfig) -> DataConfig:
    """Return the section with a class for each label value that occurs, if it names none.

    Raises:
        InputError: files are unpaired or unreadable, or there are too many different values.
    """
    if data.classes is not None or data.kind != "folder":
        return data
    files = [f for f in (data.train, data.val, data.test) if f is not None]
    chips = [chip for f in files for chip in list_chips(f, "data")]
    as_colors = any(_shows_colors(chip) for chip in chips)
    rule = LabelRule((), as_colors)
    found: Counter[int] = Counter()
    for chip in chips:
        values, palette, nodata = read_label(chip)
        found.update(rule.try_encode(values, chip.label, palette=palette, nodata=nodata)[1])
        if len(found) > MOST_CLASSES:
            raise InputError(
                f"{chip.label!r}: expected labels of at most {MOST_CLASSES} different values; got "
                "more. Masks must hold class ids or exact colours, not JPEG colours or scores."
            )
    if not as_colors:
        found.pop(data.ignore_index, None)
    names = {value: rule.name_of(value) for value in sorted(found)}
    classes = tuple(
        ClassConfig(k if as_colors else value, f"class {name}", name if as_colors else None)
        for k, (value, name) in enumerate(names.items())
    )
    return replace(data, labels_as="colors" if as_colors else "ids", classes=classes)


def _holds(data: DataConfig) -> bool:
    """Return whether a split of a published set is there."""
    for split in ("train", "val"):
        try:
            list_split(data, split)
        except GeosegError:
            continue
        return True
    return False


def _pair_of_folders(root: Path, names: tuple[str, ...]) -> FilesConfig | None:
    """Return the pair within a folder of the split, or the split's folders within a pair."""
    for name in names:
        inside = _find_pair(root / name)
        if inside is not None:
            return inside
        whole = _find_pair(root)
        if whole is not None and (Path(str(whole.images)) / name).is_dir():
            return FilesConfig(f"{whole.images}/{name}", f"{whole.labels}/{name}")
    return None


def _find_pair(root: Path) -> FilesConfig | None:
    images = next((root / n for n in IMAGE_FOLDERS if (root / n).is_dir()), None)
    labels = next((root / n for n in LABEL_FOLDERS if (root / n).is_dir()), None)
    return FilesConfig(str(images), str(labels)) if images and labels else None


def _shows_colors(chip: Chip) -> bool:
    """Return whether a label file has bands that differ."""
    values, _, _ = read_label(chip)
    return len(values) >= 3 and bool((values[1:3] != values[0]).any()) and values.dtype == np.uint8
