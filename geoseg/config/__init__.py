"""Options and run configurations: frozen dataclasses, plain values, no behaviour."""

from geoseg.config.predict import DEFAULT_MAX_MEMORY_BYTES, PredictOptions
from geoseg.config.run import RunConfig

__all__ = ["DEFAULT_MAX_MEMORY_BYTES", "PredictOptions", "RunConfig"]
