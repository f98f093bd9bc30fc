"""Charts of the report as inline SVG that follows the page's colours; drawn by matplotlib.

A chart holds numbers and fixed words only. Names of classes stand in the page around it, where
they wrap, are escaped and need no font of matplotlib's.
"""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from geoseg.errors import MachineError
from geoseg.evaluate.curves import Curve
from geoseg.evaluate.record import Calibration, CellSummary, ReliabilityBin
from geoseg.evaluate.svg import FAINT, FIRST, INK, SECOND, chart_style, to_svg
from geoseg.evaluate.wording import CLASS_SCORES, HEADLINES

WIDTH_IN = 4.6  # small, so that text is readable when a phone shows the chart at this width

# Okabe and Ito's colour-blind safe set, for lines that have no class's colour.
LINE_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MANY_POINTS = 100  # from here on a running mean is drawn over losses
LOSSES, SCORES, CLASS_IOUS = "Loss", "Score", "IoU of the classes"
FEW_POINTS = 25  # up to here each has a dot


class Line(NamedTuple):
    """One line of a chart and its entry in the legend beside it."""

    name: str
    color: str
    points: Curve


def reliability_chart(calibration: Calibration) -> Markup:
    """Return accuracy over confidence with the number of pixels below it.

    Bins without pixels have no point; the diagonal is a model whose confidences are probabilities.
    """
    with chart_style():
        figure = Figure(figsize=(WIDTH_IN, WIDTH_IN), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        top.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        _reliability_line(top, calibration.bins, FIRST, "o-")
        if shows_best_temperature(calibration):
            _reliability_line(top, calibration.bins_after, SECOND, "s--")
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        counts = np.array([b.count for b in calibration.bins], float)
        lower = [b.lower for b in calibration.bins]
        widths = [b.upper - b.lower for b in calibration.bins]
        shares = counts / max(counts.sum(), 1)
        below.bar(lower, shares, widths, align="edge", color=FIRST, edgecolor=INK, linewidth=0.4)
        below.yaxis.set_major_locator(MaxNLocator(3))
        below.yaxis.set_major_formatter(_percent())
        below.set(xlabel="confidence", ylabel="pixels")
        alt = (
            f"Reliability diagram: accuracy over confidence in {len(lower)} bins; expected "
            f"calibration error {calibration.ece:.3f}."
        )
        return to_svg(figure, "reliability", alt)


def shows_best_temperature(calibration: Calibration) -> bool:
    """Return whether the chart has a second line, with a temperature that differs."""
    return not math.isclose(calibration.best_temperature, calibration.temperature, rel_tol=5e-3)


def confusion_chart(confusion: Sequence[Sequence[int]], ids: Sequence[int]) -> Markup:
    """Return a heat map of a large confusion matrix (K, K), rows divided by their sums.

    Args:
        confusion: pixels, rows are labels.
        ids: of the K classes, by which the axes count.
    """
    counts = np.array(confusion, float)
    sums = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, sums, out=np.full_like(counts, np.nan), where=sums > 0)
    with chart_style():
        figure = Figure(figsize=(WIDTH_IN * 1.5, WIDTH_IN * 1.35), layout="constrained")
        axes = figure.subplots()
        # The square root shows the small shares, of which a matrix of many classes is made.
        norm = PowerNorm(0.5, 0, 1)
        shown = axes.imshow(shares, cmap="viridis", norm=norm, interpolation="none")
        axes.set(xlabel="id of the predicted class", ylabel="id of the labelled class")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(8, integer=True))
            axis.set_major_formatter(FuncFormatter(lambda k, _: _id_at(ids, k)))
        bar = figure.colorbar(shown, ax=axes, shrink=0.8, label="share of the labelled class")
        bar.outline.set_linewidth(0.4)
        return to_svg(figure, "confusion", f"Confusion matrix of {len(ids)} classes as a heat map")


def cells_chart(cells: CellSummary) -> Markup:
    """Return a map of the accuracy of the grid's cells, laid out as the raster's rows are."""
    grid = np.array(cells.accuracy, float)  # (rows, cols)
    rows, cols = grid.shape
    with chart_style():
        height = float(np.clip(WIDTH_IN * rows / cols * 0.8, 1.6, WIDTH_IN * 1.4))
        figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
        axes = figure.subplots()
        least = math.floor(cells.accuracy_least * 10) / 10 if cells.cells else 0
        least = min(least, 0.9)
        shown = axes.imshow(grid, cmap="cividis", vmin=least, vmax=1, interpolation="none")
        axes.set_axis_off()
        frame = Rectangle((-0.5, -0.5), cols, rows, fill=False, edgecolor=FAINT, linewidth=1)
        axes.add_patch(frame)
        bar = figure.colorbar(shown, ax=axes, shrink=0.9, format=_percent())
        bar.set_label("pixels that are right")
        bar.outline.set_linewidth(0.4)
        alt = (
            f"Map of the share of right pixels in {cells.cells} cells of {cells.cell_m:g} m; the "
            f"worst has {cells.accuracy_least:.1%}."
        )
        return to_svg(figure, "cells", alt)


