"""What the report's template shows: the record turned into tables, charts and pictures."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from geoseg.evaluate import wording
from geoseg.evaluate.curves import Curve, Curves, best_step
from geoseg.evaluate.metrics import class_keys
from geoseg.evaluate.pictures import ERROR_COLORS, classes_shown, draw_panels, error_kinds
from geoseg.evaluate.plots import (
    CLASS_IOUS,
    LOSSES,
    MANY_POINTS,
    SCORES,
    Line,
    cells_chart,
    confusion_chart,
    curves_chart,
    group_curves,
    reliability_chart,
    shows_best_temperature,
)
from geoseg.evaluate.record import EvaluationRecord

# A matrix of more classes does not fit a page as a table and becomes a heat map.
TABLE_CLASSES = 24
CONFUSIONS = 10


class Confusion(NamedTuple):
    """Pixels of one class that were taken for another; shares of its labels and of all errors."""

    label: str
    predicted: str
    pixels: int
    label_share: float
    error_share: float


class Chart(NamedTuple):
    """A chart of learning curves with its legend."""

    label: str
    svg: Markup
    lines: Sequence[Line]


class LastValue(NamedTuple):
    """The last value of a series and its greatest one."""

    name: str
    step: float
    last: float
    best: float
    best_step: float | None


def view_curves(curves: Curves, record: EvaluationRecord | None) -> dict[str, Any]:
    """Return the charts and the table of learning curves, in the classes' colours if known."""
    curves = {name: points for name, points in curves.items() if points}
    classes = record.classes if record else ()
    keys = class_keys([c.name for c in classes])
    colors = {key: c.color for key, c in zip(keys, classes, strict=True)}
    charts = [
        Chart(label, _curves_chart(curves, label, lines, f"curves-{i}"), lines)
        for i, (label, lines) in enumerate(group_curves(curves, colors))
    ]
    lasts = [_last_value(name, points) for name, points in curves.items()]
    return {
        "charts": charts,
        "lasts": lasts,
        "best_step": best_step(curves),
        "smoothed": any(len(p) >= MANY_POINTS for name, p in curves.items() if "loss" in name),
    }


def _curves_chart(curves: Curves, label: str, lines: Sequence[Line], name: str) -> Markup:
    mark = best_step(curves) if label in {SCORES, CLASS_IOUS} else None
    return curves_chart(lines, name, mark=mark, smooth=label == LOSSES)


def _last_value(name: str, points: Curve) -> LastValue:
    step, last = points[-1]
    known = [value for _, value in points if not math.isnan(value)]
    # Of a loss the least is best.
    if "loss" in name:
        at = best_step({name: tuple((s, -v) for s, v in points)}, name)
        return LastValue(name, step, last, min(known, default=math.nan), at)
    at = best_step({name: points}, name)
    return LastValue(name, step, last, max(known, default=math.nan), at)


def view_record(record: EvaluationRecord) -> dict[str, Any]:
    """Return all else that the template takes from a record, by its names there."""
    by_kind = {
        kind: [draw_panels(p, record.classes) for p in record.pictures if p.kind == kind]
        for kind in ("overview", "best", "worst")
    }
    areas = [c.area_m2 for c in record.classes]
    if record.area:
        areas += [r.mapped_m2 for r in record.area.rows]
        areas += [r.area_high_m2 for r in record.area.rows]
    large = len(record.classes) > TABLE_CLASSES
    calibration = record.calibration
    return {
        "by_iou": sorted(record.classes, key=lambda c: (math.isnan(c.iou), -c.iou)),
        "colors": {c.id: c.color for c in record.classes},
        "nan": math.nan,
        "headlines": [
            (*wording.HEADLINES[name], value)
            for name, value in record.scores.items()
            if name in wording.HEADLINES
        ],
        "notes": wording.reading_notes(record),
        "has_boundaries": any(not math.isnan(c.boundary_iou) for c in record.classes),
        "other_scores": _other_scores(record),
        "row_sums": [sum(row) for row in record.confusion],
        "matrix": confusion_chart(record.confusion, [c.id for c in record.classes])
        if large
        else None,
        "confusions": find_confusions(record),
        "reliability": reliability_chart(calibration) if calibration else None,
        "second_line": calibration is not None and shows_best_temperature(calibration),
        "cells_chart": cells_chart(record.cells)
        if record.cells and record.cells.accuracy
        else None,
        "places": by_kind,
        "legend": classes_shown(record.pictures, record.classes),
        "error_legend": [(ERROR_COLORS[kind], text) for kind, text in error_kinds(record.classes)],
        "unit": wording.choose_area_unit(areas),
        "area_top": max([a for a in areas if a is not None and math.isfinite(a)], default=0) or 1,
        "settings": wording.flat_settings(record.settings),
    }


def find_confusions(record: EvaluationRecord) -> list[Confusion]:
    """Return the most frequent mistakes, largest first."""
    names = [c.name for c in record.classes]
    total = sum(map(sum, record.confusion))
    errors = total - sum(row[k] for k, row in enumerate(record.confusion))
    found = [
        Confusion(names[i], names[j], pixels, pixels / sum(row), pixels / errors)
        for i, row in enumerate(record.confusion)
        for j, pixels in enumerate(row)
        if i != j and pixels
    ]
    return sorted(found, key=lambda c: -c.pixels)[:CONFUSIONS]


def _other_scores(record: EvaluationRecord) -> list[tuple[str, float]]:
    """Return the scores that are neither headlines nor of one class."""
    keys = tuple(f"_{key}" for key in class_keys([c.name for c in record.classes]))
    of_classes = {f"{kind}{key}" for kind in wording.CLASS_SCORES for key in keys}
    skipped = of_classes | set(wording.HEADLINES)
    return [(name, value) for name, value in record.scores.items() if name not in skipped]
