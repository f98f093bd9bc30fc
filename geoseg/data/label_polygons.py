"""Vector labels: polygons with a class, burnt onto a patch by the rule of pixel centres."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from rasterio.features import rasterize
from shapely import STRtree

from geoseg.config.run import DataConfig
from geoseg.data.labels import Mask
from geoseg.data.patches import PatchGrid, along, same_crs
from geoseg.data.sample import IGNORE
from geoseg.errors import GeoreferenceError, InputError
from geoseg.raster.gdal import cause_of
from geoseg.spec import ClassSpec

Geometries = NDArray[np.object_]

VECTOR_SUFFIXES = {
    *(".gpkg", ".geojson", ".geojsonl", ".json", ".shp", ".fgb", ".parquet", ".kml", ".gml", ".zip")
}
# Beyond so many corners a polygon is clipped to the patch before it is burnt.
LARGE_POLYGON = 2000
SHOWN = 5


@dataclass
class LabelPolygons:
    """Polygons and their channels; where they overlap, the later one counts.

    Attributes:
        name: of the file, for messages.
        polygons: in ``crs``.
        channels: uint8, one per polygon; may be IGNORE.
        crs: as WKT; empty: none.
    """

    name: str
    polygons: Geometries
    channels: NDArray[np.uint8]
    crs: str
    _placed: dict[str, tuple[Geometries, STRtree]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; its search trees it makes itself."""
        return {**vars(self), "_placed": {}}

    def burn(self, mask: Mask, grid: PatchGrid) -> None:
        """Write the channel of each polygon to the pixels whose centre lies in it.

        Args:
            mask: uint8 (H, W), changed in place.
            grid: where the mask lies.
        """
        polygons, tree = self.placed(grid.crs)
        corners = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
        frame = shapely.Polygon([grid.transform @ corner for corner in corners])
        near = np.sort(tree.query(frame, predicate="intersects"))
        if not len(near):
            return
        in_pixels = partial(along, ~grid.transform)
        chosen = shapely.transform(_clipped(polygons[near], frame), in_pixels)
        shapes = zip(chosen, self.channels[near].tolist(), strict=True)
        drawn = [(polygon, value) for polygon, value in shapes if not polygon.is_empty]
        if drawn:
            rasterize(drawn, out=mask)

    def placed(self, crs: str) -> tuple[Geometries, STRtree]:
        """Return the polygons in a CRS, and a search tree over them.

        Raises:
            GeoreferenceError: only one of file and image has a CRS, or they cannot be related.
        """
        if crs not in self._placed:
            polygons = self.polygons
            if bool(crs) != bool(self.crs):
                lacking = "the image" if self.crs else repr(self.name)
                raise GeoreferenceError(
                    f"expected a CRS in both label polygons and imagery; {lacking} has none. "
                    "Assign it (ogr2ogr -a_srs, gdal_translate -a_srs), or give label rasters."
                )
            if not same_crs(crs, self.crs):
                polygons = np.array(geopandas.GeoSeries(polygons, crs=self.crs).to_crs(crs))
            if not np.isfinite(shapely.total_bounds(polygons)).all():
                raise GeoreferenceError(
                    f"{self.name!r}: its coordinates have no place in the imagery's CRS. Check its "
                    "own CRS: a GeoJSON file holds longitude and latitude, whatever it was drawn "
                    "in."
                )
            self._placed[crs] = polygons, STRtree(polygons)
        return self._placed[crs]


