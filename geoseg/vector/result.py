"""What a run of `vectorize_raster` has made."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClassArea:
    """One class in the map and in the layer.

    Attributes:
        id: as in the map.
        name: as in the layer.
        features: of this class.
        pixels: of this class in the map, before specks and holes were cleaned away.
        before: their area: pixels x area of a pixel, see `VectorResult.unit`.
        after: area of the polygons, in the same unit.
        area_m2: area of the polygons on the ellipsoid; None without a CRS.
    """

    id: int
    name: str
    features: int
    pixels: int
    before: float
    after: float
    area_m2: float | None


@dataclass(frozen=True)
class VectorResult:
    """What a run has made.

    Attributes:
        out: the layer.
        features: in it.
        classes: by id, with areas before and after.
        unit: of these areas: ``m2`` on the ground, by a pixel at the middle of the map; ``px``
            without a CRS.
        squared: outlines that were given square corners.
        repaired: geometries that the change of CRS made invalid and that were mended.
        seconds: wall time.
        pixels: of the map.
    """

    out: Path
    features: int
    classes: tuple[ClassArea, ...]
    unit: str
    squared: int
    repaired: int
    seconds: float
    pixels: int
