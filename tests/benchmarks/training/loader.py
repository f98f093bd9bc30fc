"""Samples per second of the loader, beside TorchGeo's defaults on the same GeoTIFFs.

    python -m tests.benchmarks.training.loader [FOLDER]

FOLDER holds ``images/*.tif`` and ``labels/*.tif``; without it, two real scenes of 4096 px are made.
Both loaders draw random patches of 512 px in batches of 8, in turns, in one process. They are
measured twice: with GDAL's own block cache, which holds the scenes here, and with one too small for
them, as it is for imagery of any size.
"""

import argparse
import itertools
import json
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from torch.utils.data import DataLoader

from tests.benchmarks.measure import in_child, machine, medians
from tests.conftest import ROOT

PATCH_PX, BATCH, SAMPLES, ROUNDS = 512, 8, 128, 5
WORKERS = (0, 2)
SMALL_CACHE_MB = 16
SCENE_PX = 4096
CLASSES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--cache-mb", type=int, help="measure with this block cache, print JSON")
    chosen = parser.parse_args()
    if chosen.cache_mb is not None:
        if chosen.cache_mb:
            os.environ["GDAL_CACHEMAX"] = str(chosen.cache_mb)
        print(json.dumps(measure(chosen.folder)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = chosen.folder or make_scenes(Path(made))
        print(machine())
        print(f"{PATCH_PX} px patches, batches of {BATCH}, medians of {ROUNDS} rounds, samples/s\n")
        print("| block cache | workers | TorchGeo | geoseg | ratio |\n|---|---|---|---|---|")
        for cache_mb in (0, SMALL_CACHE_MB):
            options = [str(folder), "--cache-mb", str(cache_mb)]
            speeds = in_child("tests.benchmarks.training.loader", options)
            cache = f"{cache_mb} MB" if cache_mb else "GDAL's own"
            for workers in WORKERS:
                theirs, ours = speeds[f"torchgeo {workers}"], speeds[f"geoseg {workers}"]
                print(f"| {cache} | {workers} | {theirs:.0f} | {ours:.0f} | {ours / theirs:.1f} |")


def make_scenes(folder: Path) -> Path:
    """Write two scenes of the shipped drone image, mirrored to four times its size."""
    with rasterio.open(ROOT / "geoseg/assets/banepa_scene.tif") as dataset:
        image, size_m = dataset.read(), dataset.transform.a
    wide = np.concatenate([image, image[:, :, ::-1]], axis=2)
    whole = np.concatenate([wide, wide[:, ::-1]], axis=1)[:, :SCENE_PX, :SCENE_PX]
    blocks = whole[1].reshape(SCENE_PX // 8, 8, SCENE_PX // 8, 8).mean(axis=(1, 3))
    label = (blocks * CLASSES / 256).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    for number in range(2):
        left = 500000 + number * 2 * SCENE_PX * size_m
        profile = {
            "driver": "GTiff",
            "dtype": "uint8",
            "crs": "EPSG:32645",
            "transform": Affine(size_m, 0, left, 0, -size_m, 3000000),
            "height": SCENE_PX,
            "width": SCENE_PX,
            "tiled": True,
            "compress": "deflate",
        }
        for kind, values in (("images", whole), ("labels", label[None])):
            (folder / kind).mkdir(exist_ok=True)
            path = folder / kind / f"scene{number}.tif"
            with rasterio.open(path, "w", count=len(values), **profile) as out:
                out.write(np.roll(values, number * 1000, axis=2))
    return folder


def measure(folder: Path) -> dict[str, float]:
    """Return medians of samples per second by loader and number of workers."""
    loaders = {}
    for workers in WORKERS:
        loaders[f"torchgeo {workers}"] = torchgeo_loader(folder, workers)
        loaders[f"geoseg {workers}"] = geoseg_loader(folder, workers)
    rounds = []
    for _ in range(ROUNDS + 1):
        rounds.append({name: samples_per_second(loader) for name, loader in loaders.items()})
    return medians(rounds[1:])  # the first one starts the workers and opens the files


def samples_per_second(loader: DataLoader) -> float:
    begun = time.perf_counter()
    count = sum(len(batch["image"]) for batch in itertools.islice(loader, SAMPLES // BATCH))
    return count / (time.perf_counter() - begun)


def torchgeo_loader(folder: Path, workers: int) -> DataLoader:
    from torchgeo.datasets import RasterDataset
    from torchgeo.datasets.utils import stack_samples
    from torchgeo.samplers import RandomPatchSampler

    class Labels(RasterDataset):
        is_image = False

    dataset = RasterDataset(str(folder / "images")) & Labels(str(folder / "labels"))
    sampler = RandomPatchSampler(dataset, size=PATCH_PX, length=SAMPLES, generator=0)
    return _loader(dataset, sampler, stack_samples, workers)


def geoseg_loader(folder: Path, workers: int) -> DataLoader:
    from geoseg.config.run import (
        ClassConfig,
        DataConfig,
        FilesConfig,
        SamplingConfig,
        SplitConfig,
    )
    from geoseg.data.rasters import build_raster_split
    from geoseg.data.sample import collate_samples

    data = DataConfig(
        "raster",
        train=FilesConfig(str(folder / "images"), str(folder / "labels")),
        split=SplitConfig(val_share=0),
        classes=tuple(ClassConfig(k, f"class {k}") for k in range(CLASSES)),
        sampling=SamplingConfig(patches_per_epoch=SAMPLES),
    )
    split = build_raster_split(data, "train", patch_px=PATCH_PX)
    return _loader(split.dataset, split.sampler, collate_samples, workers)


def _loader(dataset, sampler, collate, workers: int) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
