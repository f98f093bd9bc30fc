"""One way to predict a raster, in a process of its own; prints a JSON line of its figures.

    python -m tests.benchmarks.predict.variants WAY MODEL PRECISION OVERLAP RASTER [MAX_MEMORY_GB]

WAY is `bare` (the segmenter on tiles of an image in memory, results dropped), `geoseg`
(`predict_raster`, to a COG), or `torchgeo` (GriddedPatchSampler, DataLoader, and the patches' maps
pasted into one array; nothing is blended or written). MODEL is a model's name or `conv1x1`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import rasterio
import torch
from torch import nn

from geoseg.config import PredictOptions
from geoseg.predict import predict_raster
from geoseg.predict.memory import keep_freed_memory, peak_rss_bytes
from geoseg.predict.model import as_segmenter
from geoseg.raster.grid import plan_windows
from geoseg.segmenter import Segmenter
from geoseg.spec import Architecture, BandSpec, ClassSpec, ModelSpec, TileSpec

CONV_CLASSES = 5


def conv1x1() -> Segmenter:
    """Return the smallest network there is: what is left is the pipeline."""
    torch.manual_seed(0)
    names = ("red", "green", "blue")
    spec = ModelSpec(
        name="conv1x1",
        architecture=Architecture("conv1x1"),
        bands=tuple(BandSpec(n, mean=110.0, std=45.0) for n in names),
        dtype="uint8",
        classes=tuple(
            ClassSpec(i, f"class {i}", f"#{40 * i:02x}6040") for i in range(CONV_CLASSES)
        ),
        tile=TileSpec(512, 128),
    )
    return Segmenter(nn.Conv2d(3, CONV_CLASSES, 1), spec).eval()


def load(model: str, precision: str) -> Segmenter:
    """Return the segmenter in its precision on the CPU."""
    wanted = conv1x1() if model == "conv1x1" else model
    return as_segmenter(wanted, torch.device("cpu"), precision)


@torch.inference_mode()
def bare(segmenter: Segmenter, overlap_px: int, raster: str) -> float:
    """Return the seconds that the forward passes take over the tiles that geoseg runs."""
    keep_freed_memory()
    with rasterio.open(raster) as dataset:
        image = torch.from_numpy(dataset.read())
    tile = segmenter.spec.tile.size_px
    grid = plan_windows(image.shape[1], image.shape[2], tile, overlap_px=overlap_px)
    segmenter(image[None, :, :tile, :tile])
    began = time.perf_counter()
    for row in grid.rows.starts:
        for col in grid.cols.starts:
            segmenter(image[None, :, row : row + tile, col : col + tile])
    return time.perf_counter() - began


def geoseg(
    segmenter: Segmenter, overlap_px: int, raster: str, precision: str, max_memory_gb: float
) -> float:
    """Return the seconds of `predict_raster`: planning, reading, blending, writing, the COG."""
    with tempfile.TemporaryDirectory() as folder:
        options = PredictOptions(
            overlap_px=overlap_px,
            precision=precision,
            device="cpu",
            max_memory_bytes=int(max_memory_gb * 1e9),
        )
        return predict_raster(segmenter, raster, Path(folder) / "map.tif", options=options).seconds


@torch.inference_mode()
def torchgeo(segmenter: Segmenter, overlap_px: int, raster: str) -> float:
    """Return the seconds of TorchGeo's way to a whole map in memory."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GriddedPatchSampler

    class Image(RasterDataset):
        filename_glob = Path(raster).name

    tile = segmenter.spec.tile.size_px
    began = time.perf_counter()
    dataset = Image(Path(raster).parent)
    sampler = GriddedPatchSampler(dataset, size=tile, stride=tile - overlap_px)
    # Patches run past the image, as the sampler lays them: the map has a border to be cut off.
    left, _, _, top = _bounds(dataset)
    right, bottom = dataset.bounds[0].stop, dataset.bounds[1].start
    height, width = round((top - bottom) / dataset.res[1]), round((right - left) / dataset.res[0])
    class_map = torch.zeros(height + 2 * tile, width + 2 * tile, dtype=torch.uint8)
    with_places = _Places(sampler)
    loader = DataLoader(dataset, batch_size=1, sampler=with_places, collate_fn=stack_samples)
    for i, batch in enumerate(loader):
        x, y = with_places.seen[i]
        col = round((x.start - left) / dataset.res[0]) + tile
        row = round((top - y.stop) / dataset.res[1]) + tile
        logits = segmenter(batch["image"])
        class_map[row : row + tile, col : col + tile] = logits[0].argmax(dim=0)
    return time.perf_counter() - began


class _Places:
    """A sampler that remembers what it gave, since samples do not say where they lie."""

    def __init__(self, sampler: object) -> None:
        self.sampler = sampler
        self.seen: list[tuple[slice, slice]] = []

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        for place in self.sampler:
            self.seen.append(place[:2])
            yield place

    def __len__(self) -> int:
        return len(self.sampler)


def _bounds(dataset: object) -> tuple[float, float, float, float]:
    x, y = dataset.bounds[:2]
    return x.start, y.start, x.stop, y.stop


def main() -> None:
    """Run one variant and print its figures."""
    way, model, precision, overlap, raster, *rest = sys.argv[1:]
    torch.set_num_threads(2)
    with rasterio.open(raster) as dataset:
        mpx = dataset.height * dataset.width / 1e6
    segmenter = load(model, precision)
    if way == "geoseg":
        seconds = geoseg(segmenter, int(overlap), raster, precision, float((rest or [4])[0]))
    else:
        seconds = {"bare": bare, "torchgeo": torchgeo}[way](segmenter, int(overlap), raster)
    figures = {"seconds": seconds, "mpx_s": mpx / seconds, "rss_mb": peak_rss_bytes() / 1e6}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
