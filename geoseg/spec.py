"""ModelSpec: what a model eats and says, as JSON. Standard library only.

The record travels inside the model file, so that a raster can be checked, scaled and labelled
without any other knowledge. Names follow the STAC Machine Learning Model extension where it has
one.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from geoseg.errors import ModelFileError

SCHEMA_VERSION = 1
SPEC_KEY = "geoseg.spec"  # in the header of a .safetensors file and in ONNX metadata_props
INPUT_KEY = "geoseg.input"  # in ONNX metadata_props: from standardised values to what it is fed

Task = Literal["semantic-segmentation", "classification", "pre-training"]
OutputKind = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class BandSpec:
    """One input band.

    Physical value = stored value x scale + offset; the network sees (physical - mean) / std. A
    scale and offset that the raster itself declares replace these two.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    scale: float = 1.0
    offset: float = 0.0
    description: str = ""


@dataclass(frozen=True)
class ClassSpec:
    """One output class; ``color`` is #RRGGBB."""

    id: int
    name: str
    color: str


@dataclass(frozen=True)
class TileSpec:
    """How the model likes to be tiled.

    Attributes:
        size_px: side of the square tile.
        overlap_px: shared by neighbours and blended.
        halo_px: radius of the receptive field when it is finite: as many pixels at a tile's inner
            edges are read and discarded, which makes tiles exact. None: sees the whole tile.
        multiple_px: tile sides must be a multiple of this.
        min_px: smallest legal side.
        fixed: the network takes no other size than ``size_px``.
    """

    size_px: int = 512
    overlap_px: int = 128
    halo_px: int | None = None
    multiple_px: int = 1
    min_px: int = 32
    fixed: bool = False


