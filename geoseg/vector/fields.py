"""The fields of a layer, the same in every format, as Arrow columns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.classes import ClassTable
from geoseg.vector.geometry import Geometries, to_wkb
from geoseg.vector.rows import PolygonBatch

if TYPE_CHECKING:
    import pyarrow as pa

GEOMETRY = "geometry"


@dataclass(frozen=True)
class Features:
    """A batch, ready to be written.

    Attributes:
        batch: what the features are.
        geometries: in the layer's CRS.
        area_m2: (F,), NaN where unknown.
        perim_m: (F,), NaN where unknown.
    """

    batch: PolygonBatch
    geometries: Geometries
    area_m2: NDArray[np.float64]
    perim_m: NDArray[np.float64]

    def bounds(self) -> NDArray[np.float64]:
        """Return left, bottom, right, top."""
        xy = self.geometries.xy
        return np.concatenate([xy.min(axis=0), xy.max(axis=0)])


def schema() -> "pa.Schema":
    """Return the columns of a layer."""
    import pyarrow as pa

    return pa.schema(
        [
            ("class_id", pa.int32()),
            ("class_name", pa.string()),
            ("area_m2", pa.float64()),
            ("perim_m", pa.float64()),
            ("confidence", pa.float64()),
            ("on_edge", pa.bool_()),
            (GEOMETRY, pa.large_binary()),
        ]
    )


def record_batch(features: Features, classes: ClassTable, *, multi: bool) -> "pa.RecordBatch":
    """Return features as Arrow columns."""
    import pyarrow as pa

    batch = features.batch
    wkb, offsets = to_wkb(features.geometries, multi=multi)
    columns = [
        _plain(pa.int32(), batch.class_id.astype(np.int32, copy=False)),
        _names(batch.class_id, classes),
        *(_numbers(v) for v in (features.area_m2, features.perim_m, batch.confidence)),
        _plain(pa.bool_(), np.packbits(batch.on_edge, bitorder="little"), len(batch.on_edge)),
        _bytes(pa.large_binary(), offsets, wkb),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema())


# Arrays are made of their buffers: pa.array would import pandas, which takes two seconds.


def _plain(kind: Any, values: NDArray[Any], length: int | None = None) -> Any:
    import pyarrow as pa

    count = len(values) if length is None else length
    return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(np.ascontiguousarray(values))])


def _numbers(values: NDArray[np.float64]) -> Any:
    """Return a column in which NaN is null."""
    import pyarrow as pa

    known = np.packbits(~np.isnan(values), bitorder="little")
    values = np.ascontiguousarray(values, np.float64)
    buffers = [pa.py_buffer(known), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.float64(), len(values), buffers)


def _bytes(kind: Any, offsets: NDArray[Any], data: NDArray[np.uint8]) -> Any:
    import pyarrow as pa

    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(offsets) - 1, buffers)


def _names(class_ids: NDArray[np.int32], classes: ClassTable) -> Any:
    import pyarrow as pa

    ids, which = np.unique(class_ids, return_inverse=True)
    texts = [np.frombuffer(classes.name(int(i)).encode(), np.uint8) for i in ids]
    starts = np.cumsum([0, *map(len, texts)])
    lengths = np.diff(starts)[which]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    letters = np.arange(offsets[-1]) + np.repeat(starts[which] - offsets[:-1], lengths)
    return _bytes(pa.string(), offsets.astype(np.int32), np.concatenate(texts)[letters])
