"""Polygons of a map that was just predicted: what ``geoseg predict --vector`` adds."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.config import PredictOptions
from geoseg.errors import InterruptedRunError
from geoseg.listener import Listener, SecondStep

if TYPE_CHECKING:
    from geoseg.vector import VectorOptions, VectorResult


@dataclass(frozen=True)
class Polygons:
    """The polygons that a prediction ends with.

    Attributes:
        out: the layer.
        overwrite: whether it may be replaced.
        key: of the prediction: model, rasters as they are, and options.
    """

    out: Path
    overwrite: bool
    key: str

    @property
    def hidden_confidence(self) -> Path:
        """Where confidence goes that is wanted for the polygons alone; kept until they are made."""
        return self.out.with_name(f".{self.out.stem}.confidence.tif")

    @property
    def record(self) -> Path:
        """Where it is kept, once the map is finished, that its polygons are not."""
        return self.out.with_name(f".{self.out.stem}.polygons.json")

    def are_all_that_lacks(self, class_map: Path, others: Iterable[Path | None]) -> bool:
        """Return whether the same prediction has made all its files and was stopped then."""
        recorded = _recorded(self.record)
        if recorded is None or recorded["key"] != self.key:
            return False
        made = all(path is None or path.exists() for path in others)
        return made and recorded["map"] == _state(class_map)

    def write(
        self,
        class_map: Path,
        options: PredictOptions,
        listener: Listener,
        *,
        alone: bool = False,
    ) -> Path | None:
        """Make them of a finished map.

        Args:
            class_map: of the prediction.
            options: of the prediction, from `with_polygons`.
            listener: hears of it.
            alone: nothing came before; else the plan that the listener knows is the prediction's.

        Returns:
            The confidence raster that was asked for, or None.
        """
        from geoseg.vector import VectorOptions, vectorize_raster

        wanted = VectorOptions(
            confidence=options.confidence,
            overwrite=self.overwrite,
            max_memory_bytes=options.max_memory_bytes,
        )
        told = listener if alone else SecondStep(listener)
        state = {"key": self.key, "overwrite": self.overwrite, "map": _state(class_map)}
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.record.write_text(json.dumps(state), encoding="utf-8")
        try:
            vectorize_raster(class_map, self.out, options=wanted, listener=told)
        except InterruptedRunError as error:
            raise InterruptedRunError(
                "stopped. The map is finished: give --resume to make its polygons."
            ) from error
        self.record.unlink(missing_ok=True)
        if options.confidence != self.hidden_confidence:
            return options.confidence
        self.hidden_confidence.unlink(missing_ok=True)
        return None


def with_polygons(
    vector: Path,
    options: PredictOptions,
    class_map: Path,
    inputs: Sequence[str],
    *,
    model: str,
    stacked: bool,
) -> tuple[Polygons, PredictOptions]:
    """Return a prediction's polygons, and options that also make the confidence they are given.

    Raises:
        UsageError: they cannot be written there.
    """
    from geoseg.vector.publish import check_output

    key = _key(model, inputs, options, class_map, stacked=stacked)
    polygons = Polygons(vector, _may_replace(class_map, options), key)
    recorded = _recorded(polygons.record) if options.resume else None
    if recorded is not None and recorded["key"] == key:
        polygons = replace(polygons, overwrite=bool(recorded["overwrite"]))
    check_output(vector, overwrite=polygons.overwrite, inputs=map(Path, inputs))
    if options.confidence is None:
        options = replace(options, confidence=polygons.hidden_confidence)
    return polygons, options


def _key(
    model: str, inputs: Sequence[str], options: PredictOptions, class_map: Path, *, stacked: bool
) -> str:
    """Return a hash of what decides on a prediction's files."""
    from geoseg.model_files import file_sha256, find_model

    same = replace(options, resume=False, overwrite=False, readers=None, max_memory_bytes=0)
    files = [*inputs, *([str(options.aoi)] if options.aoi else [])]
    read = [(name, _state(Path(name))) for name in files]
    model_hash = file_sha256(find_model(model))
    parts = [model_hash, read, stacked, repr(same), str(class_map.absolute())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _state(path: Path) -> list[int] | None:
    """Return size and time of a file, which change with it; None where there is none."""
    if not path.exists():
        return None
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _recorded(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"key", "overwrite", "map"} <= set(found) else None


def _may_replace(class_map: Path, options: PredictOptions) -> bool:
    if not options.resume:
        return options.overwrite
    from geoseg.predict.finish import may_replace
    from geoseg.predict.parts import parts_folder

    return may_replace(parts_folder(class_map), options)


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
