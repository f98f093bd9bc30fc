"""Squared corners of buildings beside the footprints their masks were drawn from.

    python -m tests.benchmarks.vectorize.squares DATA [--max-shift-m 1.5] [--picture PNG]

DATA is the folder of the Banepa buildings: `train` and `val` with masks named as map tiles
(OAM-x-y-zoom.tif) and `osm_buildings.geojson`. The tiles of both are put together; buildings on
their edge are left out; coarser pixels are each nth of them. Touching buildings are one outline,
compared with all of its footprints. What is not squared stays as Douglas-Peucker at 1 pixel left
it. Vertices and right angles are those of outer rings: holes are slits between neighbours here.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio import features
from rasterio.transform import from_origin

from geoseg.vector import VectorOptions, vectorize_raster
from geoseg.vector.regularize import right_angle_share, square_ring

TILE_PX = 512
EARTH_M = 2 * math.pi * 6378137.0
MIN_AREA_M2 = 10.0
MIN_SPECK_M2 = 1.0
SIMPLE_PX = 1.0

Geometries = Sequence[shapely.geometry.base.BaseGeometry]
Pairs = list[tuple[shapely.Polygon, shapely.geometry.base.BaseGeometry]]
Case = tuple[shapely.Polygon, shapely.Polygon | None, shapely.geometry.base.BaseGeometry]


@dataclass(frozen=True)
class Town:
    """Masks of map tiles side by side, and footprints in their pixels.

    Args:
        mask: uint8 (height, width): 1 building, 0 other, 255 no tile.
        footprints: polygons, pixels from the upper left.
        pixel_m: metres of ground.
    """

    mask: NDArray[np.uint8]
    footprints: NDArray[np.object_]
    pixel_m: float


def read_town(folder: Path) -> Town:
    """Return a split of the data set as one picture."""
    paths = {tuple(map(int, p.stem.split("-")[1:])): p for p in folder.glob("masks/OAM-*.tif")}
    columns, rows, zooms = np.array(list(paths)).T
    west, north, zoom = int(columns.min()), int(rows.min()), int(zooms[0])
    shape = ((rows.max() - north + 1) * TILE_PX, (columns.max() - west + 1) * TILE_PX)
    mask = np.full(shape, 255, np.uint8)
    for (column, row, _), path in paths.items():
        y, x = (row - north) * TILE_PX, (column - west) * TILE_PX
        with rasterio.open(path) as tile:
            mask[y : y + TILE_PX, x : x + TILE_PX] = tile.read(1)
    pixel = EARTH_M / 2**zoom / TILE_PX
    frame = gpd.read_file(folder / "osm_buildings.geojson")
    latitude = float(frame.total_bounds[[1, 3]].mean())
    origin = (west * TILE_PX * pixel - EARTH_M / 2, EARTH_M / 2 - north * TILE_PX * pixel)
    placed = frame.to_crs(3857).geometry.affine_transform(
        [1 / pixel, 0, 0, -1 / pixel, -origin[0] / pixel, origin[1] / pixel]
    )
    return Town(mask, placed.to_numpy(), pixel * math.cos(math.radians(latitude)))


def coarser(town: Town, factor: int) -> Town:
    """Return the town with every nth pixel, as if drawn at that size."""
    half = factor // 2
    # A pixel of the coarse grid is centred on the pixel it takes.
    shift = (factor - 1) / 2 - half
    placed = shapely.transform(town.footprints, lambda xy: (xy + shift) / factor)
    return Town(town.mask[half::factor, half::factor], placed, town.pixel_m * factor)


def outlines(town: Town) -> list[shapely.Polygon]:
    """Return the outlines of the mask's pixels."""
    shapes = features.shapes(town.mask, mask=town.mask != 255, connectivity=4)
    rings = [shape["coordinates"] for shape, value in shapes if value == 1]
    return [shapely.Polygon(outer, holes) for outer, *holes in rings]


def vectorized(town: Town, **shape: float | tuple[int, ...]) -> list[shapely.Polygon]:
    """Return what `geoseg vectorize` makes of the mask, in pixels."""
    grid = {"crs": "EPSG:32645", "transform": from_origin(0, 0, town.pixel_m, town.pixel_m)}
    height, width = town.mask.shape
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "mask.tif"), Path(folder, "mask.gpkg")
        with rasterio.open(
            path, "w", "GTiff", width, height, 1, dtype="uint8", nodata=255, **grid
        ) as file:
            file.write(town.mask, 1)
        options = VectorOptions(classes=(1,), min_area_m2=MIN_SPECK_M2, **shape)
        vectorize_raster(path, out, options=options)
        found = gpd.read_file(out, layer="mask").geometry
    placed = found.affine_transform([1 / town.pixel_m, 0, 0, -1 / town.pixel_m, 0, 0])
    return list(shapely.get_parts(placed.to_numpy()))


def with_footprints(town: Town, found: list[shapely.Polygon]) -> Pairs:
    """Return the buildings that are whole, each with the footprints that lie in it; pixels."""
    valid = town.mask != 255
    outside = shapely.union_all(
        [
            shapely.geometry.shape(s)
            for s, v in features.shapes((~valid).astype(np.uint8), connectivity=4)
            if v
        ]
        + [shapely.box(0, 0, *town.mask.shape[::-1]).boundary]
    )
    shapely.prepare(outside)
    found = [
        p for p in found if p.area * town.pixel_m**2 >= MIN_AREA_M2 and not outside.intersects(p)
    ]
    points = shapely.point_on_surface(town.footprints)
    building, footprint = shapely.STRtree(points).query(found, predicate="contains")
    return [
        (p, shapely.union_all(town.footprints[footprint[building == i]]))
        for i, p in enumerate(found)
        if (building == i).any()
    ]


