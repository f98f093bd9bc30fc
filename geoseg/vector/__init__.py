"""Class maps to polygons: of any size, seamless, with shared borders and attributes.

NumPy, rasterio and geoseg's compiled library; imports without torch.
"""

from geoseg.vector.options import VectorOptions
from geoseg.vector.result import ClassArea, VectorResult
from geoseg.vector.run import vectorize_raster

__all__ = ["ClassArea", "VectorOptions", "VectorResult", "vectorize_raster"]