@dataclass(frozen=True)
class Architecture:
    """A network by name; ``name`` is a key of `geoseg.models.MODELS`, or free for foreign ones."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PrecisionRecord:
    """How far a reduced precision moves the map, measured against fp32 on held-out images."""

    agreement: float
    miou_delta: float
    device: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a model but its weights.

    Attributes:
        name: the model's own name, for example ``demo-buildings-banepa-segnext_t``.
        architecture: which network to build.
        bands: input bands in order.
        dtype: data type of the rasters it was trained on, as NumPy names it.
        classes: output channel k means ``classes[k]``.
        task: what the network answers; only segmentation predicts maps. ``pre-training``: it is
            a bare encoder, without classes.
        output: whether the network returns logits or probabilities.
        nodata_rule: a pixel is nodata where all used bands are, or where any is.
        gsd_m: ground sample distances it knows, (finest, coarsest); None: unknown.
        ignore_index: label left out of loss and metrics.
        temperature: logits are divided by it before the softmax.
        tile: advised tiling.
        precision: reduced precisions that were measured, by name.
        first_convolution: how the first convolution was made, when not trained as it is.
        description: one paragraph.
        warning: said at every run, for example that this is a demonstration model.
        licence: of the weights, with its open points.
        credits: whom to name when maps are published.
        data: what it was trained on.
        recipe: how, with the command.
        metrics: name to value, with the data set in the name.
        versions: of geoseg, torch and so on when it was saved.
    """

    name: str
    architecture: Architecture
    bands: tuple[BandSpec, ...]
    dtype: str
    classes: tuple[ClassSpec, ...]
    task: Task = "semantic-segmentation"
    output: OutputKind = "logits"
    nodata_rule: Literal["all_bands", "any_band"] = "all_bands"
    gsd_m: tuple[float, float] | None = None
    ignore_index: int = 255
    temperature: float = 1.0
    tile: TileSpec = TileSpec()
    precision: dict[str, PrecisionRecord] = field(default_factory=dict)
    first_convolution: str = ""
    description: str = ""
    warning: str = ""
    licence: str = ""
    credits: tuple[str, ...] = ()
    data: str = ""
    recipe: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Check what no later stage could check better."""
        check_spec(self)

    @property
    def in_channels(self) -> int:
        """Number of input bands C."""
        return len(self.bands)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def map_dtype(self) -> Literal["uint8", "uint16"]:
        """Data type of the class map."""
        return "uint16" if max(c.id for c in self.classes) > 254 else "uint8"

    @property
    def map_nodata(self) -> int:
        """Nodata value of the class map, which no class may use."""
        return 65535 if self.map_dtype == "uint16" else 255

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "ModelSpec":
        """Return the record of a JSON text.

        Raises:
            ModelFileError: not JSON, a field is missing, unknown or of the wrong kind, or the
                schema version is not known here.
        """
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelFileError(
                f"expected a JSON model record; got text that is not ({error})."
            ) from error
        if not isinstance(record, dict):
            raise ModelFileError(f"expected a JSON object; got {type(record).__name__}.")
        version = record.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ModelFileError(
                f"expected model record version {SCHEMA_VERSION}; got {version!r}. "
                "Update geoseg, or save the model again with this version."
            )
        return typing.cast(ModelSpec, _build(ModelSpec, record, "model"))


def check_spec(spec: ModelSpec) -> None:
    """Raise a ModelFileError if the record contradicts itself."""
    _require(bool(spec.bands), "at least one input band", "none")
    _require(bool(spec.classes) or spec.task == "pre-training", "at least one class", "none")
    ids = [c.id for c in spec.classes]
    _require(len(set(ids)) == len(ids), "class ids that differ", str(ids))
    _require(all(0 <= i < 65535 for i in ids), "class ids from 0 to 65534", str(ids))
    for c in spec.classes:
        is_color = re.fullmatch(r"#[0-9a-fA-F]{6}", c.color) is not None
        _require(is_color, f"a colour #RRGGBB for class {c.name!r}", repr(c.color))
    for band in spec.bands:
        _require(band.std > 0, f"a positive std for band {band.name!r}", str(band.std))
    if spec.gsd_m is not None:
        finest, coarsest = spec.gsd_m
        _require(0 < finest <= coarsest, "gsd_m as (finest, coarsest) in metres", str(spec.gsd_m))
    tile = spec.tile
    _require(0 <= tile.overlap_px < tile.size_px, "0 <= overlap < tile size", str(tile))
    _require(spec.temperature > 0, "a positive temperature", str(spec.temperature))


def _require(condition: bool, expected: str, got: str) -> None:
    if not condition:
        raise ModelFileError(f"model record: expected {expected}; got {got}.")


def _build(cls: Any, value: Any, where: str) -> Any:
    """Return ``value`` (parsed JSON) as an instance of the annotation ``cls``, strictly."""
    origin, args = typing.get_origin(cls), typing.get_args(cls)
    if dataclasses.is_dataclass(cls):
        return _build_dataclass(cls, value, where)
    if origin is tuple:
        _require_kind(isinstance(value, list), "a list", value, where)
        item = [args[0]] * len(value) if args[-1] is Ellipsis else args
        _require_kind(len(item) == len(value), f"{len(item)} values", value, where)
        pairs = enumerate(zip(item, value, strict=True))
        return tuple(_build(a, v, f"{where}[{i}]") for i, (a, v) in pairs)
    if origin is dict:
        _require_kind(isinstance(value, dict), "an object", value, where)
        return {k: _build(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is Literal:
        _require_kind(value in args, " or ".join(map(repr, args)), value, where)
        return value
    if type(None) in args:
        return None if value is None else _build(args[0], value, where)
    return _build_scalar(cls, value, where)


def _build_scalar(cls: Any, value: Any, where: str) -> Any:
    if cls is Any:
        return value
    if cls is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    matches = isinstance(value, cls) and (cls is bool or not isinstance(value, bool))
    _require_kind(matches, cls.__name__, value, where)
    return value


def _build_dataclass(cls: Any, value: Any, where: str) -> Any:
    _require_kind(isinstance(value, Mapping), "an object", value, where)
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(value) - set(hints))
    _require_kind(not unknown, f"no other fields than {', '.join(hints)}", unknown, where)
    required = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in value]
    _require_kind(not missing, f"the fields {', '.join(required)}", f"no {missing}", where)
    return cls(**{k: _build(hints[k], v, f"{where}.{k}") for k, v in value.items()})


def _require_kind(condition: bool, expected: str, got: Any, where: str) -> None:
    if not condition:
        raise ModelFileError(f"model record, {where}: expected {expected}; got {got!r}.")
