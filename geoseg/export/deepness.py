"""The metadata keys that Deepness and GeoDeep read; each value is JSON text.

Facts from github.com/PUTvision/qgis-plugin-deepness, deepness/processing/models/model_base.py, and
github.com/uav4geo/GeoDeep, geodeep/inference.py. Both divide 8-bit values by 255. Deepness then
standardises by its two keys, GeoDeep never does: so it is done in the graph, and the keys say
"nothing to do". Both put 0 for probabilities below ``seg_thresh`` before they take the largest, and
clear small areas: both are switched off, so that they show the model's own answer.
"""

import json
import math

from geoseg.spec import ModelSpec


def deepness_keys(spec: ModelSpec) -> dict[str, str]:
    """Return the keys of a model of 8-bit bands; empty for others, which these tools cannot feed.

    Args:
        spec: record of the exported file.
    """
    if refusal(spec) is not None:
        return {}
    tile, bands = spec.tile, len(spec.bands)
    values: dict[str, object] = {
        "model_type": "Segmentor",
        "class_names": {str(k): c.name for k, c in enumerate(spec.classes)},
        # The documentation has the first name, Deepness' source the second.
        "tiles_size": tile.size_px,
        "tile_size": tile.size_px,
        "tiles_overlap": math.ceil(100 * tile.overlap_px / tile.size_px),
        "standardization_mean": [0.0] * bands,
        "standardization_std": [1.0] * bands,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    if spec.gsd_m is not None:
        values["resolution"] = round(100 * middle_gsd_m(spec.gsd_m), 2)  # cm
    return {key: json.dumps(value) for key, value in values.items()}


def refusal(spec: ModelSpec) -> str | None:
    """Return why Deepness cannot feed a model, or None."""
    if spec.dtype != "uint8":
        return (
            f"Deepness and GeoDeep divide by 255, and this model is for {spec.dtype} values: "
            "their keys are left out, and the file is fed with raw values"
        )
    return None


def remarks(spec: ModelSpec) -> list[str]:
    """Return what a user of Deepness or GeoDeep has to know of a model."""
    reason = refusal(spec)
    if reason is not None:
        return [reason]
    said = []
    if spec.gsd_m is None:
        said.append(
            "the model does not know its ground sample distance: give Deepness a resolution, and "
            "mind that GeoDeep takes 10 cm"
        )
    if len(spec.bands) != 3:
        said.append(f"GeoDeep reads three bands, this model has {len(spec.bands)}: use Deepness")
    if [c.id for c in spec.classes] != list(range(len(spec.classes))):
        said.append("Deepness and GeoDeep number classes from 0, not by the ids of the model")
    return said


def middle_gsd_m(gsd_m: tuple[float, float]) -> float:
    """Return the middle of a range of ground sample distances, by ratio."""
    return math.sqrt(gsd_m[0] * gsd_m[1])
