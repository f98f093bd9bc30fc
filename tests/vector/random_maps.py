"""Random class maps, and polygons of them by any tracer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.vector.polygonize import Tracer
from geoseg.vector.rows import PolygonBatch, ShapeOptions

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class ArrayRows:
    """A class map in memory."""

    codes: NDArray

    @property
    def height(self) -> int:
        return self.codes.shape[0]

    @property
    def width(self) -> int:
        return self.codes.shape[1]

    def read_rows(self, start: int, stop: int) -> NDArray:
        return self.codes[start:stop]


@st.composite
def class_maps(draw: st.DrawFn, lowest: int = -1) -> Codes:
    """Noise, or larger patches of noise, with and without nodata."""
    height, width = draw(st.integers(1, 28)), draw(st.integers(1, 28))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(1, 4))
    low = draw(st.integers(lowest, 0))
    cell = draw(st.sampled_from([1, 2, 3, 5]))
    shape = -(-height // cell), -(-width // cell)
    codes = np.kron(rng.integers(low, classes, shape), np.ones((cell, cell), int))
    codes = codes[:height, :width]
    flipped = rng.random((height, width)) < draw(st.sampled_from([0.0, 0.1]))
    codes[flipped] = rng.integers(low, classes, flipped.sum())
    return codes.astype(np.int32)


@st.composite
def towns(draw: st.DrawFn) -> Codes:
    """Many small outlines on open ground, often a pixel apart."""
    height, width = draw(st.integers(8, 40)), draw(st.integers(8, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = np.zeros((height, width), np.int32)
    for _ in range(draw(st.integers(1, 40))):
        top, left = rng.integers(0, height), rng.integers(0, width)
        down, right = rng.integers(1, 8, 2)
        around = codes[max(top - 1, 0) : top + down + 1, max(left - 1, 0) : left + right + 1]
        if not around.any() or draw(st.integers(0, 5)) == 0:
            house = codes[top : top + down, left : left + right]
            house[...] = rng.integers(1, 4)
            house[rng.random(house.shape) < 0.1] = 0
    return codes


shape_options = st.builds(
    ShapeOptions,
    connectivity=st.sampled_from([4, 8]),
    simplify_px=st.sampled_from([0.0, 0.5, 0.8, 1.0, 1.5, 2.5, 6.0]),
    smooth_px=st.sampled_from([0.0, 0.0, 0.5, 1.0, 4.0]),
    aspect=st.sampled_from([1.0, 1.0, 0.6, 1.7]),
)


def trace(
    tracer: Tracer, codes: Codes, strip: int, confidence: NDArray[np.float32] | None = None
) -> list[PolygonBatch]:
    """Return what a tracer makes of a map, a strip at a time."""
    batches = []
    for start in range(0, len(codes), strip):
        values = None if confidence is None else confidence[start : start + strip]
        tracer.add_rows(codes[start : start + strip], values)
        if start + strip >= len(codes):
            tracer.finish()
        while (batch := tracer.pop(5)) is not None:
            batches.append(batch)
    return batches


def features(batches: list[PolygonBatch]) -> Iterator[tuple[int, int, shapely.MultiPolygon]]:
    """Yield class id, pixel count and shape of each feature, in pixels."""
    for batch in batches:
        offsets = batch.ring_offsets, batch.polygon_offsets, batch.feature_offsets
        shapes = shapely.from_ragged_array(shapely.GeometryType.MULTIPOLYGON, batch.xy, offsets)
        yield from zip(batch.class_id.tolist(), batch.pixels.tolist(), shapes, strict=True)


def flatten(batches: list[PolygonBatch]) -> dict[str, NDArray]:
    """Return the arrays of batches as one, so that two lists of batches can be compared."""
    names = ("class_id", "pixels", "confidence", "on_edge", "xy", "squared")
    flat = {name: [getattr(batch, name) for batch in batches] for name in names}
    for name in ("ring_offsets", "polygon_offsets", "feature_offsets"):
        flat[name] = [np.diff(getattr(batch, name)) for batch in batches]
    return {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in flat.items()}
