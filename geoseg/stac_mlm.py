"""Records of other tools as ModelSpec: Deepness' ONNX keys and the STAC MLM extension."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from geoseg.errors import ModelFileError
from geoseg.spec import Architecture, BandSpec, ClassSpec, ModelSpec, OutputKind, TileSpec

# A network exported for one resolution is trusted this far around it.
GSD_TOLERANCE = 1.25
# Colours for records that name none; muted, and apart from each other.
COLORS = ("#9e9e9e", "#d6604d", "#4393c3", "#5aae61", "#fdb863", "#9970ab", "#35978f", "#bf812d")
RGB = ("red", "green", "blue")


def spec_from_deepness(
    metadata: Mapping[str, str],
    name: str,
    input_shape: Sequence[int | None],
    output_channels: int | None,
    *,
    output: OutputKind,
) -> ModelSpec:
    """Return the record in the metadata keys that Deepness and GeoDeep read.

    Args:
        metadata: of the ONNX file; each value is JSON text.
        name: of the model.
        input_shape: (batch, bands, rows, columns), None where dynamic.
        output_channels: of the first output, if fixed.
        output: what the network answers; the keys do not say it.

    Raises:
        ModelFileError: not a segmentation model, or a key is missing or malformed.
    """
    values = {key: _json(text) for key, text in metadata.items()}
    kind = str(values.get("model_type", "Segmentor"))
    if kind.lower() != "segmentor":
        raise ModelFileError(
            f"model {name!r}: expected a Segmentor; its Deepness record says {kind!r}. "
            "Use a segmentation model."
        )
    channels = input_shape[1] or 3
    tile_px = _tile_px(values.get("tiles_size"), input_shape, name)
    means = _per_band(values.get("standardization_mean"), channels, 0.0, name)
    stds = _per_band(values.get("standardization_std"), channels, 1.0, name)
    # Deepness divides 8-bit values by 255 first.
    bands = tuple(
        BandSpec(band, mean=means[i], std=stds[i], scale=1 / 255)
        for i, band in enumerate(_band_names(channels))
    )
    resolution_cm = values.get("resolution")
    return ModelSpec(
        name=name,
        architecture=Architecture("onnx"),
        bands=bands,
        dtype="uint8",
        classes=_deepness_classes(values.get("class_names"), output_channels, name),
        output=output,
        gsd_m=_gsd_range(_number(resolution_cm, name) / 100) if resolution_cm else None,
        tile=TileSpec(
            size_px=tile_px,
            overlap_px=round(tile_px * _number(values.get("tiles_overlap", 15), name) / 100),
            min_px=1,
            fixed=input_shape[2] is not None,
        ),
        description="ONNX network with Deepness metadata.",
    )


def spec_from_mlm(
    properties: Mapping[str, Any], name: str, *, output: OutputKind = "logits"
) -> ModelSpec:
    """Return the record in the properties of a STAC MLM item, version 1.x.

    Args:
        properties: of the item.
        name: of the model, where the record has none.
        output: what the network answers; the record does not say it.

    Raises:
        ModelFileError: not a segmentation model, a property is missing, or the values need a
            function that only its authors have.
    """
    tasks = properties.get("mlm:tasks") or properties.get("tasks") or ["semantic-segmentation"]
    if "semantic-segmentation" not in tasks:
        raise ModelFileError(
            f"model {name!r}: expected task semantic-segmentation; its record says {tasks}."
        )
    given = _first_of(properties, "input", name)
    answered = _first_of(properties, "output", name)
    structure = given.get("input") or {}
    shape = [n if isinstance(n, int) and n > 0 else None for n in structure.get("shape", [])]
    order = [str(d).lower() for d in structure.get("dim_order", [])]
    if len(shape) != 4 or order not in (
        [],
        ["batch", "bands", "height", "width"],
        ["batch", "channel", "height", "width"],
        ["batch", "channels", "height", "width"],
    ):
        raise ModelFileError(
            f"model {name!r}: expected input (batch, bands, height, width); its record says "
            f"{structure}."
        )
    names = [b if isinstance(b, str) else str(b.get("name")) for b in given.get("bands") or []]
    channels = shape[1] or len(names) or 3
    names = names if len(names) == channels else list(_band_names(channels))
    tile_px = _tile_px(None, shape, name)
    gsd = properties.get("gsd")
    return ModelSpec(
        name=str(properties.get("mlm:name") or name),
        architecture=Architecture(str(properties.get("mlm:architecture") or "torch.export")),
        bands=_mlm_bands(given, names, name),
        dtype="any",
        classes=_mlm_classes(answered, name),
        output=output,
        gsd_m=_gsd_range(_number(gsd, name)) if gsd else None,
        tile=TileSpec(
            size_px=tile_px,
            overlap_px=tile_px // 4,
            min_px=1,
            multiple_px=1 if shape[2] else 32,
            fixed=shape[2] is not None,
        ),
        description=str(properties.get("description", "Network with a STAC MLM record.")),
        licence=str(properties.get("license", "")),
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _per_band(values: Any, channels: int, default: float, name: str) -> list[float]:
    if values is None:
        return [default] * channels
    listed = values if isinstance(values, list) else [values] * channels
    listed = [_number(v, name) for v in listed]
    if len(listed) == 1:
        listed *= channels
    if len(listed) != channels:
        raise ModelFileError(
            f"model {name!r}: expected standardisation for {channels} bands; its record has "
            f"{len(listed)} values."
        )
    return listed


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ModelFileError(
            f"model {name!r}: expected a number in its record; got {value!r}. Mend the record."
        ) from None


def _tile_px(advised: Any, input_shape: Sequence[int | None], name: str) -> int:
    """Return the side of the tiles; a network of one size leaves no choice."""
    height, width = input_shape[2:4]
    if height != width:
        raise ModelFileError(
            f"model {name!r}: expected square tiles; its input is {height} x {width} px. Export "
            "it for square tiles or for any size."
        )
    return height or int(_number(advised or 512, name))


def _band_names(channels: int) -> tuple[str, ...]:
    return RGB if channels == 3 else tuple(f"band {i + 1}" for i in range(channels))


def _gsd_range(gsd_m: float) -> tuple[float, float]:
    return gsd_m / GSD_TOLERANCE, gsd_m * GSD_TOLERANCE


def _deepness_classes(names: Any, channels: int | None, model: str) -> tuple[ClassSpec, ...]:
    if isinstance(names, list):
        if len(names) != 1:
            raise ModelFileError(
                f"model {model!r} has {len(names)} outputs; expected one. Export a single head."
            )
        names = names[0]
    try:
        by_id = {int(k): str(v) for k, v in names.items()} if isinstance(names, Mapping) else {}
    except ValueError as error:
        raise ModelFileError(
            f"model {model!r}: expected class_names by channel number; got {names}. Mend the "
            "record."
        ) from error
    count = max([2, channels or 0, *(i + 1 for i in by_id)])
    if channels == 1 and len(by_id) == 1:  # one sigmoid channel: what it finds is class 1
        by_id = {0: "background", 1: next(iter(by_id.values()))}
    return tuple(
        ClassSpec(i, by_id.get(i, f"class {i}"), COLORS[i % len(COLORS)]) for i in range(count)
    )


def _first_of(properties: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    listed = properties.get(f"mlm:{key}") or properties.get(key)
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], Mapping):
        raise ModelFileError(
            f"model {name!r}: expected the property mlm:{key}; its record has none. "
            "Write a STAC MLM item, version 1.x."
        )
    first: Mapping[str, Any] = listed[0]
    return first


def _mlm_bands(given: Mapping[str, Any], names: Sequence[str], model: str) -> tuple[BandSpec, ...]:
    scalings = given.get("value_scaling") or _old_scalings(given, model)
    function = given.get("pre_processing_function")
    if not scalings and function:
        raise ModelFileError(
            f"model {model!r} needs the function {function.get('expression')!r} before it, which "
            "geoseg cannot run. Put the scaling into the record (value_scaling)."
        )
    scalings = scalings or []
    if len(scalings) == 1:
        scalings = list(scalings) * len(names)
    if scalings and len(scalings) != len(names):
        raise ModelFileError(
            f"model {model!r}: expected value_scaling for {len(names)} bands; got {len(scalings)}."
        )
    bands = []
    for i, name in enumerate(names):
        mean, std = _mean_std(scalings[i], model) if scalings else (0.0, 1.0)
        bands.append(BandSpec(name, mean=mean, std=std))
    return tuple(bands)


def _old_scalings(given: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    """Return ``norm_type`` and ``statistics`` of versions before 1.4 in the form of later ones."""
    kind = given.get("norm_type")
    if not kind:
        return []
    statistics = given.get("statistics")
    if not isinstance(statistics, list) or not statistics:
        raise ModelFileError(
            f"model {model!r}: its record asks for {kind!r} and gives no statistics to do it with. "
            "Add statistics, or value_scaling (STAC MLM 1.4)."
        )
    return [{**band, "type": kind} for band in statistics]


def _mean_std(scaling: Mapping[str, Any], model: str) -> tuple[float, float]:
    """Return a value scaling as (x - mean) / std."""
    kind = str(scaling.get("type"))
    try:
        if kind == "z-score":
            return float(scaling["mean"]), float(scaling["stddev"])
        if kind == "min-max":
            low, high = float(scaling["minimum"]), float(scaling["maximum"])
            return low, high - low
        if kind == "scale":
            return 0.0, float(scaling["value"])
        if kind == "offset":
            return float(scaling["value"]), 1.0
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"model {model!r}: value_scaling {scaling} lacks {error}.") from error
    raise ModelFileError(
        f"model {model!r}: value_scaling of type {kind!r} is not supported; expected z-score, "
        "min-max, scale or offset."
    )


def class_identifier(name: str) -> str:
    """Return a class name as records want it: letters, digits, ``-`` and ``_`` only."""
    return re.sub(r"[^0-9A-Za-z\-_]+", "-", name).strip("-") or "class"


def _class_label(record: Mapping[str, Any]) -> str | None:
    """Return the name of a class, in full where its description is just that."""
    name, description = record.get("name"), record.get("description")
    is_name = description and (not name or class_identifier(str(description)) == name)
    return description if is_name else name


def _mlm_classes(answered: Mapping[str, Any], model: str) -> tuple[ClassSpec, ...]:
    listed = answered.get("classification:classes") or answered.get("classification_classes")
    if not listed:
        raise ModelFileError(
            f"model {model!r}: expected classification:classes in mlm:output; got none. "
            "Name the classes in the record."
        )
    classes = []
    for i, record in enumerate(listed):
        hint = record.get("color_hint") or record.get("color-hint")
        color = f"#{hint}".lower() if hint else COLORS[i % len(COLORS)]
        label = _class_label(record) or f"class {record['value']}"
        classes.append(ClassSpec(int(record["value"]), str(label), color))
    return tuple(classes)
