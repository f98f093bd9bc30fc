"""Inference as the published benchmarks do it."""

from geoseg.evaluate.protocol import infer_slide, infer_whole, slide_windows

__all__ = ["infer_slide", "infer_whole", "slide_windows"]
