"""Whether a layer has come onto the disk to its end.

What GDAL cannot write while it closes a file, it reports to nobody: a disk that is full by then
leaves a layer that opens and lacks its last features, their attributes, or its index.
"""

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

TAIL_BYTES = 64


def is_complete(path: Path, features: int, pyogrio: Any) -> bool:
    """Return whether a layer that GDAL has written can be read to its end.

    Args:
        path: of the layer, alone in its file.
        features: that it was given.
        pyogrio: imported.
    """
    checks: dict[str, Callable[[], bool]] = {
        ".gpkg": lambda: _is_indexed(path, features),
        ".shp": lambda: _is_whole_shapefile(path, features),
        ".geojson": lambda: _is_closed(path),
        ".fgb": lambda: _has_last_feature(path, features, pyogrio),
    }
    return checks[path.suffix.lower()]()


def _is_indexed(path: Path, features: int) -> bool:
    """Return whether all features of a GeoPackage are in its index, which is written last."""
    if not features:
        return True
    with closing(sqlite3.connect(path)) as connection:
        find = "SELECT table_name, column_name FROM gpkg_geometry_columns"
        table, column = connection.execute(find).fetchone()
        index = f"rtree_{table}_{column}_rowid".replace('"', '""')
        try:
            (found,) = connection.execute(f'SELECT count(*) FROM "{index}"').fetchone()
        except sqlite3.Error:
            return False
    return bool(found == features)


def _is_whole_shapefile(path: Path, features: int) -> bool:
    """Return whether the three files are as long as their headers say."""
    with path.open("rb") as file:
        words = int.from_bytes(file.read(28)[24:], "big")
    with path.with_suffix(".dbf").open("rb") as file:
        records, first, length = struct.unpack("<4xIHH", file.read(12))
    return bool(
        path.stat().st_size == 2 * words
        and path.with_suffix(".shx").stat().st_size == 100 + 8 * features
        and records == features
        and path.with_suffix(".dbf").stat().st_size >= first + length * records
    )


def _is_closed(path: Path) -> bool:
    """Return whether the collection's last brackets are there."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().split()[-2:] == [b"]", b"}"]


def _has_last_feature(path: Path, features: int, pyogrio: Any) -> bool:
    if not features:
        return True
    try:
        pyogrio.raw.read(str(path), fids=[features - 1], columns=[])
    except (RuntimeError, ValueError, OSError):
        return False
    return True
