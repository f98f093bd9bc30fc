"""A picture of a run: loss and score by step."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from geoseg.train.record import read_rows

CURVES = "curves.png"


def draw_curves(metrics: Path, out: Path, monitor: str) -> None:
    """Draw the loss (left) and the monitored validation score (right) of a metrics file."""
    rows = read_rows(metrics) if metrics.exists() else []
    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    for place, key in zip(axes, ("loss", f"val_{monitor}"), strict=True):
        points = [(int(row["step"]), float(row[key])) for row in rows if key in row]
        marker = "." if len(points) < 50 else ""
        place.plot([x for x, _ in points], [y for _, y in points], marker=marker, linewidth=1)
        place.set_xlabel("step")
        place.set_title(key)
        place.grid(visible=True, linewidth=0.3)
    figure.savefig(out, dpi=100)
