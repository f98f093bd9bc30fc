"""The compiled CPU library, loaded with ctypes; each function has a NumPy reference beside its use.

`library()` is None where no library was built or it does not fit; `unavailable_reason()` says why.
Nothing is loaded before the first call.
"""

import ctypes
import functools
import importlib.util
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

ABI_VERSION = 5
DTYPE_CODES = {
    "uint8": 0,
    "uint16": 1,
    "int16": 2,
    "uint32": 3,
    "int32": 4,
    "float32": 5,
    "float64": 6,
    "int8": 7,
}
SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}

Float32 = NDArray[np.float32]
RULE_CODES = {"MODE": 0, "AVERAGE": 1}
LAYER_ORDER = ("class_map", "confidence", "probabilities")


class _BlendBase(ctypes.Structure):
    """Mirrors ``struct geoseg_blend_base``."""

    _fields_ = (
        ("left", ctypes.c_void_p),
        ("left_plane_stride", ctypes.c_int64),
        ("left_row_stride", ctypes.c_int64),
        ("left_cols", ctypes.c_int64),
        ("carry", ctypes.c_void_p),
        ("carry_plane_stride", ctypes.c_int64),
        ("carry_row_stride", ctypes.c_int64),
        ("carry_rows", ctypes.c_int64),
    )


class _ClassOutput(ctypes.Structure):
    """Mirrors ``struct geoseg_class_output``."""

    _fields_ = (
        ("class_map", ctypes.c_void_p),
        ("confidence", ctypes.c_void_p),
        ("probabilities", ctypes.c_void_p),
        ("row_stride", ctypes.c_int64),
        ("plane_stride", ctypes.c_int64),
        ("class_bytes", ctypes.c_int32),
        ("class_nodata", ctypes.c_int32),
    )


def library_path() -> Path:
    """Return where the install puts the compiled library."""
    return Path(__file__).parent / "_lib" / f"geoseg_cpu{SUFFIXES.get(sys.platform, '.so')}"


