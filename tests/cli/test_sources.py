"""Several rasters to one map, and a STAC item as input."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.conftest import NORTH_UP


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.transform


@pytest.fixture
def whole_map(geoseg, model, scene, tmp_path):
    out = tmp_path / "whole.tif"
    assert geoseg("predict", model, scene, out).code == 0
    return read(out)


def bands_of(make_raster, scene, names=("red", "green", "blue")):
    values, _ = read(scene)
    return [
        make_raster(v, f"{label}.tif", descriptions=(label,))
        for label, v in zip(names, values, strict=True)
    ]


def test_a_mosaic_gives_the_map_of_the_whole(
    geoseg, model, scene, make_raster, tmp_path, whole_map
):
    values, _ = read(scene)
    parts = [
        make_raster(
            np.ascontiguousarray(values[:, :, first:stop]),
            f"part{first}.tif",
            transform=NORTH_UP @ Affine.translation(first, 0),
        )
        for first, stop in ((0, 70), (70, 130))
    ]
    done = geoseg("predict", model, "--mosaic", *parts, tmp_path / "m.tif", "--progress", "json")
    assert done.code == 0, done.err
    found, transform = read(tmp_path / "m.tif")
    assert np.array_equal(found, whole_map[0])
    assert transform == whole_map[1]
    assert json.loads(done.lines[-1])["rasters"] == [str(p) for p in parts]


def test_a_stack_gives_the_map_of_the_scene(geoseg, model, scene, make_raster, tmp_path, whole_map):
    files = bands_of(make_raster, scene)
    done = geoseg("predict", model, "--stack", *files, tmp_path / "m.tif")
    assert done.code == 0, done.err
    assert np.array_equal(read(tmp_path / "m.tif")[0], whole_map[0])


def test_a_stack_in_another_order_is_refused(geoseg, model, scene, make_raster, tmp_path):
    red, green, blue = bands_of(make_raster, scene)
    done = geoseg("predict", model, "--stack", blue, green, red, tmp_path / "m.tif")
    assert done.code == 3
    assert "red, green, blue" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mosaic", "--stack", "a.tif", "m.tif"], "give one of both"),
        (["--mosaic", "a.tif", "b.tif", "folder"], "give a .tif file as OUT"),
    ],
)
def test_contradictions_are_usage_errors(geoseg, model, arguments, message):
    done = geoseg("predict", model, *arguments)
    assert done.code == 2
    assert message in done.err


def item(assets):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "scene",
        "geometry": None,
        "properties": {"datetime": "2026-01-01T00:00:00Z"},
        "links": [],
        "assets": assets,
        "stac_extensions": [],
    }


def write_item(path, assets):
    path.write_text(json.dumps(item(assets)))
    return path


def test_a_stac_item_gives_the_model_its_bands(
    geoseg, model, scene, make_raster, tmp_path, whole_map
):
    pytest.importorskip("pystac")
    files = bands_of(make_raster, scene)
    names = {"B02": "blue", "B04": "red", "B03": "green"}
    paths = {p.stem: p for p in files}
    assets = {
        key: {"href": f"./{paths[name].name}", "eo:bands": [{"name": key, "common_name": name}]}
        for key, name in names.items()
    }
    stac = write_item(tmp_path / "item.json", assets)
    done = geoseg("predict", model, stac, tmp_path / "m.tif")
    assert done.code == 0, done.err
    assert np.array_equal(read(tmp_path / "m.tif")[0], whole_map[0])


def test_an_asset_with_all_bands_is_taken_alone(geoseg, model, scene, tmp_path, whole_map):
    pytest.importorskip("pystac")
    bands = [{"name": n} for n in ("red", "green", "blue")]
    stac = write_item(tmp_path / "item.json", {"image": {"href": scene.name, "bands": bands}})
    done = geoseg("predict", model, stac, tmp_path / "m.tif")
    assert done.code == 0, done.err
    assert np.array_equal(read(tmp_path / "m.tif")[0], whole_map[0])


def test_previews_and_other_data_types_are_passed_over(
    geoseg, model, scene, make_raster, tmp_path, whole_map
):
    pytest.importorskip("pystac")
    rgb = [{"name": n} for n in ("red", "green", "blue")]
    assets = {
        "preview": {"href": "none.tif", "roles": ["overview"], "bands": rgb},
        "surface": {"href": "none.tif", "bands": [{**b, "data_type": "uint16"} for b in rgb]},
    }
    assets |= {p.stem: {"href": p.name} for p in bands_of(make_raster, scene)}
    stac = write_item(tmp_path / "item.json", assets)
    done = geoseg("predict", model, stac, tmp_path / "m.tif")
    assert done.code == 0, done.err
    assert np.array_equal(read(tmp_path / "m.tif")[0], whole_map[0])


def test_an_item_that_is_not_there_is_a_sentence(geoseg, model, served, tmp_path):
    pytest.importorskip("pystac")
    for name in (f"{served}/none.json", tmp_path / "none.json"):
        done = geoseg("predict", model, name, tmp_path / "m.tif")
        assert done.code == 3
        assert "expected a raster or a STAC item" in done.err


def test_a_missing_band_is_named(geoseg, model, scene, tmp_path):
    pytest.importorskip("pystac")
    stac = write_item(tmp_path / "item.json", {"red": {"href": scene.name}})
    done = geoseg("predict", model, stac, tmp_path / "m.tif")
    assert done.code == 3
    assert "no asset for green, blue (it has red)" in done.err


def test_other_json_is_refused_in_a_sentence(geoseg, model, tmp_path):
    pytest.importorskip("pystac")
    (tmp_path / "x.json").write_text("{}")
    done = geoseg("predict", model, tmp_path / "x.json", tmp_path / "m.tif")
    assert done.code == 3
    assert "expected a raster or a STAC item" in done.err
    assert "Traceback" not in done.err


@pytest.fixture
def served(tmp_path):
    """Serve the test's folder on loopback and return its address.

    In a process of its own: rasterio holds Python's lock while it waits for an answer.
    """
    command = [sys.executable, str(Path(__file__).parent / "range_server.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.terminate()


def test_an_address_is_read_in_parts(geoseg, model, scene, served, tmp_path, whole_map):
    done = geoseg("predict", model, f"{served}/{scene.name}", tmp_path / "m.tif")
    assert done.code == 0, done.err
    assert np.array_equal(read(tmp_path / "m.tif")[0], whole_map[0])


def test_an_address_without_a_file_is_a_sentence(geoseg, model, served, tmp_path):
    done = geoseg("predict", model, f"{served}/none.tif", tmp_path / "m.tif")
    assert done.code == 3
    assert "none.tif' cannot be opened" in done.err


def test_a_raster_inside_an_archive(geoseg, model, scene, tmp_path, whole_map):
    with zipfile.ZipFile(tmp_path / "scenes.zip", "w") as archive:
        archive.write(scene, "2026 août/scene.tif")
    name = f"/vsizip/{tmp_path}/scenes.zip/2026 août/scene.tif"
    done = geoseg("predict", model, name, tmp_path / "m.tif")
    assert done.code == 0, done.err
    assert np.array_equal(read(tmp_path / "m.tif")[0], whole_map[0])


def test_names_with_spaces_and_letters_of_any_script(geoseg, model, scene, tmp_path, whole_map):
    folder = tmp_path / "ortho fotos (Žluť, 東京)"
    folder.mkdir()
    raster = scene.rename(folder / "my scene & more.tif")
    done = geoseg(
        "predict", model, raster, folder / "die Karte.tif", "--confidence", folder / "c.tif"
    )
    assert done.code == 0, done.err
    assert np.array_equal(read(folder / "die Karte.tif")[0], whole_map[0])
