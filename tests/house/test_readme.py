"""The README's commands and code run as they stand, on a generated raster of real imagery."""

import re
import shlex
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.windows import Window
from shapely.geometry import box

from geoseg.cli import main
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text("utf-8")
SCENE = ROOT / "geoseg" / "assets" / "banepa_scene.tif"
CHIPS = ROOT / "tests" / "data" / "dubai"
# What is learned does not matter here: a test does not train for an hour.
QUICK = {
    "train": ["trainer.steps=2", "trainer.batch_size=2", "augment.crop_px=64"],
    "finetune": ["--steps", "2", "--batch-size", "2", "--crop-size", "64"],
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands():
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the rasters that the README speaks of, cut from the shipped scene."""
    folder = tmp_path_factory.mktemp("readme")
    with rasterio.open(SCENE) as scene:
        for name, window in {
            "ortho": Window(600, 600, 700, 500),
            "west": Window(600, 600, 350, 500),
            "east": Window(950, 600, 350, 500),
        }.items():
            values = scene.read(window=window)
            profile = {"crs": scene.crs, "transform": scene.window_transform(window)}
            write(folder / f"{name}.tif", values, **profile, photometric="RGB")
            if name == "ortho":
                for band, color in zip(values, ("red", "green", "blue"), strict=True):
                    write(folder / f"{color}.tif", band[None], **profile)
                left, bottom, right, top = rasterio.windows.bounds(window, scene.transform)
    shape = box(left + 10, bottom + 10, right - 20, top - 15)
    geopandas.GeoSeries([shape], crs="EPSG:3857").to_file(folder / "field.gpkg")
    squares = [box(left + 9 * i + 3, top - 15, left + 9 * i + 9, top - 5) for i in range(8)]
    drawn = {"class": ["building"] * 4 + ["background"] * 4}
    geopandas.GeoDataFrame(drawn, geometry=squares, crs="EPSG:3857").to_file(folder / "drawn.gpkg")
    write_chips(folder / "chips")
    (folder / "mine.yaml").write_text(blocks("yaml")[0], "utf-8")
    return folder


def write_chips(folder):
    """Write four pairs of an image and a mask of classes 0 and 1."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(4):
        with Image.open(CHIPS / f"{i}.jpg") as image:
            image.save(folder / "images" / f"{i}.png")
            bright = np.asarray(image.convert("L")) > 120
        Image.fromarray(bright.astype(np.uint8)).save(folder / "masks" / f"{i}.png")


def write(path, values, **profile):
    count, height, width = values.shape
    profile |= {"driver": "GTiff", "dtype": "uint8"}
    with rasterio.open(path, "w", height=height, width=width, count=count, **profile) as dataset:
        dataset.write(values)


def test_the_commands_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    found = commands()
    assert len(found) >= 10
    for command in found:
        if command[0] == "geoseg":
            command = [*command, *QUICK.get(command[1], [])]
            with pytest.raises(SystemExit) as caught:
                main(command[1:])
            assert not caught.value.code, (command, capsys.readouterr().err)
        else:
            assert command[0] == "rio"
            code = "from rasterio.rio.main import main_group; main_group()"
            subprocess.run([sys.executable, "-c", code, *command[1:]], check=True)
    for made in (
        "buildings.tif",
        "sure.tif",
        "look.png",
        "both.tif",
        "scene.tif",
        "shared.tif",
        "mine.tif",
    ):
        assert (folder / made).stat().st_size > 1000, made
    assert same_map(folder / "shared.tif", folder / "buildings.tif")
    assert same_map(folder / "both.tif", folder / "buildings.tif")
    assert same_map(folder / "scene.tif", folder / "buildings.tif")


def same_map(one, other):
    with rasterio.open(one) as a, rasterio.open(other) as b:
        return bool((a.read() == b.read()).all())


def test_the_python_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
    assert (folder / "brightness.tif").exists()


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    local = [t for t in targets if "://" not in t]
    assert [t for t in local if not (ROOT / t).exists()] == []
