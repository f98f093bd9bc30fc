"""Sample points: reference classes at places drawn by a declared design, against the map."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from geoseg.data.sample import IGNORE
from geoseg.errors import GeoreferenceError, InputError
from geoseg.evaluate.area import SamplingDesign
from geoseg.evaluate.labels import class_list, find_class
from geoseg.evaluate.scene import ClassMap
from geoseg.raster.gdal import cause_of
from geoseg.raster.reader import open_raster
from geoseg.spec import ClassSpec
from geoseg.types import Window


@dataclass(frozen=True)
class PointOptions:
    """A probability sample of the ground.

    Attributes:
        path: vector file of points.
        design: how they were drawn: ``stratified`` by the classes of this map, or ``simple``
            random over it.
        reference_field: attribute that holds the class (id or name) seen on the ground.
        strata_field: attribute that holds the class of the map that a point was drawn from; it is
            checked against the map.
    """

    path: Path
    design: SamplingDesign
    reference_field: str = "reference"
    strata_field: str | None = None


@dataclass(frozen=True)
class SamplePoints:
    """Points with the class seen on the ground.

    Attributes:
        options: of the sample.
        xs: in the map's CRS.
        ys: likewise.
        reference: channel seen on the ground, IGNORE where nothing is said.
        strata: channel of the map that a point was drawn from, as the file says; None: not said.
    """

    options: PointOptions
    xs: NDArray[np.float64]
    ys: NDArray[np.float64]
    reference: NDArray[np.uint8]
    strata: NDArray[np.uint8] | None

    def count(self, class_map: ClassMap) -> NDArray[np.int64]:
        """Return points by mapped class (rows) and reference class (columns), (K, K).

        Those off the map or without a reference class are left out.

        Raises:
            InputError: none is left, or they were drawn from another map.
        """
        mapped = _mapped_channels(class_map, self.xs, self.ys)
        used = (self.reference != IGNORE) & (mapped != IGNORE)
        if not used.any():
            raise InputError(
                f"sample points {str(self.options.path)!r}: expected points on the map with a "
                f"reference class; none of {len(mapped)} is. Check their CRS and their fields."
            )
        if self.strata is not None:
            _check_strata(self.strata[used], mapped[used], self.options)
        size = len(class_map.classes)
        pairs = mapped[used].astype(np.int64) * size + self.reference[used]
        return np.bincount(pairs, minlength=size * size).reshape(size, size)


def load_points(options: PointOptions, crs: str, classes: Sequence[ClassSpec]) -> SamplePoints:
    """Return the points of a file in a map's CRS.

    Args:
        options: of the sample.
        crs: of the map, WKT; empty: none.
        classes: of the model; channel k is ``classes[k]``.

    Raises:
        InputError: unreadable, without points or fields, or with other classes than the model's.
    """
    frame = _read_points(options.path, crs)
    name, strata = str(options.path), None
    reference = _channels(frame, options.reference_field, classes, name)
    if options.strata_field is not None:
        strata = _channels(frame, options.strata_field, classes, name)
    xs, ys = frame.geometry.x.to_numpy(), frame.geometry.y.to_numpy()
    return SamplePoints(options, xs, ys, reference, strata)


def _read_points(path: Path, crs: str) -> geopandas.GeoDataFrame:
    name = str(path)
    try:
        is_parquet = path.suffix.lower() == ".parquet"
        frame = geopandas.read_parquet(path) if is_parquet else geopandas.read_file(path)
    except (DataSourceError, OSError, ValueError) as error:
        raise InputError(
            f"sample points {name!r} cannot be read: {cause_of(error)}. Give a vector file with "
            "points."
        ) from error
    kinds = set(frame.geom_type) if isinstance(frame, geopandas.GeoDataFrame) else {"no geometry"}
    if kinds != {"Point"}:
        got = ", ".join(sorted(map(str, kinds))) or "an empty file"
        raise InputError(f"sample points {name!r}: expected points; got {got}.")
    if frame.crs is None or not crs:
        lacking = repr(name) if frame.crs is None else "the map"
        raise GeoreferenceError(
            f"expected a CRS in both sample points and map; {lacking} has none. Assign it."
        )
    return frame.to_crs(crs)


def _mapped_channels(
    class_map: ClassMap, xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return the channel of the map under each point, IGNORE off the map and without answer."""
    grid = class_map.grid
    cols, rows = ~grid.transform @ (xs, ys)
    mapped = np.full(len(xs), IGNORE, np.uint8)
    inside = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
    with open_raster(str(class_map.path)) as dataset:
        for i in np.flatnonzero(inside):
            window = Window(int(rows[i]), int(cols[i]), 1, 1)
            mapped[i] = class_map.read(dataset, window)[0, 0]
    return mapped


def _channels(
    frame: geopandas.GeoDataFrame, field: str, classes: Sequence[ClassSpec], name: str
) -> NDArray[np.uint8]:
    fields = [str(column) for column in frame.columns if column != frame.geometry.name]
    if field not in fields:
        raise InputError(
            f"sample points {name!r}: expected a field {field!r} with classes; it has "
            f"{', '.join(fields) or 'none'}. Give --reference-field or --strata-field."
        )
    return np.array([_channel(value, classes, field, name) for value in frame[field]], np.uint8)


def _channel(value: Any, classes: Sequence[ClassSpec], field: str, name: str) -> int:
    if pandas.isna(value) or str(value).strip() == "":
        return IGNORE
    whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
    channel = find_class(int(value) if whole else str(value), classes)
    if channel is None:
        raise InputError(
            f"sample points {name!r}: expected ids or names of the model's classes "
            f"({class_list(classes)}) in field {field!r}; got {value!r}. Correct the points."
        )
    return channel


def _check_strata(
    strata: NDArray[np.uint8], mapped: NDArray[np.uint8], options: PointOptions
) -> None:
    wrong = int((strata != mapped).sum())
    if wrong:
        raise InputError(
            f"sample points {str(options.path)!r}: expected strata that are the classes of this "
            f"map; {wrong} of {len(mapped)} points have another class in it than in field "
            f"{options.strata_field!r}. They were drawn from another map, and estimate nothing "
            "with this one: leave --sample-points away, or evaluate the map they were drawn from."
        )
