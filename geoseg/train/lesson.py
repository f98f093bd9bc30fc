"""What a few digitised polygons teach: their classes, those held out, and what is background."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import shapely
from pandas.api.types import is_integer_dtype, is_string_dtype
from pyogrio.errors import DataSourceError
from shapely.geometry.base import BaseGeometry

from geoseg.convert import class_color
from geoseg.data.patches import PatchGrid
from geoseg.errors import InputError, UsageError
from geoseg.raster.gdal import cause_of
from geoseg.spec import ClassSpec
from geoseg.train.label_place import find_on_raster

# Field of the files that a run writes for itself.
CLASS_FIELD = "geoseg_class"
# Of a class with fewer polygons than this none is held out.
FEWEST_TO_HOLD_OUT = 3
# Names by which unlabelled ground of a complete extent is found among the classes.
BACKGROUND_NAMES = ("background", "other", "unclassified", "none")


@dataclass(frozen=True)
class Lesson:
    """Polygons and their classes.

    Attributes:
        classes: of the model to be; their ids are those of the maps.
        train: polygons with the class id in `CLASS_FIELD`, taught.
        held_out: likewise, scored; empty where there are too few.
        notes: what the log says about the choice.
    """

    classes: tuple[ClassSpec, ...]
    train: geopandas.GeoDataFrame
    held_out: geopandas.GeoDataFrame
    notes: tuple[str, ...]


def read_lesson(
    labels: Path,
    known: Sequence[ClassSpec],
    *,
    ground: PatchGrid | None = None,
    class_field: str | None = None,
    complete: Path | None = None,
    background: str | None = None,
    hold_out: float = 0.2,
    seed: int = 0,
) -> Lesson:
    """Return what a vector file teaches a model.

    A label whose id or name is one of ``known`` is that class. If all are, the model keeps its
    classes; if not, it gets those of the labels (and the background, where an extent is complete).

    Args:
        labels: vector file with polygons.
        known: classes of the model to start from.
        ground: of the raster; polygons beside it teach nothing and are left out. None: anywhere.
        class_field: holds a class id or name; None: all polygons are one class, the only one of
            ``known`` that is not background.
        complete: vector file; ground inside of its polygons without a label is background.
        background: id or name of that class; None: the known class of such a name.
        hold_out: share of each class's polygons that is scored and not taught.
        seed: of that choice.

    Raises:
        InputError: no polygons, no such field, or a single class without any other.
        UsageError: no background class is known.
    """
    frame = _read_polygons(labels)
    beside = 0
    if ground is not None:
        touches = find_on_raster(frame, str(labels), ground)
        beside = int((~touches).sum())
        frame = frame[touches].reset_index(drop=True)
    names = _class_names(frame, labels, class_field, known)
    classes, notes = _choose_classes(names, known, background, complete is not None)
    if beside:
        notes.append(f"{beside} of {beside + len(frame)} polygons lie beside the raster")
    fields = _class_fields(frame, known) if class_field is None else []
    by_name = {name: c.id for c in classes for name in (c.name, str(c.id))}
    frame = geopandas.GeoDataFrame(
        {CLASS_FIELD: [by_name[n] for n in names]}, geometry=list(frame.geometry), crs=frame.crs
    )
    held = _choose_held_out(frame[CLASS_FIELD].to_numpy(), hold_out, seed)
    train, held_out = frame[~held], frame[held]
    if complete is not None:
        rest = _unlabelled(complete, frame)
        row = {CLASS_FIELD: [_background(classes, background).id]}
        rest_frame = geopandas.GeoDataFrame(row, geometry=[rest], crs=frame.crs)
        train = geopandas.GeoDataFrame(
            pandas.concat([rest_frame, train], ignore_index=True), crs=frame.crs
        )
    taught = sorted(set(train[CLASS_FIELD]))
    if len(taught) < 2:
        only = next(c.name for c in classes if c.id == taught[0])
        if fields:
            raise InputError(
                f"label file {str(labels)!r}: expected polygons of at least two classes; without "
                f"--class-field all are {only!r}. Give --class-field; the fields are: "
                f"{', '.join(fields)}."
            )
        raise InputError(
            f"label file {str(labels)!r}: expected polygons of at least two classes; all are "
            f"{only!r}, and a model that has seen one class alone finds it everywhere. Draw some "
            "polygons of what it is not, or give --complete with an extent in which all of it is "
            "labelled."
        )
    return Lesson(classes, train, held_out, tuple(notes))


def _read_polygons(path: Path) -> geopandas.GeoDataFrame:
    try:
        read = geopandas.read_parquet if path.suffix == ".parquet" else geopandas.read_file
        frame = read(path)
    except (DataSourceError, OSError, ValueError) as error:
        raise InputError(
            f"label file {str(path)!r} cannot be read: {cause_of(error)}. Give a vector file with "
            "polygons, or a raster of class ids."
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise InputError(f"label file {str(path)!r}: expected polygons; got a table without any.")
    frame = frame[frame.geom_type.isin(["Polygon", "MultiPolygon"]) & ~frame.geometry.is_empty]
    if frame.empty:
        raise InputError(f"label file {str(path)!r}: expected polygons; got none. Draw some.")
    frame = frame.reset_index(drop=True)
    frame.geometry = shapely.make_valid(np.array(frame.geometry))
    return frame


def _class_names(
    frame: geopandas.GeoDataFrame,
    path: Path,
    class_field: str | None,
    known: Sequence[ClassSpec],
) -> list[str]:
    """Return the class of each polygon, as its field says."""
    fields = [c for c in frame.columns if c != frame.geometry.name]
    if class_field is None:
        left = [c for c in known if c.name.lower() not in BACKGROUND_NAMES]
        if len(left) != 1:
            raise InputError(
                f"label file {str(path)!r}: which field tells the class? Give --class-field, one "
                f"of: {', '.join(fields) or 'none, so add one'}."
            )
        return [left[0].name] * len(frame)
    if class_field not in fields:
        raise InputError(
            f"label file {str(path)!r}: expected the field {class_field!r}; it has "
            f"{', '.join(fields) or 'none'}."
        )
    column = frame[class_field]
    if column.isna().any():
        raise InputError(
            f"label file {str(path)!r}: {int(column.isna().sum())} of {len(column)} polygons have "
            f"no value in {class_field!r}. Fill it in, or take them out."
        )
    return [_text(value) for value in column]


def _class_fields(frame: geopandas.GeoDataFrame, known: Sequence[ClassSpec]) -> list[str]:
    """Return the fields that could tell the class, those that name the model's classes first."""
    fields = [
        c
        for c in frame.columns
        if c != frame.geometry.name
        and (is_string_dtype(frame[c]) or is_integer_dtype(frame[c]))
        and frame[c].nunique() > 1
    ]
    words = {name for c in known for name in (c.name, str(c.id))}
    return sorted(fields, key=lambda c: not words & {_text(v) for v in frame[c].dropna()})


