"""Pictures of the report as data URIs: image, labels, prediction and errors of one place."""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geoseg.data.sample import IGNORE
from geoseg.evaluate.record import ChannelArray, ClassRow, ImageArray, Picture
from geoseg.predict.quicklook import BACKGROUND_NAMES

JPEG_QUALITY = 82
STRIPE_PX = 4

# Three kinds of error, in colours that also colour-blind eyes tell apart (Okabe and Ito, 2008).
MISSED, INVENTED, CONFUSED = 1, 2, 3
ERROR_COLORS = {MISSED: "#0072b2", INVENTED: "#d55e00", CONFUSED: "#cc2f8f"}
ERROR_NAMES = {
    MISSED: "missed: labelled, but predicted as background",
    INVENTED: "invented: labelled background, but predicted as another class",
    CONFUSED: "wrong class",
}


class Panel(NamedTuple):
    """One picture: its heading, the picture itself, and what it shows in words."""

    heading: str
    uri: str
    alt: str
    is_map: bool


class Panels(NamedTuple):
    """The panels of one place.

    Attributes:
        name: of the sample or place.
        score: mIoU of the place.
        wrong: share of its scored pixels that are wrong; NaN: none are scored.
        panels: image, labels, prediction, errors.
        size_px: height and width.
    """

    name: str
    score: float
    wrong: float
    panels: tuple[Panel, ...]
    size_px: tuple[int, int]


def draw_panels(picture: Picture, classes: Sequence[ClassRow]) -> Panels:
    """Return image, labels, prediction and errors of a place, in the classes' colours."""
    colors = [c.color for c in classes]
    errors = find_errors(picture.target, picture.predicted, classes)
    scored = (picture.target != IGNORE) & (picture.predicted != IGNORE)
    wrong = float((errors > 0)[scored].mean()) if scored.any() else math.nan
    name = picture.name
    panels = (
        Panel("Image", jpeg_uri(picture.image), f"Image of {name}", False),
        Panel(
            "Labels",
            map_uri(picture.target, colors),
            f"Labels of {name}: {_shares(picture.target, classes)}",
            True,
        ),
        Panel(
            "Prediction",
            map_uri(picture.predicted, colors),
            f"Prediction of {name}: {_shares(picture.predicted, classes)}",
            True,
        ),
        Panel(
            "Errors",
            jpeg_uri(draw_errors(picture.image, errors, scored), sharp=True),
            f"Errors of {name}: "
            + (f"{wrong:.1%} of the scored pixels are wrong" if scored.any() else "none scored"),
            False,
        ),
    )
    height, width = picture.target.shape
    return Panels(name, picture.score, wrong, panels, (height, width))


def find_errors(
    target: ChannelArray, predicted: ChannelArray, classes: Sequence[ClassRow]
) -> NDArray[np.uint8]:
    """Return the kind of error of each pixel.

    Args:
        target: (H, W) channel indexes, IGNORE where not labelled.
        predicted: (H, W) likewise, IGNORE without an answer.
        classes: channel k is ``classes[k]``; what is called background or the like parts the errors
            into missed and invented; without it all are CONFUSED.

    Returns:
        (H, W): 0 for right and unscored pixels, else MISSED, INVENTED or CONFUSED.
    """
    lut = np.zeros(256, dtype=bool)
    lut[_background(classes)] = True
    wrong = (target != predicted) & (target != IGNORE) & (predicted != IGNORE)
    kinds = np.full(target.shape, CONFUSED, np.uint8)
    kinds[lut[predicted] & ~lut[target]] = MISSED
    kinds[lut[target] & ~lut[predicted]] = INVENTED
    return np.where(wrong, kinds, 0).astype(np.uint8)


def error_kinds(classes: Sequence[ClassRow]) -> list[tuple[int, str]]:
    """Return the kinds of error that these classes can have, with what they mean."""
    if not _background(classes):
        return [(CONFUSED, "wrong")]
    kinds = [MISSED, INVENTED] + ([CONFUSED] if len(classes) > 2 else [])
    return [(kind, ERROR_NAMES[kind]) for kind in kinds]


def draw_errors(
    image: ImageArray, errors: NDArray[np.uint8], scored: NDArray[np.bool_]
) -> ImageArray:
    """Return a pale grey image with the errors in colour and unscored ground striped."""
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # (H, W)
    pale = 255 - (255 - grey) * 0.55
    rows, cols = np.indices(grey.shape)
    stripes = (rows + cols) // STRIPE_PX % 2 == 0
    pale = np.where(scored, pale, np.where(stripes, 150, 205))
    canvas = np.repeat(pale[..., None], 3, axis=2)
    for kind, color in ERROR_COLORS.items():
        canvas[errors == kind] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return canvas.round().astype(np.uint8)


def jpeg_uri(image: ImageArray, *, sharp: bool = False) -> str:
    """Return a picture (H, W, 3) as a JPEG data URI; ``sharp`` keeps thin coloured lines."""
    file = io.BytesIO()
    subsampling = "4:4:4" if sharp else "4:2:0"
    Image.fromarray(np.ascontiguousarray(image)).save(
        file, "JPEG", quality=JPEG_QUALITY, optimize=True, subsampling=subsampling
    )
    return _uri("jpeg", file)


def map_uri(channels: ChannelArray, colors: Sequence[str]) -> str:
    """Return a map (H, W) of channel indexes as a PNG data URI; IGNORE is transparent."""
    assert len(colors) < IGNORE, len(colors)
    blank = len(colors)  # the palette ends here, so that few classes need few bits
    file = io.BytesIO()
    picture = Image.fromarray(np.where(channels == IGNORE, blank, channels).astype(np.uint8), "P")
    picture.putpalette(bytes.fromhex("".join(c.lstrip("#") for c in colors)) + bytes(3))
    picture.save(file, "PNG", optimize=True, transparency=blank)
    return _uri("png", file)


def classes_shown(pictures: Iterable[Picture], classes: Sequence[ClassRow]) -> list[ClassRow]:
    """Return the classes that occur in the labels or predictions of some pictures."""
    seen: set[int] = set()
    for picture in pictures:
        seen.update(np.unique(picture.target).tolist(), np.unique(picture.predicted).tolist())
    return [c for k, c in enumerate(classes) if k in seen]


def _background(classes: Sequence[ClassRow]) -> list[int]:
    return [k for k, c in enumerate(classes) if c.name.strip().lower() in BACKGROUND_NAMES]


def _shares(channels: ChannelArray, classes: Sequence[ClassRow]) -> str:
    counts = np.bincount(channels.ravel(), minlength=256)[: len(classes)]
    if not counts.any():
        return "nothing"
    order = [int(k) for k in np.argsort(-counts, kind="stable")[:4] if counts[k]]
    return ", ".join(f"{classes[k].name} {counts[k] / counts.sum():.0%}" for k in order)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
