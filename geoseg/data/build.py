"""From the run file's ``data`` section to the samples of one split."""

from collections.abc import Callable

from geoseg.config.run import DataConfig
from geoseg.data.chips import ChipDataset, ChipSet, ImageRule, choose_bands, describe_image
from geoseg.data.divide import SplitName, choose_subset, divide
from geoseg.data.folder import list_chips
from geoseg.data.labels import class_specs, make_rule
from geoseg.data.sample import Sample, Split
from geoseg.errors import InputError

Transform = Callable[[Sample], Sample]
COLORS = ("red", "green", "blue")
CHIP_LEAK = "split by chip: neighbouring chips fall on both sides, so scores are too good"


def build_split(
    data: DataConfig,
    split: SplitName,
    *,
    transform: Transform | None = None,
    patch_px: int | None = None,
    seed: int = 0,
) -> Split:
    """Return one split of a data set.

    Args:
        data: the run file's section.
        split: which one; ``subset`` applies to ``train`` only.
        transform: called on each sample after reading.
        patch_px: side of the patches of rasters; pairs of files are read whole.
        seed: of the sampler of rasters.

    Raises:
        InputError: files are missing, unpaired or unreadable, or the section contradicts itself.
        UsageError: an option that this kind of data does not have.
    """
    scenes = raster_config(data)
    if scenes is not None:
        from geoseg.data.rasters import build_raster_split

        return build_raster_split(scenes, split, transform=transform, patch_px=patch_px, seed=seed)
    found = list_split(data, split)
    images = image_rule(data, found)
    return Split(
        ChipDataset(found.chips, found.labels, images, transform=transform),
        found.classes,
        names=tuple(chip.name for chip in found.chips),
        bands=_band_names(data, images),
        dtype=data.dtype,
        notes=found.notes,
    )


def raster_config(data: DataConfig) -> DataConfig | None:
    """Return the section of georeferenced scenes, or None for pairs of chips."""
    if data.kind == "raster":
        return data
    if data.kind == "landcoverai_scenes" and not data.official_split:
        from geoseg.data.landcoverai import scenes_config
        from geoseg.data.published import find_root

        return scenes_config(data, find_root(data))
    return None


def list_split(data: DataConfig, split: SplitName) -> ChipSet:
    """Return the pairs of a split, without opening any of them.

    Raises:
        InputError: files are missing or unpaired.
        UsageError: an option that this kind of data does not have.
    """
    found = _list_folder(data, split) if data.kind == "folder" else _list_published(data, split)
    if not found.chips:
        raise InputError(f"data: the split {split!r} is empty. Check data.split and the lists.")
    return found


def image_rule(data: DataConfig, found: ChipSet) -> ImageRule:
    """Return how a split's images are read; the first one says how many bands there are."""
    rule = ImageRule(data.bands, data.dtype, repeat_grey=found.repeat_grey)
    if data.bands is not None:
        count = len(data.bands)
    elif found.repeat_grey:
        count = 3
    else:
        count = len(choose_bands(describe_image(found.chips[0]), rule))
    if data.band_names is not None and len(data.band_names) != count:
        raise InputError(
            f"data.band_names: expected {count} names, one per band; got {len(data.band_names)}."
        )
    return ImageRule(data.bands, data.dtype, count, found.repeat_grey)


def _list_folder(data: DataConfig, split: SplitName) -> ChipSet:
    if data.train is None:
        raise InputError(
            "data.train: expected the images and labels of the training split, for example "
            "{images: chips/images, labels: chips/masks}; got none."
        )
    if data.classes is None:
        raise InputError(
            "data.classes: expected the classes of the masks, for example "
            "[{id: 0, name: other}, {id: 1, name: building}]; got none. "
            "`geoseg describe FOLDER` lists the values that occur."
        )
    classes = class_specs(data.classes)
    notes: tuple[str, ...] = ()
    own = {"train": data.train, "val": data.val, "test": data.test}[split]
    if own is not None and (split != "train" or data.val is not None):
        chips = tuple(list_chips(own, f"data.{split}"))
    elif data.val is not None:
        raise InputError("data: there are no test data. Give data.test.")
    else:
        has_test = data.test is not None
        chips = divide(list_chips(data.train, "data.train"), data.split, split, has_test=has_test)
        notes = (CHIP_LEAK,) if data.split.by == "chip" else ()
    if split == "train":
        chips = choose_subset(chips, data.subset, data.subset_seed)
    return ChipSet(chips, classes, make_rule(data, classes), notes=notes)


def _list_published(data: DataConfig, split: SplitName) -> ChipSet:
    from geoseg.data.published import list_published

    return list_published(data, split)


def _band_names(data: DataConfig, rule: ImageRule) -> tuple[str, ...]:
    if data.band_names is not None:
        return data.band_names
    count = rule.count or 0
    return COLORS if count == 3 else tuple(f"band{i}" for i in range(1, count + 1))
