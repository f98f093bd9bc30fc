"""Writes layers of polygons, batch by batch: GDAL's formats by pyogrio, GeoParquet by pyarrow."""

import importlib.metadata
import importlib.util
import json
import shutil
import sqlite3
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS

from geoseg.errors import DiskFullError, GeosegError, InputError, MachineError
from geoseg.raster.gdal import cause_of
from geoseg.vector.classes import ClassTable
from geoseg.vector.complete import is_complete
from geoseg.vector.fields import GEOMETRY, Features, record_batch, schema

DRIVERS = {
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".geojson": "GeoJSON",
    ".fgb": "FlatGeobuf",
    ".parquet": "Parquet",
}
SPARE_DISK_BYTES = 16 * 2**20
# Readers of shapefiles use signed 32-bit positions.
SHAPEFILE_LIMIT_BYTES = 2**31 - 1
SHAPE_HEADER_BYTES, RECORD_BYTES, PART_BYTES, POINT_BYTES = 100, 52, 4, 16
NAME_BYTES = 254  # of a text field in a .dbf
# A thread of GDAL's would hold all boxes for the index in memory; it is no faster.
BOUNDED = {"OGR_GPKG_ALLOW_THREADED_RTREE": "NO"}
ROW_GROUP_BYTES = 4 * 2**20


@dataclass(frozen=True)
class LayerPlan:
    """What a layer is.

    Attributes:
        name: of the layer.
        crs: WKT; None: unknown.
        multi: features may have several polygons.
        classes: their names.
        digits: after the point, in text formats.
    """

    name: str
    crs: str | None
    multi: bool
    classes: ClassTable
    digits: int | None = None

    @property
    def geometry_type(self) -> str:
        """As GDAL calls it."""
        return "MultiPolygon" if self.multi else "Polygon"


def write_layer(path: Path, plan: LayerPlan, batches: Iterable[Features]) -> None:
    """Write a layer; the format follows from the suffix.

    Args:
        path: does not exist.
        plan: what the layer is.
        batches: the features; an error that they raise is passed on.

    Raises:
        DiskFullError: no room.
        InputError: more than the format can hold.
    """
    suffix = path.suffix.lower()
    if suffix == ".shp":
        batches = _fitting_shapefile(batches, plan)
    with machine_errors(path.parent):
        if suffix == ".parquet":
            _write_parquet(path, plan, batches)
        else:
            _write_by_gdal(path, plan, batches)


def _write_by_gdal(path: Path, plan: LayerPlan, batches: Iterable[Features]) -> None:
    import pyarrow as pa

    pyogrio = import_pyogrio()
    stream = _Stream(plan, batches)
    reader = pa.RecordBatchReader.from_batches(schema(), iter(stream))
    suffix = path.suffix.lower()
    with warnings.catch_warnings():
        # A map without a CRS makes a layer without one; the run has said so.
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        pyogrio.set_gdal_config_options(BOUNDED)
        try:
            pyogrio.raw.write_arrow(
                reader,
                str(path),
                layer=plan.name,
                driver=DRIVERS[suffix],
                geometry_name=GEOMETRY,
                geometry_type=plan.geometry_type,
                crs=plan.crs,
                encoding="UTF-8" if suffix == ".shp" else None,
                layer_options=_layer_options(suffix, plan),
            )
        except (RuntimeError, ValueError, OSError) as error:
            # Arrow knows only the text of an error that the features raised.
            if stream.error is not None:
                raise stream.error from None
            raise MachineError(f"{path.name!r} cannot be written: {cause_of(error)}.") from error
        finally:
            pyogrio.set_gdal_config_options(dict.fromkeys(BOUNDED))
    if not is_complete(path, stream.features, pyogrio):
        raise MachineError(
            f"{path.name!r} cannot be written to its end. Look after its disk, or give another OUT."
        )


class _Stream:
    """Arrow batches of features; counts them, and remembers the error that ended them."""

    def __init__(self, plan: LayerPlan, batches: Iterable[Features]) -> None:
        self.plan = plan
        self.batches = batches
        self.error: BaseException | None = None
        self.features = 0

    def __iter__(self) -> Iterator[Any]:
        try:
            for features in self.batches:
                self.features += len(features.batch.class_id)
                yield record_batch(features, self.plan.classes, multi=self.plan.multi)
        except BaseException as error:
            self.error = error
            raise


