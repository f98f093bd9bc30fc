"""The files of an evaluation: which, whether they may be written, and their writing."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from geoseg.errors import MachineError, OutputExistsError, UsageError
from geoseg.evaluate.options import EvaluateOptions
from geoseg.evaluate.record import EvaluationRecord
from geoseg.evaluate.report import REPORT_NAME, write_report
from geoseg.raster.layer import sidecars


@dataclass(frozen=True)
class Outputs:
    """Files in a folder.

    Attributes:
        folder: made if it does not exist.
        is_raster: whether there are maps.
    """

    folder: Path
    is_raster: bool = True

    @property
    def class_map(self) -> Path:
        """The prediction."""
        return self.folder / "class_map.tif"

    @property
    def error_map(self) -> Path:
        """Where it is right, and what was taken for what."""
        return self.folder / "error_map.tif"

    @property
    def errors(self) -> Path:
        """The errors of the error map as polygons."""
        return self.folder / "errors.gpkg"

    @property
    def cells(self) -> Path:
        """Scores by place."""
        return self.folder / "cells.gpkg"

    @property
    def metrics(self) -> Path:
        """The record as JSON."""
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        """The record to look at."""
        return self.folder / REPORT_NAME

    def by_kind(self) -> dict[str, Path]:
        """Return all files by kind, sidecars left away."""
        maps = {
            "class_map": self.class_map,
            "error_map": self.error_map,
            "errors": self.errors,
            "cells": self.cells,
        }
        tables = {"metrics": self.metrics, "report": self.report}
        return {**maps, **tables} if self.is_raster else tables

    def made(self) -> dict[str, str]:
        """Return the names of the maps that exist and of the tables, which follow, by kind."""
        found = self.by_kind().items()
        tables = (self.metrics, self.report)
        return {kind: path.name for kind, path in found if path in tables or path.exists()}


def prepare(outputs: Outputs, inputs: Iterable[Path], options: EvaluateOptions) -> None:
    """Make the folder, and take away what an earlier evaluation said.

    Raises:
        UsageError: an output exists, or is an input.
    """
    files = list(outputs.by_kind().values())
    files += [*sidecars(outputs.class_map), *sidecars(outputs.error_map)]
    stored = options.store_temperature
    files += [stored] if stored is not None else []
    read = {path.resolve() for path in inputs}
    for path in files:
        if path.resolve() in read:
            raise UsageError(
                f"the output {str(path)!r} would replace an input. Give another --out."
            )
        if path.exists() and not options.overwrite:
            raise OutputExistsError(
                f"{str(path)!r} exists. Give --overwrite to replace it, or another --out."
            )
    try:
        outputs.folder.mkdir(parents=True, exist_ok=True)
        for stale in (outputs.metrics, outputs.report, outputs.errors, outputs.cells):
            stale.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(
            f"{str(outputs.folder)!r} cannot be written: {error.strerror}. Give another --out."
        ) from error


def publish(record: EvaluationRecord, outputs: Outputs) -> EvaluationRecord:
    """Write the record as JSON and as a report, and return it."""
    record = dataclasses.replace(record, files=outputs.made())
    record.write_json(outputs.metrics)
    write_report(record, outputs.folder)
    return record
