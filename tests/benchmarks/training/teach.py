"""Twenty polygons on a scene that the model has never seen: the map before and after.

    python -m tests.benchmarks.training.teach DUBAI OUT [--steps 150]

DUBAI is the folder of the Dubai data set. One validation image becomes a GeoTIFF, ten of
its buildings and ten squares of other ground become the drawn polygons; the whole mask scores both
maps. OUT gets scene, polygons, model, maps and a picture: image, before, after, truth.
"""

import argparse
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from PIL import Image
from rasterio.features import shapes

from geoseg.config import PredictOptions
from geoseg.predict import predict_raster
from geoseg.train.finetune import FinetuneOptions, finetune

MODEL, NAME, PIXEL_M = "demo-buildings-banepa", "tile2_part002", 0.3
BUILDING = (0x3C, 0x10, 0x98)
EACH = 10
TRANSFORM = rasterio.Affine(PIXEL_M, 0, 500_000, 0, -PIXEL_M, 2_800_000)


def write_scene(data: Path, out: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Write the image as a GeoTIFF; return it and where its buildings are."""
    image = np.asarray(Image.open(data / "val" / "images" / f"{NAME}.jpg").convert("RGB"))
    mask = np.asarray(Image.open(data / "val" / "masks" / f"{NAME}.png").convert("RGB"))
    height, width = image.shape[:2]
    size = {"width": width, "height": height, "count": 3, "dtype": "uint8", "crs": "EPSG:32640"}
    with rasterio.open(out, "w", driver="GTiff", transform=TRANSFORM, **size) as dataset:
        dataset.write(image.transpose(2, 0, 1))
    return image, (mask == np.array(BUILDING)).all(-1)


def draw_polygons(truth: NDArray[np.bool_], out: Path) -> None:
    """Write ten buildings and ten squares beside any."""
    rng = np.random.default_rng(0)
    found = shapes(truth.astype(np.uint8), connectivity=4, transform=TRANSFORM)
    buildings = [shapely.geometry.shape(shape) for shape, value in found if value == 1]
    chosen = [b for b in buildings if 60 < b.area < 3000]
    chosen = [chosen[i] for i in rng.permutation(len(chosen))[:EACH]]
    every, others = shapely.union_all(buildings), []
    height_m, width_m = (PIXEL_M * side for side in truth.shape)
    while len(others) < EACH:
        x = TRANSFORM.c + rng.uniform(10, width_m - 10)
        y = TRANSFORM.f - rng.uniform(10, height_m - 10)
        square = shapely.box(x - 6, y - 6, x + 6, y + 6)
        if not square.intersects(every):
            others.append(square)
    kinds = ["building"] * len(chosen) + ["background"] * len(others)
    frame = gpd.GeoDataFrame({"kind": kinds}, geometry=chosen + others, crs="EPSG:32640")
    frame.to_file(out)


def score(model: str, scene: Path, out: Path, truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Map the scene, print the IoU of buildings, return where they are."""
    predict_raster(model, scene, out, options=PredictOptions(overwrite=True))
    with rasterio.open(out) as dataset:
        found = dataset.read(1) == 1
    iou = (found & truth).sum() / (found | truth).sum()
    print(f"{out.stem}: IoU of buildings {iou:.3f}, pixels right {(found == truth).mean():.3f}")
    return found


def draw(image: NDArray[np.uint8], maps: list[NDArray[np.bool_]], out: Path) -> None:
    """Write image and maps in two rows."""
    panels = [image]
    for found in maps:
        panel = image.copy()
        panel[found] = (panel[found] * 0.4 + np.array([215, 48, 31]) * 0.6).astype(np.uint8)
        panels.append(panel)
    rows = [np.hstack(panels[:2]), np.hstack(panels[2:])]
    picture = Image.fromarray(np.vstack(rows))
    picture.thumbnail((1000, 1000))
    picture.save(out, quality=85)


def main() -> None:
    """Make the scene, teach the model, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dubai", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    scene, drawn = given.out / "scene.tif", given.out / "drawn.gpkg"
    taught = given.out / "better.safetensors"
    image, truth = write_scene(given.dubai, scene)
    draw_polygons(truth, drawn)
    before = score(MODEL, scene, given.out / "before.tif", truth)
    began = time.perf_counter()
    options = FinetuneOptions(class_field="kind", steps=given.steps, overwrite=True)
    finetune(MODEL, scene, drawn, taught, options=options)
    print(f"taught in {time.perf_counter() - began:.0f} s")
    after = score(str(taught), scene, given.out / "after.tif", truth)
    draw(image, [before, after, truth], given.out / "before_after.jpg")


if __name__ == "__main__":
    main()
