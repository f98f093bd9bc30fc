"""Polygons of a map that was just predicted: what ``geoseg predict --vector`` adds."""

from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import InterruptedRunError
from geoseg.listener import Listener, SecondStep

if TYPE_CHECKING:
    from geoseg.vector import VectorOptions, VectorResult


def confidence_beside(vector: Path) -> Path:
    """Return where confidence goes that is wanted for the polygons alone."""
    return vector.with_name(f".{vector.stem}.confidence.tif")


def write_polygons(
    class_map: Path, vector: Path, *, options: "VectorOptions", listener: Listener
) -> "VectorResult":
    """Vectorise a finished map.

    Raises:
        InterruptedRunError: the map stays, and the message says so.
    """
    from geoseg.vector import vectorize_raster

    try:
        return vectorize_raster(class_map, vector, options=options, listener=SecondStep(listener))
    except InterruptedRunError as error:
        raise InterruptedRunError(
            f"stopped. The map is finished: `geoseg vectorize {class_map} {vector}` makes its "
            "polygons."
        ) from error
