"""From counts to the tables of a record."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

import geoseg
from geoseg.evaluate.boundary import BoundaryCounts
from geoseg.evaluate.metrics import ConfusionMatrix, Counts, class_keys, class_scores, scores
from geoseg.evaluate.record import ClassRow
from geoseg.spec import ClassSpec


def all_scores(
    confusion: ConfusionMatrix, boundary: BoundaryCounts, classes: Sequence[ClassSpec]
) -> dict[str, float]:
    """Return the scores by name, with ``mean_boundary_iou`` and ``boundary_iou_NAME``."""
    names = [c.name for c in classes]
    found = scores(confusion.counts, names)
    iou = boundary.iou()
    known = iou[~np.isnan(iou)]
    found["mean_boundary_iou"] = float(known.mean()) if known.size else float("nan")
    pairs = zip(class_keys(names), iou, strict=True)
    return found | {f"boundary_iou_{key}": float(value) for key, value in pairs}


def class_rows(
    confusion: ConfusionMatrix,
    boundary: BoundaryCounts,
    classes: Sequence[ClassSpec],
    mapped_m2: NDArray[np.float64] | None = None,
) -> tuple[ClassRow, ...]:
    """Return the table of classes; see `ClassRow`."""
    counts = matrix(confusion)
    by_class = class_scores(counts)
    border = boundary.iou()
    rows = []
    for k, c in enumerate(classes):
        area = None if mapped_m2 is None or np.isnan(mapped_m2[k]) else float(mapped_m2[k])
        rows.append(
            ClassRow(
                id=c.id,
                name=c.name,
                color=c.color,
                iou=float(by_class["iou"][k]),
                accuracy=float(by_class["accuracy"][k]),
                precision=float(by_class["precision"][k]),
                dice=float(by_class["dice"][k]),
                boundary_iou=float(border[k]),
                pixels=int(counts[k].sum()),
                predicted_pixels=int(counts[:, k].sum()),
                area_m2=area,
            )
        )
    return tuple(rows)


def matrix(confusion: ConfusionMatrix) -> Counts:
    """Return the counts of a confusion matrix, (K, K)."""
    counts: Counts = confusion.counts.cpu().numpy()
    return counts


def matrix_rows(confusion: ConfusionMatrix) -> tuple[tuple[int, ...], ...]:
    """Return the counts of a confusion matrix as a record holds them."""
    return tuple(tuple(row) for row in matrix(confusion).tolist())


def versions() -> dict[str, str]:
    """Return the versions that a record names."""
    return {"geoseg": geoseg.__version__, "torch": str(torch.__version__), "numpy": np.__version__}
