"""Imagery and labels for training and evaluation; needs the extra ``train``."""

from typing import TYPE_CHECKING, Any

from geoseg.data.build import build_split
from geoseg.data.describe import DataReport, describe_data
from geoseg.data.sample import Batch, Sample, Split, collate_samples
from geoseg.data.statistics import band_statistics, class_counts

if TYPE_CHECKING:
    from geoseg.data.datamodule import SegmentationDataModule

__all__ = [
    "Batch",
    "DataReport",
    "Sample",
    "SegmentationDataModule",
    "Split",
    "band_statistics",
    "build_split",
    "class_counts",
    "collate_samples",
    "describe_data",
]


def __getattr__(name: str) -> Any:
    """Return the data module, which alone needs Lightning, when it is asked for."""
    if name == "SegmentationDataModule":
        from geoseg.data.datamodule import SegmentationDataModule

        return SegmentationDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
