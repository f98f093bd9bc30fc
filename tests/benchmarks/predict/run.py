"""Prediction of a large raster beside the bare network and beside TorchGeo.

    python -m tests.benchmarks.predict.run [--rounds N] [--size PX]

Each figure comes from a process of its own; the ways take turns; medians are compared. Net Mpx/s
counts pixels of the map, not of overlapping tiles.
"""

import argparse
import tempfile
from pathlib import Path

from geoseg.model_files import find_model, read_spec
from tests.benchmarks.measure import in_child, machine, medians
from tests.benchmarks.predict.scene import make_scene

MODEL = "demo-buildings-banepa"
CHILD = "tests.benchmarks.predict.variants"
WIDTHS_PX = (4096, 16384, 65536)
MAX_MEMORY_GB = "2"


def compare(raster: Path, rounds: int) -> None:
    """Print speed and peak memory of every way, model and precision."""
    overlap = str(read_spec(find_model(MODEL)).tile.overlap_px)
    cases = [
        (MODEL, "fp32", overlap, ("bare", "geoseg", "torchgeo")),
        (MODEL, "bf16", overlap, ("bare", "geoseg", "torchgeo")),
        ("conv1x1", "fp32", "0", ("geoseg", "torchgeo")),
        ("conv1x1", "fp32", "128", ("geoseg", "torchgeo")),
    ]
    for model, precision, overlap_px, ways in cases:
        print(f"{model}, {precision}, overlap {overlap_px} px")
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way in ways:
                runs[way].append(in_child(CHILD, [way, model, precision, overlap_px, str(raster)]))
        found = {way: medians(figures) for way, figures in runs.items()}
        for way, figures in found.items():
            ratio = figures["mpx_s"] / found["bare"]["mpx_s"] if "bare" in found else None
            beside = f"  {ratio:.3f} of bare" if ratio is not None and way != "bare" else ""
            print(
                f"  {way:9s} {figures['mpx_s']:7.2f} Mpx/s  peak RSS {figures['rss_mb']:6.0f} MB"
                f"{beside}",
                flush=True,
            )


def compare_widths(folder: Path, rounds: int) -> None:
    """Print peak memory for rasters of growing width, medians of all rounds."""
    print(f"peak RSS with --max-memory {MAX_MEMORY_GB}GB, rasters 1024 px high")
    for model in ("conv1x1", MODEL):
        peaks = []
        for width in WIDTHS_PX:
            raster = folder / f"wide{width}.tif"
            if not raster.exists():
                make_scene(raster, 1024, width)
            arguments = ["geoseg", model, "fp32", "128", str(raster), MAX_MEMORY_GB]
            runs = [in_child(CHILD, arguments) for _ in range(rounds)]
            peaks.append(medians(runs)["rss_mb"])
        text = ", ".join(f"{w} px {p:.0f} MB" for w, p in zip(WIDTHS_PX, peaks, strict=True))
        spread = max(peaks) / min(peaks) - 1
        print(f"  {model}: {text}; largest {100 * spread:.1f} % above the least", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=8192)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        raster = Path(folder) / "scene.tif"
        ratio = make_scene(raster, options.size, options.size)
        print(f"{options.size} x {options.size} px, 3 bands uint8, deflate COG, {ratio:.2f} : 1")
        compare(raster, options.rounds)
        raster.unlink()
        compare_widths(Path(folder), options.rounds)


if __name__ == "__main__":
    main()
