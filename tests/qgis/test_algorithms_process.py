"""`qgis_process` runs the plugin of a profile, and the engine ends when it is killed."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import rasterio
from rasterio.windows import Window

from tests.qgis.engines import real_engine
from tests.qgis.session import MODEL, SCENE, geoseg, qgis_environment

pytestmark = pytest.mark.qgis
ENABLED = "[PythonPlugins]\nprocessing=true\ngeoseg_qgis=true\n"
WAIT_S = 300
# Debian's script gives it an option of QGIS's own that it does not know.
PROGRAM = shutil.which("qgis_process.bin") or shutil.which("qgis_process")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return real_engine(tmp_path_factory.mktemp("engine") / "own")


@pytest.fixture(scope="module")
def environment(tmp_path_factory, engine):
    if PROGRAM is None:
        pytest.skip("needs QGIS: apt install qgis python3-qgis xvfb")
    profile = tmp_path_factory.mktemp("profile")
    settings = profile / "profiles" / "default" / "QGIS"
    settings.mkdir(parents=True)
    (settings / "QGIS3.ini").write_text(ENABLED, encoding="utf-8")
    return qgis_environment(profile, engine)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "scène.tif"
    with rasterio.open(SCENE) as scene:
        window = Window(700, 700, 256, 256)
        profile = {
            "driver": "GTiff",
            "dtype": "uint8",
            "count": 3,
            "width": 256,
            "height": 256,
            "crs": scene.crs,
            "transform": scene.window_transform(window),
        }
        with rasterio.open(path, "w", **profile) as written:
            written.write(scene.read(window=window))
    return path


def command_of(image, out, *more):
    values = (f"INPUT={image}", f"MODEL={MODEL}", f"OUTPUT={out}", *more)
    return [PROGRAM, "--json", "run", "geoseg:segment", "--", *values]


def test_it_runs_and_gives_the_bytes_of_the_command_line(environment, image, engine):
    out = image.with_name("map by process.tif")
    done = subprocess.run(
        command_of(image, out), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]["OUTPUT"] == str(out)
    same = image.with_name("map.tif")
    geoseg(engine, "predict", MODEL, image, same, "--progress", "none")
    assert out.read_bytes() == same.read_bytes()


def test_the_engine_ends_when_qgis_is_killed(environment, image):
    out = image.with_name("killed.tif")
    child = subprocess.Popen(
        command_of(image, out, "TILE_SIZE=32", "OVERLAP=30"),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        engines = wait_for(lambda: running(out) or child.poll() is not None)
        wait_for(lambda: list(Path(f"{out}.parts").glob("*")))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert isinstance(engines, list)
    wait_for(lambda: not running(out))
    assert not out.exists()
    assert Path(f"{out}.parts").is_dir()


def running(out):
    """Return the processes of `geoseg predict` that write this output."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"geoseg" in words and b"predict" in words and os.fsencode(out) in words:
            found.append(folder.name)
    return found


def wait_for(condition):
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    pytest.fail("waited too long")
