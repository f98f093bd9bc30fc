"""Finds chips that two splits share by content or by ground, from what was read of them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import shapely
from rasterio.warp import transform_bounds

from geoseg.data.chip_facts import ChipFacts
from geoseg.raster.gdal import GDAL_ERRORS

# Neighbours touch, and boxes of one grid differ by rounding: less than this share is no overlap.
LEAST_SHARE = 0.01

Pairs = list[tuple[str, str]]


def find_shared(facts: Mapping[str, Sequence[ChipFacts]]) -> Iterator[str]:
    """Yield a sentence for whatever image or ground two splits share, or one has twice.

    Args:
        facts: by split.
    """
    for (name, chips), (other, others) in itertools.combinations(facts.items(), 2):
        same = _same_images(chips, others)
        if same:
            yield (
                f"leak: {len(same)} images of {other} are also in {name}, first {same[0][1]!r} = "
                f"{same[0][0]!r}. Take them out of one of the splits."
            )
        pairs = _same_ground(chips, others)
        if pairs:
            yield (
                f"leak: {len({b for _, b in pairs})} images of {other} overlap images of {name} on "
                f"the ground, first {pairs[0][1]!r} and {pairs[0][0]!r}: scores will be too good. "
                "Split by place."
            )
    for name, chips in facts.items():
        repeated = _repeated(chips)
        if repeated:
            yield (
                f"{name}: {len(repeated)} images occur more than once, first {repeated[0][1]!r} = "
                f"{repeated[0][0]!r}. They count double."
            )


def _same_images(chips: Sequence[ChipFacts], others: Sequence[ChipFacts]) -> Pairs:
    known = {f.digest: f.name for f in chips if f.digest}
    return [(known[f.digest], f.name) for f in others if f.digest in known]


def _repeated(chips: Sequence[ChipFacts]) -> Pairs:
    first: dict[str, str] = {}
    usable = [f for f in chips if f.digest]
    return [
        (first[f.digest], f.name) for f in usable if first.setdefault(f.digest, f.name) != f.name
    ]


def _same_ground(chips: Sequence[ChipFacts], others: Sequence[ChipFacts]) -> Pairs:
    """Return names of images that overlap; images without a place are left out."""
    boxes, other_boxes = _boxes(chips), _boxes(others)
    tree = shapely.STRtree([box for _, box in boxes])
    found = []
    for name, box in other_boxes:
        for i in tree.query(box, predicate="intersects"):
            own, near = boxes[i]
            if box.intersection(near).area > LEAST_SHARE * min(box.area, near.area):
                found.append((own, name))
    return found


def _boxes(chips: Sequence[ChipFacts]) -> list[tuple[str, shapely.Polygon]]:
    """Return the images' bounding boxes in longitude and latitude."""
    found = []
    for fact in chips:
        if fact.place is None:
            continue
        crs, bounds = fact.place
        try:
            found.append((fact.name, shapely.box(*transform_bounds(crs, "EPSG:4326", *bounds))))
        except GDAL_ERRORS:  # a place outside of its CRS's own world overlaps nothing
            continue
    return found
