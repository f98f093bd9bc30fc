"""Models as ONNX files of standard operators, described for geoseg, Deepness and STAC."""

from geoseg.export.run import ExportOptions, ExportReport, export_model

__all__ = ["ExportOptions", "ExportReport", "export_model"]
