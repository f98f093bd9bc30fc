"""Starts real QGIS for tests: its own Python, a profile of its own, and an engine to talk to."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

REPOSITORY = Path(__file__).parents[2]
PLUGINS = REPOSITORY / "qgis_plugin"
SCRIPTS = Path(__file__).parent / "in_qgis"
SCENE = REPOSITORY / "geoseg" / "assets" / "banepa_scene.tif"
MODEL = "demo-buildings-banepa-segnext_t"
RESULT = "result: "


def qgis_environment(profile, engine):
    """Return the environment of a QGIS with an empty profile and this engine."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    # Where this run's Python is first in PATH, QGIS would start with it.
    kept["PATH"] = "/usr/local/bin:/usr/bin:/bin"
    return {
        **kept,
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(profile),
        "QGIS_PLUGINPATH": str(PLUGINS),
        "XDG_RUNTIME_DIR": str(profile),
        "GEOSEG_PYTHON": str(engine),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "PYTHONPYCACHEPREFIX": str(profile / "bytecode"),
    }


def write_long_image(path):
    """Write a raster of four panels, nearly all nodata, with an image across the first's border.

    A run keeps what whole panels have been finished; nodata costs it no time.
    """
    with rasterio.open(SCENE) as scene:
        window = Window(512, 512, 768, 1024)
        values = np.maximum(scene.read(window=window), 1)
        profile = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": 3,
            "width": 4096,
            "height": 6144,
            "crs": scene.crs,
            "transform": scene.window_transform(window),
            "nodata": 0,
            "tiled": True,
            "compress": "deflate",
            "sparse_ok": True,
        }
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(values, window=Window(0, 1536, 768, 1024))


def run_script(python, script, *arguments, environment, timeout_s=900):
    """Run a script of in_qgis by QGIS's Python and return the JSON of its last result line."""
    done = subprocess.run(
        [python, str(SCRIPTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=timeout_s,
        check=False,
    )
    return result_of(done)


def result_of(done):
    """Return what a script reported, or fail with what it said."""
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    assert lines, f"no result; exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return json.loads(lines[-1].removeprefix(RESULT))


def geoseg(engine, *arguments):
    """Run geoseg's command line as a user would."""
    environment = {
        "HOME": os.environ.get("HOME", "/"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    done = subprocess.run(
        [str(engine), "-m", "geoseg", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
