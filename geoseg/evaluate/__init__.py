"""Evaluation: benchmark protocols, scores, and whole scenes through the path of `predict`."""

from typing import TYPE_CHECKING, Any

from geoseg.evaluate.dataset import evaluate_dataset
from geoseg.evaluate.metrics import ConfusionMatrix, scores
from geoseg.evaluate.options import EvaluateOptions
from geoseg.evaluate.protocol import infer_benchmark, infer_slide, infer_whole, slide_windows
from geoseg.evaluate.record import EvaluationRecord

if TYPE_CHECKING:
    from geoseg.evaluate.run import evaluate_config, evaluate_raster

__all__ = [
    "ConfusionMatrix",
    "EvaluateOptions",
    "EvaluationRecord",
    "evaluate_config",
    "evaluate_dataset",
    "evaluate_raster",
    "infer_benchmark",
    "infer_slide",
    "infer_whole",
    "scores",
    "slide_windows",
]


def __getattr__(name: str) -> Any:
    """Return what writes reports, which alone needs matplotlib, when it is asked for."""
    if name in {"evaluate_config", "evaluate_raster"}:
        from geoseg.evaluate import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