def _text(value: Any) -> str:
    is_whole = isinstance(value, (int, float, np.number)) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value).strip()


def _choose_classes(
    names: Sequence[str], known: Sequence[ClassSpec], background: str | None, complete: bool
) -> tuple[tuple[ClassSpec, ...], list[str]]:
    """Return the classes of the model to be, and what to say about them."""
    by_name = {name: c for c in known for name in (c.name, str(c.id))}
    found = list(dict.fromkeys(names))
    strange = [name for name in found if name not in by_name]
    if not strange:
        return tuple(known), []
    wanted = [by_name[n].name if n in by_name else n for n in found]
    if complete:
        given = by_name[background].name if background in by_name else background
        ground = given or next((c.name for c in known if c.name in BACKGROUND_NAMES), "background")
        wanted = [ground, *(n for n in wanted if n != ground)]
    wanted = list(dict.fromkeys(wanted))
    named = {c.name: c for c in known}
    taken = {named[n].id for n in wanted if n in named}
    free = (i for i in range(65535) if i not in taken and i != 255)
    classes = []
    for name in wanted:
        if name in named:
            classes.append(named[name])
        else:
            # A field of numbers names its classes by their ids.
            number = int(name) if name.isdigit() and int(name) not in taken | {255} else None
            new = next(free) if number is None else number
            taken.add(new)
            classes.append(ClassSpec(new, name, class_color(new + 1)))
    note = (
        f"new classes: {', '.join(c.name for c in classes)}; the model knew "
        f"{', '.join(c.name for c in known)}"
    )
    return tuple(classes), [note]


def _background(classes: Sequence[ClassSpec], background: str | None) -> ClassSpec:
    for c in classes:
        if background is not None and background in {c.name, str(c.id)}:
            return c
        if background is None and c.name.lower() in BACKGROUND_NAMES:
            return c
    raise UsageError(
        "--complete: which class is ground without a label? Give --background, one of: "
        f"{', '.join(c.name for c in classes)}."
    )


def _choose_held_out(ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which polygons are held out, bool (n,): a share of each class that has enough."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(ids), bool)
    for value in np.unique(ids):
        mine = np.flatnonzero(ids == value)
        count = round(share * len(mine)) or (1 if share > 0 else 0)
        if len(mine) >= FEWEST_TO_HOLD_OUT:
            held[rng.choice(mine, min(count, len(mine) - 2), replace=False)] = True
    return held


def _unlabelled(complete: Path, labels: geopandas.GeoDataFrame) -> BaseGeometry:
    """Return the ground of complete extents that no polygon covers, in the labels' CRS."""
    extents = _read_polygons(complete)
    if (extents.crs is None) != (labels.crs is None):
        raise InputError(
            f"expected a CRS in both the labels and {str(complete)!r}; one has none. Assign it."
        )
    if labels.crs is not None:
        extents = extents.to_crs(labels.crs)
    rest = shapely.difference(extents.union_all(), labels.union_all())
    if rest.is_empty:
        raise InputError(
            f"{str(complete)!r}: its extents are covered by labels whole, or lie elsewhere: there "
            "is no background. Draw the extent around the labels, or leave --complete out."
        )
    return rest
