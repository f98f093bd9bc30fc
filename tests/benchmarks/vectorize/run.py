"""Class maps to polygons, whole processes: geoseg, a script of rasterio and geopandas, GDAL.

    python -m tests.benchmarks.vectorize.run [--rounds N] [--map FILE] [--without-memory]

Each figure is the median over processes that take turns: wall time from start to exit, time on the
processor (which says more on a machine that does other things too), and peak memory. All write a
GeoPackage with outlines as they are; geoseg also writes names, areas, perimeters and a style.

The maps: the zoo's ``cog_cmap.tif`` (7168 x 8704 px, 10,313 polygons), where it lies beside the
project; and a made one of 8192 x 8192 px with about a million polygons. The second table is peak
memory for maps from 4,096 to 32,768 px square with equally many polygons per area.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyogrio

from tests.benchmarks.measure import machine
from tests.benchmarks.vectorize.maps import make_map
from tests.conftest import SHARED

ZOO_MAP = SHARED / "geotiff-zoo" / "cog_cmap.tif"
MILLION_SIDE_PX, MILLION_CELL_PX = 8192, 16
SIDES_PX = (4096, 8192, 16384, 32768)
MEMORY_CELL_PX = 128
# A small process between: a child's peak is never counted below that of who started it.
LAUNCH = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
wall_s = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
rss_mb = used.ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
print(json.dumps({"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "rss_mb": rss_mb}))
sys.exit(done.returncode)
"""
WAYS = ("geoseg", "shapes", "gdal_polygonize")


def command_of(way: str, class_map: Path, out: Path) -> list[str] | None:
    """Return the command line of a way, or None where it is not installed."""
    python = [sys.executable, "-W", "ignore", "-m"]
    if way == "geoseg":
        quiet = ["--progress", "none"]
        return [*python, "geoseg", "vectorize", str(class_map), str(out), *quiet]
    if way == "shapes":
        return [*python, "tests.benchmarks.vectorize.shapes", str(class_map), str(out)]
    program = shutil.which("gdal_polygonize.py") or shutil.which("gdal_polygonize")
    return None if program is None else [program, "-q", str(class_map), str(out)]


def run_once(command: Sequence[str], out: Path) -> dict[str, float]:
    """Return wall and processor seconds, peak MB, and features of one process."""
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-I", "-c", LAUNCH, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    layer = pyogrio.list_layers(out)[0][0]
    features = pyogrio.read_info(out, layer=layer, force_feature_count=True)["features"]
    return {**json.loads(done.stdout.splitlines()[-1]), "features": features}


def compare(class_map: Path, folder: Path, rounds: int) -> None:
    """Print time and peak memory of every way."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            out = folder / f"{way}.gpkg"
            command = command_of(way, class_map, out)
            if command is not None:
                runs[way].append(run_once(command, out))
    for way, figures in runs.items():
        if not figures:
            print(f"  {way:15s} not run: it is not installed (Debian: gdal-bin, python3-gdal)")
            continue
        median = {key: statistics.median(f[key] for f in figures) for key in figures[0]}
        print(
            f"  {way:15s} {median['wall_s']:7.2f} s  {median['cpu_s']:7.2f} s on the processor  "
            f"peak RSS {median['rss_mb']:5.0f} MB  {median['features']:,.0f} polygons",
            flush=True,
        )


def compare_sides(folder: Path, rounds: int) -> None:
    """Print peak memory for maps of growing size."""
    print(f"geoseg vectorize, cells of {MEMORY_CELL_PX} px")
    peaks = []
    for side in SIDES_PX:
        class_map, out = folder / "side.tif", folder / "side.gpkg"
        make_map(class_map, side, cell_px=MEMORY_CELL_PX, torn=0.004)
        command = command_of("geoseg", class_map, out)
        assert command is not None
        figures = [run_once(command, out) for _ in range(rounds)]
        peaks.append(statistics.median(f["rss_mb"] for f in figures))
        print(
            f"  {side:6d} px  {class_map.stat().st_size / 1e6:5.1f} MB on disk  "
            f"{figures[0]['features']:9,.0f} polygons  "
            f"{statistics.median(f['wall_s'] for f in figures):6.1f} s  "
            f"peak RSS {peaks[-1]:5.0f} MB",
            flush=True,
        )
        class_map.unlink()
    print(f"  largest {100 * (max(peaks) / min(peaks) - 1):.1f} % above the least")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--map", type=Path, action="append", help="of your own; repeatable")
    parser.add_argument("--without-memory", action="store_true")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maps = options.map or ([ZOO_MAP] if ZOO_MAP.exists() else [])
        if not maps:
            print(f"{ZOO_MAP.name} not run: it is not part of the project")
        for class_map in maps:
            print(class_map.name)
            compare(class_map, folder, options.rounds)
        million = folder / "million.tif"
        make_map(million, MILLION_SIDE_PX, cell_px=MILLION_CELL_PX)
        print(f"made map, {MILLION_SIDE_PX} x {MILLION_SIDE_PX} px")
        compare(million, folder, options.rounds)
        if not options.without_memory:
            compare_sides(folder, rounds=1)


if __name__ == "__main__":
    main()
