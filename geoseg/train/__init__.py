"""Training; needs the extra ``train``. `geoseg.train.run.train` is the page to start from."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoseg.train.run import TrainResult, train
    from geoseg.train.task import SegmentationTask

__all__ = ["SegmentationTask", "TrainResult", "train"]


def __getattr__(name: str) -> Any:
    """Return what needs Lightning when it is asked for: options are read without it."""
    if name == "SegmentationTask":
        from geoseg.train.task import SegmentationTask

        return SegmentationTask
    if name in {"TrainResult", "train"}:
        from geoseg.train import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