def load_label_polygons(path: str, data: DataConfig, classes: Sequence[ClassSpec]) -> LabelPolygons:
    """Return the labelled polygons of a vector file.

    Args:
        path: of the file.
        data: ``class_field``, ``ignore`` and ``background_id`` count.
        classes: channel k is ``classes[k]``.

    Raises:
        InputError: unreadable, without polygons, or with a class that is not known.
    """
    try:
        if Path(path).suffix.lower() == ".parquet":
            frame = geopandas.read_parquet(path)
        else:
            frame = geopandas.read_file(path)
    except (DataSourceError, OSError, ValueError) as error:
        raise InputError(
            f"label file {path!r} cannot be read: {cause_of(error)}. Give a vector file with "
            "polygons."
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise InputError(f"label file {path!r}: expected polygons; got a table without geometry.")
    frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
    _check_polygons(frame, path)
    channels = _channels(frame, data, classes, path)
    crs = frame.crs.to_wkt() if frame.crs is not None else ""
    return LabelPolygons(path, np.array(frame.geometry), channels, crs)


def background_channel(data: DataConfig, classes: Sequence[ClassSpec]) -> int:
    """Return the channel of ground outside of all vector labels, or IGNORE.

    Raises:
        InputError: ``background_id`` is no class.
    """
    if data.background_id is None:
        return IGNORE
    ids = [c.id for c in classes]
    if data.background_id not in ids:
        raise InputError(
            f"data.background_id: expected the id of a class, one of "
            f"{', '.join(map(str, ids))}; got {data.background_id}."
        )
    return ids.index(data.background_id)


def _clipped(polygons: Geometries, frame: shapely.Polygon) -> Geometries:
    """Return polygons without the parts far outside of a patch, where that saves work."""
    large = shapely.get_num_coordinates(polygons) > LARGE_POLYGON
    if not large.any():
        return polygons
    left, bottom, right, top = frame.bounds
    # The new edges lie outside of the patch, so they decide on no pixel of it.
    reach = 0.25 * max(right - left, top - bottom)
    clipped = polygons.copy()
    clipped[large] = shapely.clip_by_rect(
        shapely.make_valid(polygons[large]),
        left - reach,
        bottom - reach,
        right + reach,
        top + reach,
    )
    return clipped


def _check_polygons(frame: geopandas.GeoDataFrame, path: str) -> None:
    kinds = frame.geom_type
    if kinds.empty:
        raise InputError(f"label file {path!r}: expected polygons; it is empty. Draw some labels.")
    wrong = kinds[~kinds.isin(["Polygon", "MultiPolygon"])]
    if len(wrong):
        raise InputError(
            f"label file {path!r}: expected polygons; {len(wrong)} of {len(kinds)} features are "
            f"{wrong.iloc[0]}. Buffer lines and points to the width they have on the ground, or "
            "take them out."
        )


def _channels(
    frame: geopandas.GeoDataFrame, data: DataConfig, classes: Sequence[ClassSpec], path: str
) -> NDArray[np.uint8]:
    """Return the channel of each feature by its id or name."""
    if data.class_field is None:
        channel = _only_class(data, classes, path, list(frame.columns))
        return np.full(len(frame), channel, np.uint8)
    if data.class_field not in frame.columns:
        fields = ", ".join(c for c in frame.columns if c != frame.geometry.name) or "none"
        raise InputError(
            f"label file {path!r}: expected the field {data.class_field!r} of data.class_field; it "
            f"has {fields}."
        )
    known: dict[int | str, int] = {}
    for k, spec in enumerate(classes):
        known[spec.id] = known[spec.name] = k
    known |= dict.fromkeys((*data.ignore, data.ignore_index), IGNORE)
    column = frame[data.class_field]
    found = {value: known.get(_key(value)) for value in column.unique()}
    unknown = [value for value, channel in found.items() if channel is None]
    if unknown:
        raise InputError(_unknown(unknown, known, data.class_field, path))
    return column.map(found).to_numpy(np.uint8)


def _key(value: Any) -> int | str:
    """Return a field's value as an id where it is one, else as a name."""
    if isinstance(value, str):
        return int(value) if value.strip().lstrip("-").isdigit() else value
    if pandas.isna(value):
        return "no value"
    return int(value) if float(value).is_integer() else str(value)


def _unknown(
    unknown: Sequence[Any], known: dict[int | str, int], class_field: str, path: str
) -> str:
    shown = [str(_key(value)) for value in unknown[:SHOWN]]
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    names = [str(key) for key in known]
    close = difflib.get_close_matches(shown[0], names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"label file {path!r}: expected ids or names of data.classes in field {class_field!r}; got "
        f"{', '.join(map(repr, shown))}{more}.{hint} Add them to data.classes, or to data.ignore."
    )


def _only_class(
    data: DataConfig, classes: Sequence[ClassSpec], path: str, columns: Sequence[str]
) -> int:
    """Return the channel of polygons that carry no class: the one that is not the background."""
    left = [k for k, spec in enumerate(classes) if spec.id != data.background_id]
    if len(left) != 1:
        raise InputError(
            f"label file {path!r}: expected data.class_field, the field that tells which of the "
            f"{len(left)} classes a polygon has; got none. Fields: {', '.join(columns)}."
        )
    return left[0]
