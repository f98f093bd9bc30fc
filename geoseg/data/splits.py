"""Division by place: cells on the ground, scenes, or single files."""

import math
from collections.abc import Sequence
from dataclasses import replace

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from geoseg.config.run import SplitConfig
from geoseg.data.divide import SplitName, held_out
from geoseg.data.patches import PatchGrid
from geoseg.data.scenes import Scene, mean_gsd_m, stencil_of
from geoseg.errors import InputError, UsageError

Geometries = NDArray[np.object_]

# Files nearer to each other than this many pixels touch.
TOUCH_PX = 1.5


def divide_scenes(
    scenes: Sequence[Scene], config: SplitConfig, *, has_test: bool = False
) -> dict[SplitName, tuple[Scene, ...]]:
    """Return the scenes of each split, cut down to their ground where cells divide them.

    Args:
        scenes: of the whole set.
        config: how to divide.
        has_test: whether the test has files of its own, so that none is held out for it.

    Raises:
        InputError: too few scenes or cells.
        UsageError: cells of scenes without place.
    """
    test_share = 0.0 if has_test else config.test_share
    shares: dict[SplitName, float] = {"val": config.val_share, "test": test_share}
    if config.by == "cell":
        return _by_cell(scenes, config, shares)
    groups = scene_groups(scenes) if config.by == "scene" else [[i] for i in range(len(scenes))]
    order = np.random.default_rng(config.seed).permutation(len(groups))
    counts = {name: held_out(share, len(groups)) for name, share in shares.items()}
    if sum(counts.values()) >= len(groups):
        what = "scene(s), where files that overlap or touch are one" if config.by == "scene" else ""
        raise InputError(
            f"data.split: {len(groups)} {what or 'file(s)'} cannot be divided into train, "
            f"{counts['val']} for val and {counts['test']} for test. Give by: cell, which divides "
            "within a scene, or data.val of its own."
        )
    num_val, num_held = counts["val"], sum(counts.values())
    parts: dict[SplitName, NDArray[np.int64]]
    parts = {"val": order[:num_val], "test": order[num_val:num_held], "train": order[num_held:]}
    return {
        name: tuple(scenes[i] for i in sorted(i for g in part for i in groups[g]))
        for name, part in parts.items()
    }


def scene_groups(scenes: Sequence[Scene]) -> list[list[int]]:
    """Return the scenes that overlap or touch as groups, each by position, in order.

    Chips of one flight or sheet are neighbours, and neighbours are alike: apart, they would leak.
    """
    placed = [i for i, scene in enumerate(scenes) if scene.grid.crs]
    links: dict[int, set[int]] = {i: {i} for i in range(len(scenes))}
    if placed:
        shapes = flat_outlines([scenes[i] for i in placed], flat_crs([scenes[i] for i in placed]))
        reach = TOUCH_PX * np.array([mean_gsd_m(scenes[i]) or 0.0 for i in placed])
        pairs = STRtree(shapes).query(shapes, predicate="dwithin", distance=reach)
        for one, other in pairs.T:
            links[placed[one]].add(placed[other])
            links[placed[other]].add(placed[one])
    groups: list[list[int]] = []
    seen: set[int] = set()
    for start in links:
        if start in seen:
            continue
        group, waiting = {start}, [start]
        while waiting:
            new = links[waiting.pop()] - group
            group |= new
            waiting += new
        seen |= group
        groups.append(sorted(group))
    return groups


def flat_crs(scenes: Sequence[Scene]) -> CRS:
    """Return a CRS in metres of ground around the scenes: Lambert's equal areas.

    One for all of them, so that scenes of several zones share their cells.
    """
    left, bottom, right, top = shapely.total_bounds(flat_outlines(scenes, CRS(4326)))
    # Rounded, so that a file more or less moves the grid seldom.
    lon, lat = round((left + right) / 2, 1), round((bottom + top) / 2, 1)
    return CRS.from_proj4(f"+proj=laea +lat_0={lat} +lon_0={lon} +datum=WGS84 +units=m +no_defs")


def flat_outlines(scenes: Sequence[Scene], flat: CRS) -> Geometries:
    """Return the whole ground of each scene."""
    return _moved([s.grid.outline() for s in scenes], [s.grid for s in scenes], flat)


