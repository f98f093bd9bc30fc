"""Looks at each pair of files once and says what is in it, or what is wrong with it."""

import hashlib
from dataclasses import dataclass, field

from torch.utils.data import Dataset

from geoseg.data.chips import (
    Chip,
    ChipDataset,
    check_shapes,
    describe_image,
    read_image,
    try_read_mask,
)
from geoseg.data.sample import IGNORE
from geoseg.data.statistics import Moments, count_classes, moments
from geoseg.errors import GeoreferenceError, GeosegError
from geoseg.raster.georef import bounds_of, crop_transform, local_gsd
from geoseg.types import BBox, Window


@dataclass(frozen=True)
class ChipFacts:
    """What one pair of files holds.

    Attributes:
        name: of the sample.
        height: px.
        width: px.
        counts: labelled pixels of each class.
        moments: of the image's valid pixels.
        unknown: label value without a class -> pixels.
        digest: of the image's values and size.
        place: (CRS, bounds) on the ground, where the image has them.
        gsd_m: along columns and rows, likewise.
        error: why the pair cannot be used; the other fields are then empty.
    """

    name: str
    height: int = 0
    width: int = 0
    counts: tuple[int, ...] = ()
    moments: Moments = field(default_factory=Moments)
    unknown: dict[int, int] = field(default_factory=dict)
    digest: str = ""
    place: tuple[str, BBox] | None = None
    gsd_m: tuple[float, float] | None = None
    error: str = ""


class Inspection(Dataset[ChipFacts]):
    """The facts of each chip of a data set, so that worker processes can look at them."""

    def __init__(self, dataset: ChipDataset, num_classes: int) -> None:
        self.dataset = dataset
        self.num_classes = num_classes

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> ChipFacts:
        """Return what a chip holds; a chip that cannot be used is a fact too."""
        chip = self.dataset.chips[index]
        try:
            return self._look(chip)
        except GeosegError as error:
            return ChipFacts(chip.name, error=str(error))

    def _look(self, chip: Chip) -> ChipFacts:
        values, valid = read_image(chip, self.dataset.images)
        mask, unknown = try_read_mask(chip, self.dataset.labels)
        check_shapes(chip, values.shape[-2:], mask.shape)
        mask[~valid] = IGNORE
        height, width = mask.shape
        place, gsd_m = look_at_place(chip)
        return ChipFacts(
            chip.name,
            height,
            width,
            tuple(map(int, count_classes(mask, self.num_classes))),
            moments(values, valid),
            unknown,
            hashlib.blake2b(values.tobytes() + f"{values.shape}".encode()).hexdigest(),
            place,
            gsd_m,
        )


def look_at_place(
    chip: Chip,
) -> tuple[tuple[str, BBox] | None, tuple[float, float] | None]:
    """Return (CRS, bounds) of an image and its ground sampling distance in m, where it has them."""
    info = describe_image(chip)
    georef = info.georef
    if not georef.is_complete or georef.crs is None:
        return None, None
    window = chip.window or Window(0, 0, info.height, info.width)
    try:
        gsd_m = local_gsd(georef, window.row + window.height / 2, window.col + window.width / 2)
    except GeoreferenceError:
        return None, None
    transform = crop_transform(georef.transform, window)
    return (georef.crs.to_string(), bounds_of(transform, window.height, window.width)), gsd_m
