"""Calls the compiled polygoniser; mirrors ``kernels/include/geoseg_vector.h``."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from geoseg import _native
from geoseg.errors import OutOfMemoryError
from geoseg.vector.rows import PolygonBatch, ShapeOptions

_SIZE, _POINTER, _NUMBER = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
_SQUARE_RING = ctypes.CFUNCTYPE(_SIZE, _POINTER, _SIZE, _POINTER)
STOPPED = -2


class _Options(ctypes.Structure):
    """Mirrors ``struct geoseg_polygon_options``."""

    _fields_ = (
        *((name, _SIZE) for name in ("height", "width")),
        *((name, ctypes.c_int32) for name in ("connectivity", "square_count")),
        ("square_classes", _POINTER),
        ("square", _SQUARE_RING),
        *((name, _NUMBER) for name in ("square_shift", "simplify", "smooth", "aspect")),
    )


class _Batch(ctypes.Structure):
    """Mirrors ``struct geoseg_polygon_batch``."""

    _fields_ = (
        *((name, _SIZE) for name in ("features", "polygons", "rings", "vertices")),
        *((name, _POINTER) for name in ("class_id", "pixels", "confidence", "on_edge", "xy")),
        *((name, _POINTER) for name in ("ring_offsets", "polygon_offsets", "feature_offsets")),
        ("squared", _POINTER),
    )


class _Held:
    """Carries what a callback raises past the library's frames, which cannot."""

    failure: BaseException | None = None

    def __enter__(self) -> None:
        """Begin to watch."""

    def __exit__(self, kind: object, failure: BaseException | None, where: object) -> bool:
        """Hold on to what was raised."""
        self.failure = failure
        return True

    def raise_again(self) -> None:
        """Raise what is held."""
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure


class NativeTracer:
    """Turns rows of a class map into features; equal to `ReferenceTracer` to the bit.

    Args:
        height, width: of the map.
        options: what becomes of the outlines.
    """

    def __init__(self, height: int, width: int, options: ShapeOptions) -> None:
        lib = _native.library()
        assert lib is not None
        self._lib = lib
        self._held = _Held()
        self._width = width
        self._options = options
        # Kept as long as the library holds on to them.
        self._classes = np.array(sorted(options.square_classes), np.int32)
        self._callback = _SQUARE_RING(self._square) if options.square else _SQUARE_RING()
        given = _Options(
            *(height, width, options.connectivity, len(self._classes), self._classes.ctypes.data),
            *(self._callback, options.square_shift_px, options.simplify_px, options.smooth_px),
            options.aspect,
        )
        lib.geoseg_polygons_new.restype = _POINTER
        self._handle = lib.geoseg_polygons_new(ctypes.byref(given))
        if not self._handle:
            self._check(-1)

    @staticmethod
    def is_available() -> bool:
        """Return whether the compiled library is there."""
        return _native.library() is not None

    def __del__(self) -> None:
        """Give the memory back."""
        if getattr(self, "_handle", None):
            self._lib.geoseg_polygons_free(_POINTER(self._handle))

    def add_rows(self, codes: NDArray[np.int32], confidence: NDArray[np.float32] | None) -> None:
        """Take the next rows (N, width)."""
        codes = np.ascontiguousarray(codes, np.int32)
        assert codes.shape[1] == self._width
        if confidence is not None:
            confidence = np.ascontiguousarray(confidence, np.float32)
            assert confidence.shape == codes.shape
        values = None if confidence is None else _POINTER(confidence.ctypes.data)
        self._check(
            self._lib.geoseg_polygons_add_rows(
                _POINTER(self._handle), _POINTER(codes.ctypes.data), values, _SIZE(len(codes))
            )
        )

    def finish(self) -> None:
        """Say that there are no more rows."""
        self._check(self._lib.geoseg_polygons_finish(_POINTER(self._handle)))

    def pop(self, most: int) -> PolygonBatch | None:
        """Return at most so many of the features that are complete by now; None without any."""
        batch = _Batch()
        self._lib.geoseg_polygons_pop.restype = _SIZE
        found = self._lib.geoseg_polygons_pop(
            _POINTER(self._handle), _SIZE(most), ctypes.byref(batch)
        )
        self._check(found)
        if not found:
            return None
        features, polygons, rings = batch.features, batch.polygons, batch.rings
        return PolygonBatch(
            class_id=_copy(batch.class_id, features, np.int32),
            pixels=_copy(batch.pixels, features, np.int64),
            confidence=_copy(batch.confidence, features, np.float64),
            on_edge=_copy(batch.on_edge, features, np.bool_),
            xy=_copy(batch.xy, 2 * batch.vertices, np.float64).reshape(-1, 2),
            ring_offsets=_copy(batch.ring_offsets, rings + 1, np.int64),
            polygon_offsets=_copy(batch.polygon_offsets, polygons + 1, np.int64),
            feature_offsets=_copy(batch.feature_offsets, features + 1, np.int64),
            squared=_copy(batch.squared, polygons, np.bool_),
        )

    def held_bytes(self) -> int:
        """Return about how much memory open borders and the last features take."""
        self._lib.geoseg_polygons_bytes.restype = _SIZE
        return int(self._lib.geoseg_polygons_bytes(_POINTER(self._handle)))

    def _square(self, xy: int, count: int, out: int) -> int:
        """Give the library the squared form of a ring; called from within it."""
        with self._held:
            assert self._options.square is not None
            ring = self._options.square(_copy(xy, 2 * count, np.float64).reshape(-1, 2))
            if ring is None or len(ring) > count:
                return 0
            ring = np.ascontiguousarray(ring, np.float64)
            ctypes.memmove(out, ring.ctypes.data, ring.nbytes)
            return len(ring)
        return STOPPED

    def _check(self, result: int) -> None:
        self._held.raise_again()
        if result < 0:
            raise OutOfMemoryError(
                "not enough memory for the open polygons of this map; close other programs, or "
                "drop specks with --min-area first"
            )


def _copy[T: np.generic](address: int | None, count: int, dtype: type[T]) -> NDArray[T]:
    """Return a copy of an array that the library owns."""
    if not address or not count:
        return np.zeros(0, dtype)
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).copy()
