"""Learning curves: the rows of a run's ``metrics.csv`` as series of (step, value)."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from geoseg.errors import InputError

Curve = tuple[tuple[float, float], ...]
Curves = dict[str, Curve]

_COUNTERS = {"step", "epoch"}


def read_curves(path: Path) -> Curves:
    """Return the series of a metrics file, by column.

    A row holds ``step`` and any other figures; cells may be empty, as training writes losses and
    validations at different steps.

    Raises:
        InputError: no such file, no ``step`` column, or a cell that is no number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if "step" not in (reader.fieldnames or ()):
                raise InputError(
                    f"{str(path)!r}: expected a CSV file with a column 'step'; got the columns "
                    f"{', '.join(reader.fieldnames or ()) or 'none'}. Give a run's metrics.csv."
                )
            return collect_curves(reader)
    except OSError as error:
        raise InputError(f"metrics file {str(path)!r} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r}: expected numbers in every cell; {error}.") from error


def collect_curves(rows: Iterable[Mapping[str, str | None]]) -> Curves:
    """Return the series of metrics rows, by column; see `read_curves`."""
    series: dict[str, dict[float, float]] = {}
    for row in rows:
        step = float(row["step"] or "nan")
        for name, cell in row.items():
            if name not in _COUNTERS and cell not in {None, ""}:
                # Of a step that was run again after a resume, the later row counts.
                series.setdefault(name, {})[step] = float(cell or "nan")
    return {name: tuple(sorted(points.items())) for name, points in series.items()}


def best_step(curves: Mapping[str, Curve], name: str | None = None) -> float | None:
    """Return the step at which a score is greatest, the first of several; None without points.

    Args:
        curves: of a run.
        name: of the score; None: the mIoU, in validation if there are several.
    """
    if name is None:
        name = "val_miou" if "val_miou" in curves else "miou"
    points = [(value, -step) for step, value in curves.get(name, ()) if not math.isnan(value)]
    return -max(points)[1] if points else None
