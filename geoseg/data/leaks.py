"""What two splits share that they should not: ground, files, neighbours."""

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import shapely
from shapely import STRtree

from geoseg.data.chips import Chip
from geoseg.data.sample import Split
from geoseg.data.scenes import Scene, mean_gsd_m
from geoseg.data.splits import TOUCH_PX, flat_crs, flat_grounds, flat_outlines

# Strips narrower than this share of a pixel come from rounding, not from shared ground.
SLIVER_PX = 0.1
# What a chip's name ends in beyond the name of the scene that it was cut from.
CHIP_ENDING = re.compile(r"[ _.-]*(part|patch|tile|chip|crop|img|image)?[ _.-]*\d+$", re.IGNORECASE)


def check_leak(train: Split, val: Split) -> tuple[str, ...]:
    """Return what makes scores on ``val`` too good, a sentence each; nothing found: empty.

    Scenes with a place are compared by the labelled ground of each split, everything else by the
    names of files and of the scenes that they were cut from.

    Args:
        train: what is trained on.
        val: what is scored.
    """
    ours, theirs = scenes_with_place(train), scenes_with_place(val)
    if ours and theirs:
        shared = _shared_ground(ours, theirs)
        return shared or _touching(ours, theirs)
    return _shared_names(train, val)


def scenes_with_place(split: Split) -> tuple[Scene, ...]:
    """Return the georeferenced scenes of a split; none for chips."""
    scenes = getattr(split.dataset, "scenes", ())
    return tuple(scene for scene in scenes if scene.grid.crs)


def _shared_ground(train: Sequence[Scene], val: Sequence[Scene]) -> tuple[str, ...]:
    flat = flat_crs([*train, *val])
    ours, theirs = flat_grounds(train, flat), flat_grounds(val, flat)
    pairs = STRtree(ours).query(theirs, predicate="intersects")  # val, train
    if not pairs.size:
        return ()
    common = shapely.intersection(theirs[pairs[0]], ours[pairs[1]])
    sides = np.array([shapely.length(shape) / 4 for shape in theirs])
    slivers = SLIVER_PX * np.array([mean_gsd_m(scene) or 0.0 for scene in val]) * sides
    real = shapely.area(common) > slivers[pairs[0]]
    if not real.any():
        return ()
    area = shapely.area(shapely.union_all(common[real]))
    share = area / shapely.area(shapely.union_all(theirs))
    most = int(np.argmax(np.where(real, shapely.area(common), 0)))
    one, other = train[pairs[1][most]].path, val[pairs[0][most]].path
    where = f"most of it in {other!r}" if one == other else f"most of it in {one!r} and {other!r}"
    return (
        f"training and validation share {format_area(area)} of ground, {share:.1%} of the "
        f"validation's, {where}: scores will be too good. Divide by place: data.split.by: cell or "
        "scene.",
    )


def _touching(train: Sequence[Scene], val: Sequence[Scene]) -> tuple[str, ...]:
    """Say how many files of one split lie beside a file of the other; cells always do."""
    ours = [scene for scene in train if scene.region is None]
    theirs = [scene for scene in val if scene.region is None]
    if not ours or not theirs:
        return ()
    flat = flat_crs([*ours, *theirs])
    outlines = flat_outlines(theirs, flat)
    reach = TOUCH_PX * np.array([mean_gsd_m(scene) or 0.0 for scene in theirs])
    pairs = STRtree(flat_outlines(ours, flat)).query(outlines, predicate="dwithin", distance=reach)
    near = np.unique(pairs[0])
    if not len(near):
        return ()
    one, other = ours[pairs[1][0]].path, theirs[pairs[0][0]].path
    return (
        f"{len(near)} of {len(theirs)} validation files touch a training file, for example "
        f"{other!r} and {one!r}: neighbouring chips are alike, so scores will be too good. Divide "
        "by place: data.split.by: cell or scene.",
    )


def _shared_names(train: Split, val: Split) -> tuple[str, ...]:
    same = sorted(set(_files(train)) & set(_files(val)))
    if same:
        return (
            f"{len(same)} of {len(val.names)} validation files are training files, too, for "
            f"example {same[0]!r}: scores will be too good. Give each file to one split.",
        )
    seen = {scene for scene in _scene_names(train) if scene}
    cut = [name for name, scene in zip(val.names, _scene_names(val), strict=True) if scene in seen]
    if not cut:
        return ()
    scene = next(s for s in _scene_names(val) if s in seen)
    return (
        f"{len(cut)} of {len(val.names)} validation chips seem to be cut from scenes of training "
        f"chips, for example {cut[0]!r} from {scene!r}: neighbouring chips are alike, so scores "
        "may be too good. Divide by data.split.by: scene, unless the names mislead.",
    )


def _files(split: Split) -> list[str]:
    chips: Sequence[Chip] = getattr(split.dataset, "chips", ())
    # A large image may be several chips of one file.
    return [f"{c.image} {tuple(c.window) if c.window else ''}" for c in chips] or list(split.names)


def _scene_names(split: Split) -> list[str]:
    """Return the scene of each name, empty where a name says nothing of one."""
    chips: Sequence[Chip] = getattr(split.dataset, "chips", ())
    if any(chip.scene for chip in chips):
        return [chip.scene for chip in chips]
    stems = (CHIP_ENDING.sub("", PurePath(name).name) for name in split.names)
    # Numbers alone are years or counters, not places.
    return [stem if any(c.isalpha() for c in stem) else "" for stem in stems]


def format_area(area_m2: float) -> str:
    """Return an area in the unit that people would choose."""
    if area_m2 >= 1e6:
        return f"{area_m2 / 1e6:.3g} km2"
    return f"{area_m2 / 1e4:.3g} ha" if area_m2 >= 1e4 else f"{area_m2:.3g} m2"
