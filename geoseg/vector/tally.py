"""Counts what goes in and what comes out, class by class, so that nothing is lost unsaid."""

import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.classes import ClassTable
from geoseg.vector.fields import Features
from geoseg.vector.geometry import planar_areas
from geoseg.vector.result import ClassArea
from geoseg.vector.rows import NODATA, Rows

# Ids up to here are counted in a table, larger ones by sorting.
TABLE_IDS = 2**16


class CountedRows:
    """A class map that counts the pixels of each class while it is read once, from the top.

    Args:
        rows: the map.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.pixels: dict[int, int] = defaultdict(int)

    @property
    def height(self) -> int:
        """Rows of the map."""
        return self.rows.height

    @property
    def width(self) -> int:
        """Columns of the map."""
        return self.rows.width

    def read_rows(self, start: int, stop: int) -> NDArray[np.int32]:
        """Return the class ids (stop - start, width)."""
        codes = self.rows.read_rows(start, stop)
        if codes.max(initial=NODATA) < TABLE_IDS:
            counts = np.bincount((codes - NODATA).ravel())
            ids = np.flatnonzero(counts)
            found = zip(ids + NODATA, counts[ids], strict=True)
        else:
            found = zip(*np.unique(codes, return_counts=True), strict=True)
        for class_id, count in found:
            self.pixels[int(class_id)] += int(count)
        return codes


class Tally:
    """Sums up the features that pass."""

    def __init__(self, square_classes: frozenset[int] = frozenset()) -> None:
        self.square_classes = square_classes
        self.features: dict[int, int] = defaultdict(int)
        self.pixels: dict[int, int] = defaultdict(int)
        self.planar_px: dict[int, float] = defaultdict(float)
        self.area_m2: dict[int, float] = defaultdict(float)
        self.squared = self.could_be_square = 0
        self.unplaced = 0
        self.least_confidence, self.most_confidence = math.inf, -math.inf

    def count(self, features: Features) -> Features:
        """Take a batch into account, and return it."""
        batch = features.batch
        ids, which = np.unique(batch.class_id, return_inverse=True)
        unplaced = np.isnan(features.area_m2)
        sums = {
            "pixels": np.bincount(which, batch.pixels),
            "planar_px": np.bincount(which, planar_areas(batch)),
            "area_m2": np.bincount(which, np.where(unplaced, 0.0, features.area_m2)),
            "features": np.bincount(which),
        }
        for k, class_id in enumerate(ids.tolist()):
            self.features[class_id] += int(sums["features"][k])
            self.pixels[class_id] += int(sums["pixels"][k])
            self.planar_px[class_id] += float(sums["planar_px"][k])
            self.area_m2[class_id] += float(sums["area_m2"][k])
        # Squaring a building squares the hole that it fills in its surroundings, too.
        of_polygons = np.repeat(batch.class_id, np.diff(batch.feature_offsets))
        wanted = np.isin(of_polygons, [*self.square_classes])
        self.squared += int((batch.squared & wanted).sum())
        self.could_be_square += int(wanted.sum())
        self.unplaced += int(unplaced.sum())
        # Features without any are NaN, which fmin and fmax pass over.
        least, most = self.least_confidence, self.most_confidence
        self.least_confidence = float(np.fmin.reduce(batch.confidence, initial=least))
        self.most_confidence = float(np.fmax.reduce(batch.confidence, initial=most))
        return features

    def areas(
        self,
        classes: ClassTable,
        before: dict[int, int] | None,
        *,
        wanted: frozenset[int] | None,
        pixel_area: float,
        has_metres: bool,
    ) -> tuple[ClassArea, ...]:
        """Return each class's areas before and after.

        Args:
            classes: their names.
            before: pixels of each class in the map; None: as in the features.
            wanted: ids that became polygons; None: all.
            pixel_area: of one pixel.
            has_metres: whether areas in square metres are known.
        """
        pixels = self.pixels if before is None else before
        ids = {i for i in {*pixels, *self.features} if i != NODATA}
        return tuple(
            ClassArea(
                id=i,
                name=classes.name(i),
                features=self.features.get(i, 0),
                pixels=pixels.get(i, 0),
                before=pixels.get(i, 0) * pixel_area,
                after=self.planar_px.get(i, 0.0) * pixel_area,
                area_m2=self.area_m2.get(i, 0.0) if has_metres else None,
            )
            for i in sorted(ids if wanted is None else ids & wanted)
        )


def sentences(areas: tuple[ClassArea, ...], unit: str) -> Iterator[str]:
    """Yield what became of each class's area, for the log."""
    for c in areas:
        change = f" ({100 * (c.after / c.before - 1):+.2f} %)" if c.before else ""
        yield (
            f"{c.name}: {c.features:,} polygons, {c.before:,.6g} {unit} in the map, "
            f"{c.after:,.6g} {unit} in polygons{change}"
        )
