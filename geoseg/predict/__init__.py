"""Seamless prediction of rasters of any size."""

from geoseg.config import PredictOptions
from geoseg.listener import Listener
from geoseg.predict.finish import Outputs
from geoseg.predict.join import assemble
from geoseg.predict.run import PredictResult, plan_raster, predict_raster

__all__ = [
    "Listener",
    "Outputs",
    "PredictOptions",
    "PredictResult",
    "assemble",
    "plan_raster",
    "predict_raster",
]
