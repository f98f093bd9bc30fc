"""Area per class: estimated with confidence intervals from a probability sample, else descriptive.

Estimators for a sample stratified by the map's classes, after Olofsson, Foody, Herold, Stehman,
Woodcock and Wulder, "Good practices for estimating area and assessing accuracy of land change",
Remote Sensing of Environment 148 (2014), equations 1 to 10. For a simple random sample the same
estimators are used after it is stratified by the map (post-stratification), as they advise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.evaluate.record import AreaRow, AreaTable
from geoseg.spec import ClassSpec

SamplingDesign = Literal["stratified", "simple"]

NORMAL_95 = 1.96  # as the paper has it
LEAST_POINTS = 2  # of a stratum: the variance divides by one less
# A simple random sample falls into the classes by their area; one that differs as much is not one.
LEAST_P_SIMPLE = 1e-4
SQUARE_M2 = 1e-6

DESCRIPTIVE = (
    "pixels counted in the map: descriptive, without confidence interval. A map's errors make such "
    "areas wrong by an unknown amount; give a probability sample of the ground by --sample-points."
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StratifiedEstimate:
    """Estimates of one error matrix; arrays have one value per class.

    Attributes:
        overall: share of the area that is right, and its standard error.
        users: user's accuracy (precision), NaN for a class that is not in the map.
        users_se: its standard errors.
        producers: producer's accuracy (recall), NaN for a class without area.
        producers_se: its standard errors.
        share: of the area that each class really has.
        share_se: its standard errors.
    """

    overall: tuple[float, float]
    users: Floats
    users_se: Floats
    producers: Floats
    producers_se: Floats
    share: Floats
    share_se: Floats


def estimate_stratified(counts: NDArray[np.int64], mapped: Floats) -> StratifiedEstimate:
    """Return area shares and accuracies of a sample stratified by mapped class.

    Args:
        counts: sample points by mapped class (rows) and reference class (columns), (K, K).
        mapped: area of each mapped class, (K,), any unit; 0 for a class that is not in the map.
    """
    weights = mapped / mapped.sum()
    points = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = np.where(points[:, None] > 0, counts / points[:, None], 0.0)  # n_ij / n_i.
        spread = rows * (1 - rows) / (points[:, None] - 1)  # variance of each share of a stratum
        spread = np.where(points[:, None] > 0, spread, 0.0)
        share = weights @ rows  # p_.j, equation 9
        share_se = np.sqrt((weights**2) @ spread)  # equation 10
        users = np.where(points > 0, np.diag(rows), np.nan)  # equation 2
        users_var = np.diag(spread)  # equation 6
        right = weights * np.diag(rows)
        overall = float(right.sum()), math.sqrt(float(weights**2 @ users_var))  # equations 1 and 5
        producers = right / share  # equation 3
        by_stratum = (mapped**2)[:, None] * spread
        missed = by_stratum.sum(axis=0) - np.diag(by_stratum)
        own = np.diag(by_stratum)
        total = mapped @ rows
        producers_var = ((1 - producers) ** 2 * own + producers**2 * missed) / total**2  # eq. 7
    return StratifiedEstimate(
        overall=overall,
        users=users,
        users_se=np.where(points > 0, np.sqrt(users_var), np.nan),
        producers=producers,
        producers_se=np.sqrt(producers_var),
        share=share,
        share_se=share_se,
    )


def describe_area(classes: Sequence[ClassSpec], mapped_m2: Floats) -> AreaTable:
    """Return the mapped area of each class, which claims nothing about the ground."""
    rows = tuple(
        AreaRow(c.id, c.name, float(area)) for c, area in zip(classes, mapped_m2, strict=True)
    )
    return AreaTable("descriptive", DESCRIPTIVE, rows)


def estimate_area(
    classes: Sequence[ClassSpec],
    mapped_m2: Floats,
    counts: NDArray[np.int64],
    *,
    design: SamplingDesign,
) -> AreaTable:
    """Return the estimated area of each class with 95 % confidence intervals.

    Args:
        classes: channel k is ``classes[k]``.
        mapped_m2: mapped area of each, (K,).
        counts: sample points by mapped class (rows) and reference class (columns), (K, K).
        design: how the points were drawn.

    Raises:
        InputError: a mapped class has fewer than two points, or the points cannot have been drawn
            as declared.
    """
    check_sample(classes, mapped_m2, counts, design=design)
    found = estimate_stratified(counts, mapped_m2)
    total = float(mapped_m2.sum())
    points = counts.sum(axis=1)
    rows = []
    for k, c in enumerate(classes):
        area, error = float(found.share[k]) * total, float(found.share_se[k]) * total
        rows.append(
            AreaRow(
                id=c.id,
                name=c.name,
                mapped_m2=float(mapped_m2[k]),
                sample_points=int(points[k]),
                area_m2=area,
                area_se_m2=error,
                area_low_m2=area - NORMAL_95 * error,
                area_high_m2=area + NORMAL_95 * error,
                users_accuracy=float(found.users[k]),
                users_accuracy_se=float(found.users_se[k]),
                producers_accuracy=float(found.producers[k]),
                producers_accuracy_se=float(found.producers_se[k]),
            )
        )
    return AreaTable(
        "estimated",
        _estimate_note(design),
        tuple(rows),
        design=design,
        sample_points=int(points.sum()),
        overall_accuracy=found.overall[0],
        overall_accuracy_se=found.overall[1],
    )


def check_sample(
    classes: Sequence[ClassSpec],
    mapped_m2: Floats,
    counts: NDArray[np.int64],
    *,
    design: SamplingDesign,
) -> None:
    """Raise an InputError for a sample that allows no estimate; see `estimate_area`."""
    points = counts.sum(axis=1)
    for c, area, count in zip(classes, mapped_m2, points, strict=True):
        if area >= SQUARE_M2 and count < LEAST_POINTS:
            raise InputError(
                f"expected at least {LEAST_POINTS} sample points in every class of the map; class "
                f"{c.name!r} has {count} (and {area / 1e4:.4g} ha). Draw more points by the same "
                "design, or leave --sample-points away: areas are then descriptive."
            )
    if design != "simple":
        return
    if _p_of_simple(points, mapped_m2) < LEAST_P_SIMPLE:
        k = int(np.argmax(np.abs(points / points.sum() - mapped_m2 / mapped_m2.sum())))
        raise InputError(
            "expected simple random points to fall into the classes by their area; class "
            f"{classes[k].name!r} has {points[k] / points.sum():.1%} of the points and "
            f"{mapped_m2[k] / mapped_m2.sum():.1%} of the area. Give --sampling-design stratified "
            "if they were drawn class by class in this map."
        )


def _p_of_simple(points: NDArray[np.int64], mapped: Floats) -> float:
    """Return how likely points differ that much from the areas by chance (chi-square test)."""
    import torch

    there = mapped > 0
    expected = mapped[there] / mapped.sum() * points.sum()
    chi2 = float(((points[there] - expected) ** 2 / expected).sum())
    freedom = int(there.sum()) - 1
    if freedom == 0:
        return 1.0
    half = torch.tensor([freedom / 2, chi2 / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def _estimate_note(design: SamplingDesign) -> str:
    how = (
        "a sample stratified by the classes of this map"
        if design == "stratified"
        else "a simple random sample, stratified by this map afterwards"
    )
    return (
        f"estimated from {how}, with 95 % confidence intervals (Olofsson et al. 2014). It holds "
        "for the mapped ground, if the points were drawn as declared and their labels are right."
    )
