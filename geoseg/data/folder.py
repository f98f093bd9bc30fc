"""Finds image and mask files by folder or pattern, and pairs them by name."""

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from geoseg.config.run import FilesConfig
from geoseg.data.chips import Chip
from geoseg.errors import InputError

SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".vrt", ".img"),
}
# What a name may end in beside the part that image and mask share; longer ones first.
LABEL_ENDINGS = tuple(
    mark + word
    for mark in "_-."
    for word in (
        *("segmentation", "annotation", "groundtruth", "labels", "label", "masks", "mask"),
        *("lbl", "seg", "gt", "m"),
    )
)
IMAGE_ENDINGS = tuple(
    mark + word for mark in "_-." for word in ("images", "image", "img", "sat", "rgb")
)
SHOWN = 3  # names in a message


def list_chips(files: FilesConfig, key: str) -> list[Chip]:
    """Return the pairs of a split's files, by name.

    Args:
        files: of the split.
        key: of the run file, for messages: ``data.train``.

    Raises:
        InputError: nothing there, files without partner, or more than one.
    """
    parts = list(zip(*_matching_lists(files), strict=True))
    chips: list[Chip] = []
    for images, labels in parts:
        if images == labels and all(Path(item).is_dir() for item in images):
            raise InputError(
                f"{key}: images and labels are the same folder {images[0]!r}. Give patterns that "
                "tell them apart, for example images: 'chips/*.jpg', labels: 'chips/*.png'."
            )
        taken = _read_names(files.names, key) if files.names else None
        chips += pair_files(
            list_files(images, f"{key}.images"), list_files(labels, f"{key}.labels"), key, taken
        )
    return _with_own_names(chips)


def list_files(items: Sequence[str], key: str) -> dict[str, Path]:
    """Return the files of folders (with their subfolders), patterns and file names.

    Returns:
        Name -> file, in order: the path below the folder, or below the part of the pattern without
        wildcards, without suffix.

    Raises:
        InputError: nothing there, or two files of one name.
    """
    found: dict[str, Path] = {}
    for item in items:
        parent, paths = _expand(item, key)
        for path in sorted(paths):
            name = path.relative_to(parent).with_suffix("").as_posix()
            if found.setdefault(name, path) != path:
                raise InputError(
                    f"{key}: expected names that differ; got {str(found[name])!r} and "
                    f"{str(path)!r}. Give a pattern such as '*.png' that takes one of them, or "
                    "lists of images and labels in the same order."
                )
    return found


def pair_files(
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    key: str,
    taken: Iterable[str] | None = None,
) -> list[Chip]:
    """Return images with the label of the same name, endings such as ``_mask`` aside.

    Args:
        images: name -> file.
        labels: likewise.
        key: of the run file, for messages.
        taken: names of the images to take; None: all, and then every label must have an image.

    Raises:
        InputError: files without partner or with more than one; names that do not exist.
    """
    partner, lone_labels = _match(images, labels, key)
    if taken is not None:
        wanted = list(dict.fromkeys(taken))
        absent = [name for name in wanted if name not in images]
        if absent:
            raise InputError(
                f"{key}.names: {_some(absent)} not found among the {len(images)} images. Names "
                f"are paths below the images' folder without suffix, such as {min(images)!r}."
            )
        images = {name: images[name] for name in wanted}
        lone_labels = []
    lone_images = [str(images[name]) for name in images if name not in partner]
    if lone_images:
        raise InputError(
            f"{key}: no label found for {_some(lone_images)}. A label has its image's name, "
            "perhaps with an ending such as _mask, _m, _label or _gt; list the images to take in "
            "a file under names."
        )
    if lone_labels:
        raise InputError(
            f"{key}: no image found for {_some([str(labels[name]) for name in lone_labels])}. Add "
            "the images, or list those to take in a file under names."
        )
    return [Chip(name, str(images[name]), str(labels[partner[name]])) for name in images]


def _match(
    images: Mapping[str, Path], labels: Mapping[str, Path], key: str
) -> tuple[dict[str, str], list[str]]:
    """Return image name -> label name, and the labels without image."""
    short = {_without(name, IMAGE_ENDINGS): name for name in reversed(list(images))}
    partner: dict[str, str] = {}
    lone = []
    for label in labels:
        stem = _without(label, LABEL_ENDINGS)
        image = next(
            (n for n in (label, stem, short.get(stem), short.get(label)) if n in images), None
        )
        if image is None:
            lone.append(label)
        elif image in partner:
            raise InputError(
                f"{key}: image {str(images[image])!r} has two labels, "
                f"{str(labels[partner[image]])!r} and {str(labels[label])!r}. Give a pattern that "
                "takes one of them."
            )
        else:
            partner[image] = label
    return partner, lone


def _without(name: str, endings: Sequence[str]) -> str:
    """Return the name without the first of the endings that it has."""
    lower = name.lower()
    ending = next((e for e in endings if lower.endswith(e) and len(name) > len(e)), "")
    return name[: len(name) - len(ending)]


def _matching_lists(files: FilesConfig) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return images and labels in parts that are paired by themselves."""
    images = (files.images,) if isinstance(files.images, str) else tuple(files.images)
    labels = (files.labels,) if isinstance(files.labels, str) else tuple(files.labels)
    if len(images) == len(labels) and files.names is None:
        # Item by item: folders of several places may hold the same names.
        return [(item,) for item in images], [(item,) for item in labels]
    return [images], [labels]


def _expand(item: str, key: str) -> tuple[Path, list[Path]]:
    """Return the folder that names are relative to, and the files."""
    path = Path(item)
    if path.is_dir():
        paths = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and _is_shown(p, path)]
        parent = path
    elif path.is_file():
        parent, paths = path.parent, [path]
    elif glob.has_magic(item):
        parts = path.parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        parent = Path(*parts[:fixed])
        paths = [path for path in parent.glob(str(Path(*parts[fixed:]))) if path.is_file()]
    else:
        raise InputError(
            f"{key}: expected a folder, a file or a pattern; {item!r} does not exist. Paths are "
            "relative to the folder in which geoseg is called."
        )
    if not paths:
        kinds = " ".join(sorted(SUFFIXES))
        raise InputError(f"{key}: {item!r} holds no image files ({kinds}). Check the path.")
    return parent, paths


def _is_shown(path: Path, parent: Path) -> bool:
    """Return whether neither file nor folder is hidden, as macOS's '._x.png' are."""
    return not any(part.startswith(".") for part in path.relative_to(parent).parts)


def _read_names(file: str, key: str) -> list[str]:
    try:
        lines = Path(file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{key}.names: expected a text file with one name a line; {file!r} cannot be read: "
            f"{error}."
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    return [
        str(Path(n).with_suffix("")) if Path(n).suffix.lower() in SUFFIXES else n for n in names
    ]


def _with_own_names(chips: list[Chip]) -> list[Chip]:
    """Return the chips with names that differ, by more of their paths where needed."""
    if len({chip.name for chip in chips}) == len(chips):
        return chips
    return [
        Chip(Path(c.image).with_suffix("").as_posix(), c.image, c.label, c.window, c.scene)
        for c in chips
    ]


def _some(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
