"""Networks by name.

`create_model` builds one with fresh weights, `load_official_weights` fills it from a published
file, `from_official` does both.
"""

from geoseg.models.create import MODELS, create_classifier, create_model, list_models
from geoseg.models.weights import from_official, load_official_weights

__all__ = [
    "MODELS",
    "create_classifier",
    "create_model",
    "from_official",
    "list_models",
    "load_official_weights",
]