def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where it cannot be used."""
    return _load()[0]


def unavailable_reason() -> str | None:
    """Return why there is no compiled library, or None where there is one."""
    return _load()[1]


def instruction_set() -> str:
    """Return the instruction set of the compiled kernels, or ``reference``."""
    lib = library()
    return "reference" if lib is None else lib.geoseg_instruction_set().decode()


def normalize(
    values: NDArray[np.generic],
    valid: NDArray[np.bool_] | None,
    gain: Float32,
    bias: Float32,
    out: Float32,
) -> None:
    """Write ``values`` (C, H, W) x gain + bias, 0 where not valid, into ``out`` (H, W, C)."""
    bands, height, width = values.shape
    status = _loaded().geoseg_normalize(
        values.ctypes.data,
        DTYPE_CODES[values.dtype.name],
        *_strides(values, 2),
        _pointer(valid),
        0 if valid is None else _strides(valid, 1)[0],
        gain.ctypes.data,
        bias.ctypes.data,
        bands,
        height,
        width,
        out.ctypes.data,
    )
    assert status == 0


def blend(
    sums: Float32,
    left: Float32,
    carry: Float32,
    *,
    logits: Float32 | None,
    weight_y: Float32,
    weight_x: Float32,
) -> None:
    """Write a tile's sums: what it starts from, plus its weighted logits.

    Args:
        sums: out, (planes, H, W).
        left: sums of the left neighbour over the shared columns, (planes, H, shared columns).
        carry: sums of the tile row above over the shared rows, (planes, shared rows, W).
        logits: (planes, H, W), any strides; None: nothing to add.
        weight_y: (H,).
        weight_x: (W,).
    """
    planes, height, width = sums.shape
    col_strides = (0, 0, 1) if logits is None else _strides(logits, 3)
    base = _BlendBase(
        *(left.ctypes.data, *_strides(left, 2), left.shape[2]),
        *(carry.ctypes.data, *_strides(carry, 2), carry.shape[1]),
    )
    _loaded().geoseg_blend(
        sums.ctypes.data,
        *_strides(sums, 2),
        ctypes.byref(base),
        None if logits is None else logits.ctypes.data,
        *col_strides,
        weight_y.ctypes.data,
        weight_x.ctypes.data,
        planes,
        height,
        width,
    )


def classify(
    logits: Float32,
    valid: NDArray[np.bool_] | None,
    *,
    views: int,
    inverse_temperature: float,
    ids: NDArray[np.uint16],
    nodata: int,
    layers: Mapping[str, NDArray[np.generic]],
) -> int:
    """Fill layers from blended logits (views x K, H, W).

    Args:
        logits: float32, dense along columns.
        valid: True where the map has an answer, (H, W); None: everywhere.
        views: outermost in the first axis; their softmax results are averaged.
        inverse_temperature: factor on the logits before the softmax.
        ids: class id of each channel.
        nodata: of the class map.
        layers: ``class_map`` (1, H, W), uint8 or uint16; if wanted ``confidence`` (1, H, W) and
            ``probabilities`` (K, H, W), uint8 of 254ths; all with the same row stride.

    Returns:
        Number of valid pixels with a logit that is not finite.
    """
    planes, height, width = logits.shape
    class_map, probabilities = layers["class_map"], layers.get("probabilities")
    output = _ClassOutput(
        *[_pointer(layers.get(name)) for name in LAYER_ORDER],
        _strides(class_map, 2)[1],
        0 if probabilities is None else _strides(probabilities, 1)[0],
        class_map.itemsize,
        nodata,
    )
    bad = _loaded().geoseg_classify(
        logits.ctypes.data,
        *_strides(logits, 2),
        views,
        planes // views,
        inverse_temperature,
        ids.ctypes.data,
        _pointer(valid),
        0 if valid is None else _strides(valid, 1)[0],
        height,
        width,
        ctypes.byref(output),
    )
    return int(bad)


def halve(values: NDArray[np.generic], nodata: int, rule: str, out: NDArray[np.generic]) -> None:
    """Write ``values`` (H, W), uint8 or uint16, at half the resolution into ``out``.

    Args:
        values: dense along columns.
        nodata: does not count.
        rule: ``MODE`` or ``AVERAGE`` of two by two.
        out: (ceil(H / 2), ceil(W / 2)), the same type.
    """
    status = _loaded().geoseg_halve(
        values.ctypes.data,
        DTYPE_CODES[values.dtype.name],
        _strides(values, 1)[0],
        *values.shape,
        RULE_CODES[rule],
        nodata,
        out.ctypes.data,
        _strides(out, 1)[0],
    )
    assert status == 0


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    path = library_path()
    if not path.exists():
        return None, "not built: no C++ compiler was found when geoseg was installed"
    try:
        lib = _open(path)
    except OSError as error:
        return None, f"{path.name} cannot be loaded: {error}"
    if lib.geoseg_abi_version() != ABI_VERSION:
        return None, f"{path.name} belongs to another version of geoseg; install it again"
    _declare(lib)
    logger.debug("CPU kernels: %s", lib.geoseg_instruction_set().decode())
    return lib, None


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        # It needs the OpenMP library, which torch brings along where the system has none.
        spec = importlib.util.find_spec("torch")
        folders = (spec.submodule_search_locations if spec else None) or []
        found = [p for folder in folders for p in Path(folder, "lib").glob("libgomp*.so*")]
        if not found:
            raise
        ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))


def _declare(lib: ctypes.CDLL) -> None:
    pointer, size, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    base, output = ctypes.POINTER(_BlendBase), ctypes.POINTER(_ClassOutput)
    lib.geoseg_instruction_set.restype = ctypes.c_char_p
    lib.geoseg_normalize.argtypes = (
        *(pointer, ctypes.c_int32, size, size),  # values
        *(pointer, size),  # valid
        *(pointer, pointer),  # gain, bias
        *(size, size, size, pointer),  # bands, height, width, out
    )
    lib.geoseg_blend.restype = None
    lib.geoseg_blend.argtypes = (
        *(pointer, size, size),  # sums
        base,
        *(pointer, size, size, size),  # logits
        *(pointer, pointer),  # weights
        *(size, size, size),  # planes, height, width
    )
    lib.geoseg_classify.restype = size
    lib.geoseg_classify.argtypes = (
        *(pointer, size, size, size, size, real),  # logits, views, classes, temperature
        pointer,  # ids
        *(pointer, size),  # valid
        *(size, size, output),  # height, width
    )
    lib.geoseg_halve.argtypes = (
        *(pointer, ctypes.c_int32, size, size, size),  # values, height, width
        *(ctypes.c_int32, ctypes.c_int32),  # rule, nodata
        *(pointer, size),  # out
    )


def _loaded() -> ctypes.CDLL:
    lib = library()
    assert lib is not None, "callers ask library() first"
    return lib


def _pointer(array: NDArray[np.generic] | None) -> int | None:
    return None if array is None else array.ctypes.data


def _strides(array: NDArray[np.generic], count: int) -> tuple[int, ...]:
    """Return the first ``count`` strides in elements; without the last, that axis is dense."""
    dense = array.size == 0 or array.shape[-1] == 1 or array.strides[-1] == array.itemsize
    assert dense or count == array.ndim
    return tuple(s // array.itemsize for s in array.strides[:count])