def square(polygon: shapely.Polygon, pixel_m: float, max_shift_m: float) -> shapely.Polygon | None:
    """Return the polygon with its outer ring squared, and those of its holes that can be."""
    rings = [np.array(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
    new = [square_ring(r * pixel_m, pixel_m=pixel_m, max_shift_m=max_shift_m) for r in rings]
    if new[0] is None:
        return None
    simple = [shapely.simplify(ring, SIMPLE_PX) for ring in polygon.interiors]
    holes = [
        old.coords if ring is None else ring / pixel_m
        for old, ring in zip(simple, new[1:], strict=True)
    ]
    squared = shapely.Polygon(new[0] / pixel_m, holes)
    return squared if squared.is_valid else None


def print_row(name: str, shapes: Geometries, truth: Geometries) -> None:
    """Print overlap with the footprints, vertices and right angles."""
    iou = shapely.area(shapely.intersection(shapes, truth)) / shapely.area(
        shapely.union(shapes, truth)
    )
    rings = _outer_rings(shapes)
    counts = np.array([len(ring) - 1 for ring in rings])
    share = np.average([right_angle_share(ring) for ring in rings], weights=counts)
    print(
        f"| {name} | {iou.mean():.4f} | {np.percentile(iou, 5):.4f} | {np.median(counts):.0f} | "
        f"{counts.sum()} | {share:.3f} |"
    )


def _outer_rings(shapes: Geometries) -> list[NDArray[np.float64]]:
    """Return the outer rings (V, 2) of all parts."""
    rings = shapely.get_exterior_ring(shapely.get_parts(shapes))
    return [shapely.get_coordinates(ring) for ring in rings]


def compare(town: Town, max_shift_m: float) -> list[Case]:
    """Print the table of one pixel size; return (outline, squared or None, footprints)."""
    found = with_footprints(town, outlines(town))
    raw, truth = [p for p, _ in found], [t for _, t in found]
    simple = [shapely.simplify(p, SIMPLE_PX) for p in raw]
    began = time.process_time()
    squared = [square(p, town.pixel_m, max_shift_m) for p in raw]
    seconds = time.process_time() - began
    kept = [i for i, s in enumerate(squared) if s is not None]
    rings, vertices = len(shapely.get_rings(raw)), shapely.get_num_coordinates(raw).sum()
    print(
        f"\n{town.pixel_m:.2f} m pixels, walls move by {max_shift_m} m at most: {len(kept)} of "
        f"{len(raw)} buildings squared; {rings} rings of {vertices} vertices in "
        f"{seconds:.2f} s of CPU, {seconds / rings * 1e6:.0f} us each\n\n"
        "| | IoU, mean | IoU, 5th percentile | vertices, median | in all | right angles |\n"
        "|---|---|---|---|---|---|"
    )
    for name, chosen in (("all", range(len(raw))), ("squared", kept)):
        for kind, shapes in (
            ("outline", raw),
            ("simplified", simple),
            ("squared", [s or d for s, d in zip(squared, simple, strict=True)]),
            ("footprints", truth),
        ):
            print_row(f"{name}: {kind}", [shapes[i] for i in chosen], [truth[i] for i in chosen])
    for name, shape in (
        ("vectorize", {}),
        ("vectorize --simplify 1 px", {"simplify_m": SIMPLE_PX * town.pixel_m}),
        (
            "vectorize --simplify 1 px --square-corners",
            {"simplify_m": SIMPLE_PX * town.pixel_m, "square_corners": (1,)},
        ),
    ):
        pairs = with_footprints(town, vectorized(town, **shape))
        print_row(f"{name} ({len(pairs)})", *zip(*pairs, strict=True))
    return list(zip(raw, squared, truth, strict=True))


def draw(cases: list[Case], path: Path, box: tuple[float, float, float, float]) -> None:
    """Write a picture: outlines grey, squared red, footprints blue; left ones orange."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 16), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    window = shapely.box(*box)
    for raw, squared, truth in cases:
        if not window.intersects(raw):
            continue
        left = "orange" if squared is None else "0.6"
        for shape, colour, width in ((truth, "tab:blue", 2.5), (raw, left, 1), (squared, "red", 1)):
            for ring in shapely.get_rings(shape) if shape is not None else ():
                axes.plot(*np.array(ring.coords).T, color=colour, linewidth=width)
    axes.set(xlim=box[::2], ylim=box[:0:-2], aspect="equal")
    figure.savefig(path)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--max-shift-m", type=float, default=1.5)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--coarser", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--box", type=float, nargs=4, default=(0.0, 0.0, 800.0, 800.0))
    arguments = parser.parse_args()
    for split in ("train", "val"):
        town = read_town(arguments.data / split)
        print(f"\n## {split}")
        for factor in arguments.coarser:
            cases = compare(coarser(town, factor), arguments.max_shift_m)
            if arguments.picture:
                name = f"{arguments.picture.stem}-{split}-{factor}{arguments.picture.suffix}"
                draw(cases, arguments.picture.with_name(name), arguments.box)


if __name__ == "__main__":
    main()
