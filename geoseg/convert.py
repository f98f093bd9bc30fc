"""Published checkpoints to model files: what they hold is read from shapes and metadata."""

import argparse
import logging
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import geoseg
from geoseg.checkpoint import save_model
from geoseg.errors import ModelFileError
from geoseg.models import create_classifier, from_official, load_official_weights
from geoseg.models.create import EncoderOnly, create_encoder
from geoseg.models.segman import SIDE_MULTIPLE_PX, SMALLEST_SIDE_PX
from geoseg.models.weights import (
    band_count,
    class_count,
    is_segmentor,
    network_name,
    network_options,
    official_layout,
)
from geoseg.spec import Architecture, BandSpec, ClassSpec, ModelSpec, Task, TileSpec

logger = logging.getLogger(__name__)

# ImageNet statistics of 8-bit RGB, which all published recipes use.
IMAGENET_BANDS = (
    BandSpec("red", mean=123.675, std=58.395),
    BandSpec("green", mean=116.28, std=57.12),
    BandSpec("blue", mean=103.53, std=57.375),
)
# What published files hold beside tensors; nothing else is unpickled.
ALLOWED_GLOBALS = (
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
)


def convert_official(
    official: Path, out: Path, *, classes: Sequence[ClassSpec] | None = None, half: bool = False
) -> ModelSpec:
    """Write a model file from a published checkpoint and return its record.

    Args:
        official: ``.pth`` or the like: a segmentor, an encoder, or an image classifier.
        out: ``.safetensors``.
        classes: names and colours; None: from the file's own metadata, else numbered.
        half: store matrices in half precision.

    Raises:
        ModelFileError: not a checkpoint of a known network, or incomplete.
    """
    checkpoint = load_checkpoint(official)
    weights = official_layout(checkpoint)
    try:
        name, options = network_name(weights), network_options(weights)
        num_classes, bands = class_count(weights) or 0, band_count(weights)
        if bands != len(IMAGENET_BANDS):
            raise ModelFileError(
                f"{str(official)!r} takes {bands} bands, and the statistics of bands beyond red, "
                "green and blue are not in it. Load it in Python with from_official, and "
                "save_model it with a ModelSpec that has them."
            )
        task, network = _fill(weights, name, options)
    except IndexError as error:
        raise ModelFileError(
            f"checkpoint {str(official)!r}: a tensor has fewer dimensions than that of the "
            "published network. Get the file again."
        ) from error
    named = _numbered(num_classes) if classes is None else classes
    if classes is None:
        named = _own_classes(checkpoint, num_classes) or named
    if len(named) != num_classes:
        raise ModelFileError(
            f"{str(official)!r} has {num_classes} classes; the class list has {len(named)}. "
            "Give one name per class."
        )
    spec = ModelSpec(
        name=out.stem,
        architecture=Architecture(name, options),
        bands=IMAGENET_BANDS,
        dtype="uint8",
        classes=tuple(named),
        task=task,
        tile=advised_tile(name),
        description=f"{name}, converted from {official.name}.",
        licence="that of the published weights; see their source",
        versions={"geoseg": geoseg.__version__, "torch": str(torch.__version__)},
    )
    save_model(out, network, spec, half=half)
    return spec


def _fill(
    weights: Mapping[str, Tensor], name: str, options: dict[str, Any]
) -> tuple[Task, nn.Module]:
    """Return what weights under our key names hold, as a task and its network."""
    if is_segmentor(weights):
        return "semantic-segmentation", from_official(weights)
    if any(key.startswith("decoder.") for key in weights):
        raise ModelFileError(
            "expected a segmentor with decode_head.conv_seg; its decode head lacks that layer. "
            "Get the file again."
        )
    task: Task
    network: nn.Module
    count = class_count(weights)
    if count is None:
        task, network = "pre-training", EncoderOnly(name, create_encoder(name, 3, **options))
    else:
        task, network = "classification", create_classifier(name, count, **options)
    unused = load_official_weights(network, weights)
    if unused:
        logger.warning("left out, %d tensors of no known part: %s ...", len(unused), unused[0])
    return task, network


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """Return what a checkpoint file holds, unpickling nothing but tensors and plain values.

    Raises:
        ModelFileError: missing, damaged, or holding objects that are not allowed.
    """
    try:
        with torch.serialization.safe_globals(list(ALLOWED_GLOBALS) + _numpy_scalars()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelFileError(f"checkpoint {str(path)!r} does not exist. Check the path.") from None
    except pickle.UnpicklingError as error:
        # torch's own words advise to switch the safety off.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found.group(1)})" if found else ""
        raise ModelFileError(
            f"checkpoint {str(path)!r} is no file that torch has saved, or holds objects{what} "
            "that could run code when they are loaded. Get it from its publisher again, or save "
            "its state dict alone."
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, struct.error) as error:
        raise ModelFileError(
            f"checkpoint {str(path)!r} cannot be read ({type(error).__name__}): it is damaged, or "
            "no file that torch has saved. Get it again."
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise ModelFileError(
            f"checkpoint {str(path)!r}: expected a dict; got {type(checkpoint).__name__}."
        )
    return checkpoint


def advised_tile(name: str) -> TileSpec:
    """Return how a network is tiled, with the sizes that it can take."""
    if name.startswith("segman"):
        return TileSpec(multiple_px=SIDE_MULTIPLE_PX, min_px=SMALLEST_SIDE_PX)
    return TileSpec()


def class_color(index: int) -> str:
    """Return a colour for class ``index``, far from its neighbours'; black for the first."""
    # The Pascal VOC colour map: the bits of the index go to the high bits of the channels in turn.
    red = green = blue = 0
    value = index
    for shift in range(7, -1, -1):
        red |= (value & 1) << shift
        green |= (value >> 1 & 1) << shift
        blue |= (value >> 2 & 1) << shift
        value >>= 3
    return f"#{red:02x}{green:02x}{blue:02x}"


def _own_classes(checkpoint: Mapping[str, Any], num_classes: int) -> list[ClassSpec] | None:
    """Return the classes that mmseg writes beside the weights, if they are as many."""
    meta = checkpoint.get("dataset_meta") or checkpoint.get("meta")
    if isinstance(meta, Mapping) and isinstance(meta.get("dataset_meta"), Mapping):
        meta = meta["dataset_meta"]
    if not isinstance(meta, Mapping):
        return None
    # mmseg 0.x writes the keys in capitals, 1.x does not.
    names = meta.get("classes") or meta.get("CLASSES")
    palette = meta.get("palette") or meta.get("PALETTE")
    if not names or len(names) != num_classes:
        return None
    colors = palette if palette is not None and len(palette) == num_classes else None
    return [
        ClassSpec(i, str(n), _hex(colors[i]) if colors is not None else class_color(i))
        for i, n in enumerate(names)
    ]


def _numbered(num_classes: int) -> list[ClassSpec]:
    return [ClassSpec(i, f"class {i}", class_color(i)) for i in range(num_classes)]


def _hex(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(c) for c in color[:3]))


def _numpy_scalars() -> list[Any]:
    """Return NumPy's constructor of scalars, which checkpoints with metrics hold."""
    from numpy._core import multiarray

    # NumPy 1 wrote the name without the underscore.
    return [multiarray.scalar, (multiarray.scalar, "numpy.core.multiarray.scalar")]
