"""From the run file's ``data`` section to patches of georeferenced scenes: data of kind raster."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import shapely
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from geoseg.config.run import DataConfig, FilesConfig
from geoseg.data.build import COLORS
from geoseg.data.divide import SplitName
from geoseg.data.folder import _some
from geoseg.data.geodatasets import (
    ImageRasters,
    LabelRasters,
    Labels,
    LabelUnion,
    LabelVectors,
)
from geoseg.data.label_polygons import background_channel, load_label_polygons
from geoseg.data.labels import class_specs, make_rule
from geoseg.data.sample import IGNORE, Sample, Split
from geoseg.data.samplers import BalancedPatchSampler, CoveringPatchSampler, SceneSampler
from geoseg.data.scene_pairs import ScenePairs
from geoseg.data.scenes import (
    Scene,
    SceneFiles,
    choose_partners,
    describe_images,
    describe_labels,
    find_files,
    make_scene,
)
from geoseg.data.splits import divide_scenes
from geoseg.errors import InputError, UsageError
from geoseg.predict.area import load_area
from geoseg.spec import ClassSpec

DEFAULT_PATCH_PX = 512
CHIP_LEAK = "split by chip: neighbouring files fall on both sides, so scores are too good"


def build_raster_split(
    data: DataConfig,
    split: SplitName,
    *,
    transform: Callable[[Sample], Sample] | None = None,
    patch_px: int | None = None,
    seed: int = 0,
) -> Split:
    """Return one split of georeferenced scenes.

    Training patches are drawn anew each epoch (`BalancedPatchSampler.set_epoch`); those of ``val``
    and ``test`` cover the ground once.

    Args:
        data: the run file's section.
        split: which one.
        transform: called on each sample after reading.
        patch_px: side of a patch; None: 512.
        seed: of the draws.

    Raises:
        InputError: files are missing, unreadable or do not fit each other.
        UsageError: an option that scenes do not have.
    """
    if data.classes is None:
        raise InputError(
            "data.classes: expected the classes of the labels, for example "
            "[{id: 0, name: other}, {id: 1, name: building}]; got none."
        )
    if data.subset != 1:
        raise UsageError(
            "data.subset: scenes have no fixed set of samples; give "
            "data.sampling.patches_per_epoch for shorter epochs, or fewer files."
        )
    size_px = patch_px or DEFAULT_PATCH_PX
    classes = class_specs(data.classes)
    files, key = _own_files(data, split)
    images, labels, opened = open_scenes(files, key, data, classes)
    scenes, notes = opened, []
    if _is_divided(data, split):
        scenes = _part(scenes, data, split)
        notes += [CHIP_LEAK] if data.split.by == "chip" else []
    lone = len(images.files_by_path) - len(opened)
    if lone:
        notes.append(f"{lone} image(s) without labelled ground are left out")
    dataset = ScenePairs(images, labels, scenes, transform=transform)
    sampler: SceneSampler
    if split == "train":
        sampler = BalancedPatchSampler(dataset, size_px, data.sampling, seed=seed)
    else:
        sampler = CoveringPatchSampler(dataset, size_px)
    return Split(
        dataset,
        classes,
        names=tuple(scene.path for scene in scenes),
        sampler=sampler,
        bands=_band_names(data, images),
        dtype=data.dtype,
        notes=tuple(notes),
    )


def open_scenes(
    files: FilesConfig, key: str, data: DataConfig, classes: Sequence[ClassSpec]
) -> tuple[ImageRasters, Labels, tuple[Scene, ...]]:
    """Return imagery, labels and the scenes of a set of files, each scene whole but for ``roi``.

    Args:
        files: images, labels, names and roi.
        key: of the run file, for messages: ``data.train``.
        data: how they are read.
        classes: channel k is ``classes[k]``.

    Raises:
        InputError: files are missing, unreadable or do not fit each other.
    """
    found = find_files(files, key)
    images = ImageRasters(describe_images(found.images.values(), data))
    labels = _open_labels(found, images, data, classes)
    names = {path: name for name, path in found.images.items()}
    gsd_m = data.sampling.gsd_m
    scenes = [make_scene(file, names[path], gsd_m) for path, file in images.files_by_path.items()]
    if files.roi is not None:
        scenes = _in_roi(scenes, files.roi, images)
        if not scenes:
            raise InputError(
                f"{key}.roi: no image has ground inside of {files.roi!r}. Check its CRS."
            )
    labelled = _with_labels(scenes, labels)
    if not labelled:
        raise InputError(
            f"{key}: no image has ground that the labels speak of, for example {scenes[0].path!r}. "
            "Check the CRS of both, or give data.background_id if unlabelled ground is background."
        )
    return images, labels, labelled


def _own_files(data: DataConfig, split: SplitName) -> tuple[FilesConfig, str]:
    """Return the files that a split is taken from, and their key in the run file."""
    if data.train is None:
        raise InputError(
            "data.train: expected the images and labels of the training split, for example "
            "{images: scenes/*.tif, labels: labels.gpkg}; got none."
        )
    own = {"train": data.train, "val": data.val, "test": data.test}[split]
    if own is not None:
        return own, f"data.{split}"
    if split == "test" and data.val is not None:
        raise InputError("data: there are no test data. Give data.test.")
    return data.train, "data.train"


def _is_divided(data: DataConfig, split: SplitName) -> bool:
    """Return whether a split is a part of the training files."""
    if data.val is not None or (split == "test" and data.test is not None):
        return False
    held = data.split.val_share + (0 if data.test is not None else data.split.test_share)
    return split != "train" or held > 0


def _part(scenes: Sequence[Scene], data: DataConfig, split: SplitName) -> tuple[Scene, ...]:
    part = divide_scenes(scenes, data.split, has_test=data.test is not None)[split]
    if not part:
        raise InputError(
            f"data: there are no {split} data. Give data.{split}, or a data.split.{split}_share "
            "above 0."
        )
    return part


def _open_labels(
    found: SceneFiles, images: ImageRasters, data: DataConfig, classes: Sequence[ClassSpec]
) -> Labels:
    vectors = _open_vectors(found.vectors, images, data, classes) if found.vectors else None
    if not found.rasters:
        assert vectors is not None, "labels are listed, so there is one kind at least"
        return vectors
    files = describe_labels(found.rasters.values(), make_rule(data, classes))
    partners = choose_partners(images.files_by_path, files, found.partners)
    lone = [path for path, labels in partners.items() if not labels]
    if lone and vectors is None:
        raise InputError(
            f"data: no label raster has the name of, or lies on the ground of, {_some(lone)}. "
            "Add the labels, or list the images to take in a file under names."
        )
    rasters = LabelRasters(files, partners)
    return rasters if vectors is None else LabelUnion(rasters, vectors)


def _open_vectors(
    paths: Sequence[str], images: ImageRasters, data: DataConfig, classes: Sequence[ClassSpec]
) -> LabelVectors:
    background = background_channel(data, classes)
    layers = [load_label_polygons(path, data, classes) for path in paths]
    extent = None if background == IGNORE else shapely.box(*images.index.total_bounds)
    return LabelVectors(layers, background, extent=extent, crs=images.crs)


def _in_roi(scenes: Sequence[Scene], roi: str, images: ImageRasters) -> list[Scene]:
    """Return the scenes that have ground inside of a vector file's polygons, cut down to it."""
    areas: dict[str, tuple[tuple[BaseGeometry, ...], STRtree]] = {}
    chosen = []
    for scene in scenes:
        crs = scene.grid.crs
        if crs not in areas:
            georef = images.files_by_path[scene.path].info.georef
            polygons = load_area(Path(roi), georef, scene.path).polygons
            areas[crs] = polygons, STRtree(polygons)
        polygons, tree = areas[crs]
        near = tree.query(scene.grid.outline(), predicate="intersects")
        if len(near):
            chosen.append(replace(scene, region=scene.in_pixels(polygons[i] for i in sorted(near))))
    return chosen


def _with_labels(scenes: Sequence[Scene], labels: Labels) -> tuple[Scene, ...]:
    """Return the scenes that labels speak of, each with where they do."""
    chosen = []
    for scene in scenes:
        shapes = labels.ground(scene)
        if shapes is None:
            chosen.append(scene)
        elif shapes:
            chosen.append(replace(scene, labelled=scene.in_pixels(shapes)))
    return tuple(chosen)


def _band_names(data: DataConfig, images: ImageRasters) -> tuple[str, ...]:
    count = len(next(iter(images.files_by_path.values())).selection.bands)
    if data.band_names is None:
        return COLORS if count == 3 else tuple(f"band{i}" for i in range(1, count + 1))
    if len(data.band_names) != count:
        raise InputError(
            f"data.band_names: expected {count} names, one per band; got {len(data.band_names)}."
        )
    return data.band_names