def curves_chart(
    lines: Sequence[Line], name: str, *, mark: float | None = None, smooth: bool = False
) -> Markup:
    """Return values over training steps.

    Args:
        lines: in the order of the legend, which the page shows beside the chart.
        name: of the chart, different from those of the page's other charts.
        mark: step at which a vertical line stands.
        smooth: draw a running mean over long series.
    """
    with chart_style():
        figure = _draw_curves(lines, mark, smooth)
        ends = ", ".join(f"{line.name} ends at {line.points[-1][1]:.3g}" for line in lines[:6])
        return to_svg(figure, name, f"Values over training steps: {ends}.")


def save_learning_curves(path: Path, runs: Mapping[str, Mapping[str, Curve]], score: str) -> Path:
    """Write a PNG, SVG or PDF picture of one score of several runs, with a legend.

    Args:
        path: its suffix decides on the format.
        runs: name of a run to its curves; runs without the score are left out.
        score: which of them, for example ``miou``.

    Raises:
        MachineError: the file cannot be written.
    """
    chosen = {name: curves[score] for name, curves in runs.items() if curves.get(score)}
    lines = [
        Line(name, LINE_COLORS[i % len(LINE_COLORS)], points)
        for i, (name, points) in enumerate(chosen.items())
    ]
    with chart_style(ink="#1c1f23", faint="#d5dae0"):
        figure = _draw_curves(lines, smooth="loss" in score)
        axes = figure.axes[0]
        axes.set_ylabel(score)
        axes.legend()
        try:
            figure.savefig(path, dpi=200)
        except OSError as error:
            raise MachineError(f"{str(path)!r} cannot be written: {error.strerror}.") from error
    return path


def group_curves(
    curves: Mapping[str, Curve], class_colors: Mapping[str, str]
) -> list[tuple[str, list[Line]]]:
    """Return the charts that the series of a run make: losses, scores, classes, and the rest.

    Args:
        curves: by column of the metrics file; ``val_`` in front of a score changes nothing.
        class_colors: #RRGGBB by class, as its name occurs in ``iou_NAME``; where it lacks one, a
            colour is chosen.

    Returns:
        (label, lines) of each chart that has any. Scores that say nearly what others say, such as
        the dice, are left to the table.
    """
    plain = {name: name.removeprefix("val_") for name in curves}
    classes = {name.removeprefix("iou_") for name in plain.values() if name.startswith("iou_")}
    by_label: dict[str, list[Line]] = {LOSSES: [], SCORES: [], CLASS_IOUS: []}
    for name, points in curves.items():
        label = _chart_of(plain[name], classes)
        if label is None:
            continue
        lines = by_label.setdefault(label, [])
        shown = plain[name].removeprefix("iou_") if label == CLASS_IOUS else name
        chosen = LINE_COLORS[len(lines) % len(LINE_COLORS)]
        color = class_colors.get(shown, chosen) if label == CLASS_IOUS else chosen
        lines.append(Line(shown, color, points))
    return [(label, lines) for label, lines in by_label.items() if lines]


def _chart_of(name: str, classes: AbstractSet[str]) -> str | None:
    if "loss" in name:
        return LOSSES
    if name in HEADLINES:
        return SCORES
    kind = next((k for k in CLASS_SCORES if name.startswith(f"{k}_")), None)
    if kind and name.removeprefix(f"{kind}_") in classes:
        return CLASS_IOUS if kind == "iou" else None
    return None if name.startswith("mean_") else name


def _draw_curves(lines: Sequence[Line], mark: float | None = None, smooth: bool = False) -> Figure:
    ink = matplotlib.rcParams["axes.edgecolor"]
    figure = Figure(figsize=(WIDTH_IN, WIDTH_IN * 0.62), layout="constrained")
    axes = figure.subplots()
    # A thin seam in the ink's colour: a class may be as dark, or as light, as the page.
    seam = [Stroke(linewidth=2.2, foreground=ink, alpha=0.45), Normal()]
    for line in lines:
        steps, values = np.array(line.points).T
        look: dict[str, Any] = {"color": line.color, "linewidth": 1.4, "path_effects": seam}
        look["label"] = line.name if not line.name.startswith("_") else f" {line.name}"
        if smooth and len(steps) >= MANY_POINTS:
            axes.plot(steps, _running_mean(values), **look, zorder=3)
            axes.plot(steps, values, color=line.color, linewidth=0.6, alpha=0.35)
        else:
            axes.plot(steps, values, **look)
            if len(steps) <= FEW_POINTS:
                axes.plot(steps, values, ".", color=line.color)
    if mark is not None:
        axes.axvline(mark, color=ink, linewidth=0.8, linestyle=":")
    axes.set(xlabel="step")
    axes.grid(axis="y", linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlim(left=0)
    return figure


def _running_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over a window of a twentieth of the series; less at its ends."""
    window = np.ones(max(3, len(values) // 20))
    known = ~np.isnan(values)
    sums = np.convolve(np.where(known, values, 0), window, "same")
    counts = np.convolve(known.astype(np.float64), window, "same")
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _reliability_line(axes: Any, bins: Sequence[ReliabilityBin], color: str, style: str) -> None:
    points = [(b.confidence, b.accuracy) for b in bins if b.count]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, style, color=color, markersize=4, linewidth=1.4)


def _id_at(ids: Sequence[int], channel: float) -> str:
    k = round(channel)
    return str(ids[k]) if 0 <= k < len(ids) else ""


def _percent() -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:.0%}")