def flat_grounds(scenes: Sequence[Scene], flat: CRS) -> Geometries:
    """Return the labelled ground of each scene in its split."""
    return _moved([s.ground() for s in scenes], [s.grid for s in scenes], flat)


def _moved(shapes: Sequence[BaseGeometry], grids: Sequence[PatchGrid], flat: CRS) -> Geometries:
    by_crs: dict[str, list[int]] = {}
    for i, grid in enumerate(grids):
        by_crs.setdefault(grid.crs, []).append(i)
    moved = np.empty(len(shapes), dtype=object)
    for wkt, members in by_crs.items():
        series = geopandas.GeoSeries([shapes[i] for i in members], crs=wkt).to_crs(flat)
        moved[members] = np.array(series)
    return shapely.make_valid(moved)


def _by_cell(
    scenes: Sequence[Scene], config: SplitConfig, shares: dict[SplitName, float]
) -> dict[SplitName, tuple[Scene, ...]]:
    bare = next((scene for scene in scenes if not scene.grid.crs), None)
    if bare is not None:
        raise UsageError(
            f"data.split.by: cell needs scenes with a CRS; {bare.path!r} has none. Assign it, or "
            "give by: scene."
        )
    if not config.cell_m > 0:
        raise UsageError(f"data.split.cell_m: expected metres above 0; got {config.cell_m:g}.")
    flat = flat_crs(scenes)
    ground = shapely.union_all(flat_grounds(scenes, flat))
    cells = ground_cells(ground, config.cell_m)
    areas = shapely.area(shapely.intersection(cells, ground))
    order = np.random.default_rng(config.seed).permutation(len(cells))
    parts: dict[SplitName, NDArray[np.int64]] = {}
    first = 0
    for name, share in shares.items():
        first_of_name = first
        wanted, taken = share * areas.sum(), 0.0
        # Cells at the border hold little ground: what counts is the ground that is held out.
        while first < len(order) and taken < wanted * (1 - 1e-9):
            taken += areas[order[first]]
            first += 1
        parts[name] = order[first_of_name:first]
    parts["train"] = order[first:]
    if not len(parts["train"]):
        raise InputError(
            f"data.split: {len(cells)} cell(s) of {config.cell_m:g} m cannot be divided into "
            f"train, {len(parts['val'])} for val and {len(parts['test'])} for test. Give a smaller "
            "data.split.cell_m or smaller shares."
        )
    return {name: _within(scenes, cells[np.sort(part)], flat) for name, part in parts.items()}


def ground_cells(ground: BaseGeometry, cell_m: float) -> Geometries:
    """Return the square cells that have some of the ground, row by row."""
    left, bottom, right, top = (math.floor(v / cell_m) for v in ground.bounds)
    cols, rows = np.meshgrid(np.arange(left, right + 1), np.arange(bottom, top + 1))
    x, y = cols.ravel() * cell_m, rows.ravel() * cell_m
    boxes = shapely.box(x, y, x + cell_m, y + cell_m)
    shapely.prepare(ground)
    near = boxes[shapely.intersects(ground, boxes)]
    return near[shapely.area(shapely.intersection(near, ground)) > 0]


def _within(scenes: Sequence[Scene], cells: Geometries, flat: CRS) -> tuple[Scene, ...]:
    """Return the scenes that have ground in the cells, cut down to it."""
    if not len(cells):
        return ()
    tree = STRtree(cells)
    chosen = []
    for scene, shape in zip(scenes, flat_grounds(scenes, flat), strict=True):
        near = np.sort(tree.query(shape, predicate="intersects"))
        if not len(near):
            continue
        # By their corners alone: neighbours then share their borders in any CRS.
        own = geopandas.GeoSeries(cells[near], crs=flat).to_crs(scene.grid.crs)
        region = scene.in_pixels(own)
        if scene.region is not None:
            kept = shapely.union_all(scene.region.polygons)
            cut = [polygon & kept for polygon in region.polygons]
            region = stencil_of(p for p in cut if p.area > 0)
        if region.polygons:
            chosen.append(replace(scene, region=region))
    return tuple(chosen)