def _layer_options(suffix: str, plan: LayerPlan) -> dict[str, str]:
    if suffix == ".geojson":
        digits = {} if plan.digits is None else {"COORDINATE_PRECISION": str(plan.digits)}
        return {"RFC7946": "YES", **digits}
    return {"2GB_LIMIT": "YES"} if suffix == ".shp" else {}


def _write_parquet(path: Path, plan: LayerPlan, batches: Iterable[Features]) -> None:
    """Write GeoParquet 1.1, https://geoparquet.org/releases/v1.1.0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    bounds: list[Any] = []
    waiting: list[Any] = []
    kind = schema()

    def flush(writer: Any) -> None:
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, kind))
            waiting.clear()
            # Arrow keeps what it freed; the next group would come on top of it.
            pa.default_memory_pool().release_unused()

    options = {
        "compression": "zstd",
        "store_schema": False,
        # Of geometries neither repeats nor limits are of use, and both take memory.
        "use_dictionary": ["class_id", "class_name"],
        "write_statistics": [name for name in kind.names if name != GEOMETRY],
    }
    with pq.ParquetWriter(path, kind, **options) as writer:
        for features in batches:
            bounds.append(features.bounds())
            waiting.append(record_batch(features, plan.classes, multi=plan.multi))
            if sum(batch.nbytes for batch in waiting) >= ROW_GROUP_BYTES:
                flush(writer)
        flush(writer)
        writer.add_key_value_metadata({"geo": json.dumps(_geo_metadata(plan, bounds))})


def _geo_metadata(plan: LayerPlan, bounds: list[Any]) -> dict[str, Any]:
    crs = None if plan.crs is None else CRS.from_user_input(plan.crs).to_dict(projjson=True)
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [plan.geometry_type],
        "crs": crs,
        "orientation": "counterclockwise",
        "edges": "planar",
    }
    if bounds:
        boxes = np.array(bounds)
        column["bbox"] = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def _fitting_shapefile(batches: Iterable[Features], plan: LayerPlan) -> Iterator[Features]:
    """Pass features on as long as a shapefile can hold them."""
    size = SHAPE_HEADER_BYTES
    for features in batches:
        for class_id in np.unique(features.batch.class_id):
            name = plan.classes.name(int(class_id))
            if len(name.encode()) > NAME_BYTES:
                raise InputError(
                    f"expected class names of at most {NAME_BYTES} bytes, which is what a "
                    f"shapefile holds; got {name[:40]!r}... Write .gpkg instead."
                )
        geometries = features.geometries
        size += RECORD_BYTES * len(features.batch.class_id)
        size += PART_BYTES * (len(geometries.ring_offsets) - 1) + POINT_BYTES * len(geometries.xy)
        if size > SHAPEFILE_LIMIT_BYTES:
            raise InputError(
                "the polygons need more than the 2 GB that a shapefile can hold. Write .gpkg, .fgb "
                "or .parquet, or fewer vertices: --simplify, --min-area, --classes."
            )
        yield features


def import_pyogrio() -> Any:
    """Return pyogrio, imported without pandas and geopandas.

    It looks at the versions of both when it is imported and needs them for data frames only; they
    take two seconds to import, longer than most maps take. Whatever imports them later gets them.
    """
    names = [
        name
        for name in ("pandas", "geopandas", "pyproj")
        if name not in sys.modules and importlib.util.find_spec(name) is not None
    ]
    if "pyogrio" not in sys.modules:
        for name in names:
            stand_in = types.ModuleType(name)
            stand_in.__dict__["__version__"] = importlib.metadata.version(name)
            sys.modules[name] = stand_in
        try:
            import pyogrio.raw
        finally:
            for name in names:
                del sys.modules[name]
    import pyogrio

    return pyogrio


@contextmanager
def machine_errors(folder: Path) -> Iterator[None]:
    """Turn what a full or failing disk does to a layer into a DiskFullError or MachineError."""
    try:
        yield
    except GeosegError as error:
        if type(error) is MachineError and _is_full(folder):
            raise _disk_full(folder) from error
        raise
    except (OSError, sqlite3.Error) as error:
        if _is_full(folder) or getattr(error, "errno", None) == 28:
            raise _disk_full(folder) from error
        raise MachineError(
            f"{str(folder.parent)!r} cannot be written: {cause_of(error)}."
        ) from error


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < SPARE_DISK_BYTES


def _disk_full(folder: Path) -> DiskFullError:
    return DiskFullError(
        f"the disk of {str(folder.parent)!r} is full. Nothing was left behind: free some space and "
        "run it again, or write to another disk."
    )
