"""Numbers and sentences of the report: digits, units, and what the figures are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from geoseg.evaluate.record import EvaluationRecord

NONE = "\N{EN DASH}"  # an undefined or unknown value, which the report explains

HEADLINES = {
    "miou": ("mIoU", "mean over the classes, each counting the same (macro)"),
    "miou_without_background": ("mIoU without background", "the same mean without background"),
    "mean_boundary_iou": ("Boundary mIoU", "IoU of the bands along the borders, macro mean"),
    "accuracy": ("Pixel accuracy", "share of all scored pixels that are right"),
    "mean_accuracy": ("Mean class accuracy", "mean over the classes of the share found (recall)"),
}

# Scores that there are of each class, named ``iou_NAME`` and so on.
CLASS_SCORES = ("iou", "accuracy", "precision", "dice", "boundary_iou")


class AreaUnit(NamedTuple):
    """A unit to show areas in; ``m2`` is its size in square metres."""

    name: str
    m2: float


def score_text(value: float | None) -> str:
    """Return a score of 0..1 with three digits; a dash for None and NaN."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def share_text(value: float | None) -> str:
    """Return a share of 0..1 as a percentage; small ones do not become 0, nor large ones 100."""
    if value is None or math.isnan(value):
        return NONE
    if 0 < value < 0.001:
        return "< 0.1 %"
    if 0.999 < value < 1:
        return "> 99.9 %"
    return f"{value * 100:.1f} %"


def count_text(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,}"


def choose_area_unit(areas_m2: Iterable[float | None]) -> AreaUnit:
    """Return m², ha or km² so that the largest area has few digits before the point."""
    largest = max((a for a in areas_m2 if a is not None and math.isfinite(a)), default=0.0)
    if largest < 1e4:
        return AreaUnit("m²", 1.0)
    return AreaUnit("ha", 1e4) if largest < 1e8 else AreaUnit("km²", 1e6)


def area_text(area_m2: float | None, unit: AreaUnit) -> str:
    """Return an area in ``unit`` with three digits or more; a dash for None and NaN."""
    if area_m2 is None or math.isnan(area_m2):
        return NONE
    value = area_m2 / unit.m2
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def sentence(text: str) -> str:
    """Return a note with a capital in front and a full stop behind."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in ".!?:" else f"{text}."


def value_text(value: Any) -> str:
    """Return a setting as words."""
    if value is None or value in ("", [], (), {}):
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(value_text(v) for v in value)
    return str(value)


def flat_settings(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Return settings as (name, words); names of nested ones are joined by dots."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flat_settings(value, f"{above}{name}.")
        else:
            rows.append((f"{above}{name}", value_text(value)))
    return rows


def reading_notes(record: EvaluationRecord) -> list[str]:
    """Return sentences that say what kind of numbers the scores are."""
    scored = [c.name for c in record.classes if not math.isnan(c.iou)]
    absent = [c.name for c in record.classes if math.isnan(c.iou)]
    total = record.pixels + record.ignored_pixels
    images = "one raster" if record.kind == "raster" else f"{count_text(record.samples)} images"
    left_out = (
        f"{count_text(record.ignored_pixels)} ({share_text(_ratio(record.ignored_pixels, total))}) "
        "were left out: no label, an ignored label, or no data in the image."
    )
    notes = [
        "IoU, precision and recall come from one confusion matrix over "
        f"{'the raster' if record.kind == 'raster' else 'all images'}. Means are macro: each of "
        f"{len(scored)} classes counts the same, however much ground it covers.",
        f"{count_text(record.pixels)} pixels of {images} were scored. "
        f"{left_out if record.ignored_pixels else 'None was left out.'}",
    ]
    if absent:
        notes.append(
            f"A dash ({NONE}) stands where a score has no meaning. Neither labelled nor predicted, "
            f"and left out of the means: {', '.join(absent)}."
        )
    return [*notes, _training_note(record.settings.get("in_sample")), _gsd_note(record.settings)]


def _training_note(in_sample: Any) -> str:
    if in_sample is None:
        return (
            "The record does not say whether the model has seen these data in training; if it has, "
            "the scores are too good."
        )
    if in_sample:
        return (
            "In-sample: the model was trained on these data, so the scores say how well it "
            "remembers them, not how well it maps new ground."
        )
    return "Held out: the model was not trained on these data."


def _gsd_note(settings: Mapping[str, Any]) -> str:
    gsd = settings.get("gsd_m")
    if gsd is None:
        return "The ground sampling distance (GSD) of the data is unknown."
    sizes = sorted(float(g) for g in (gsd if isinstance(gsd, Sequence) else [gsd]))
    texts = dict.fromkeys(f"{size:.3g}" for size in sizes)
    return f"Ground sampling distance (GSD): {' to '.join(texts)} m."


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
