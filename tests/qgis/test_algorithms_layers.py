"""Which file stands behind a layer, what is refused, and which options the engine is given."""

import shutil

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import box

from tests.qgis.session import SCRIPTS, qgis_environment, run_script

pytestmark = pytest.mark.qgis
LEFT, TOP, SIZE_M = 9520500.0, 3202700.0, 0.25
HEIGHT, WIDTH = 40, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers") / "Größe 1"
    folder.mkdir()
    write_rasters(folder)
    squares = [box(LEFT + i, TOP - 5, LEFT + i + 0.5, TOP - 4) for i in range(4)]
    labels = geopandas.GeoDataFrame({"class": list("abcd")}, geometry=squares, crs="EPSG:3857")
    labels.to_file(folder / "labels.gpkg", layer="labels")
    shutil.copy(SCRIPTS / "stand_in.py", folder / "stand_in.py")
    return folder


@pytest.fixture(scope="module")
def steps(folder, qgis_python, tmp_path_factory):
    """Return what came of each step of layers.py, run once in one QGIS."""
    environment = qgis_environment(tmp_path_factory.mktemp("profile"), folder / "stand_in.py")
    return run_script(qgis_python, "layers.py", folder, environment=environment, timeout_s=300)


def write_rasters(folder):
    values = np.random.default_rng(0).integers(1, 255, (3, HEIGHT, WIDTH), dtype=np.uint8)
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 3,
        "height": HEIGHT,
        "width": WIDTH,
        "transform": from_origin(LEFT, TOP, SIZE_M, SIZE_M),
    }
    write(folder / "image.tif", values, {**profile, "crs": "EPSG:3857"})
    write(folder / "no_crs.tif", values, profile)
    package = {**profile, "driver": "GPKG", "crs": "EPSG:3857", "raster_table": "picture"}
    write(folder / "raster.gpkg", values, {**package, "tile_format": "PNG"})
    tile = np.full((4, 256, 256), 255, np.uint8)
    tile[:3] = np.array([200, 100, 50])[:, None, None]
    for z in range(3):
        for x in range(2**z):
            (folder / "tiles" / str(z) / str(x)).mkdir(parents=True)
            for y in range(2**z):
                path = folder / "tiles" / str(z) / str(x) / f"{y}.png"
                # A place is asked for by rasterio; web tiles have none.
                place = {"transform": from_origin(0, 256, 1, 1), "width": 256, "height": 256}
                write(path, tile, {"driver": "PNG", "dtype": "uint8", "count": 4, **place})
    for side in folder.glob("tiles/**/*.xml"):
        side.unlink()


def write(path, values, profile):
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(values)


def predict_of(step):
    (call,) = [c for c in step["calls"] if c["command"] == "predict"]
    return call


def said(step):
    return "\n".join([step["error"], *step["lines"]])


def exported(step):
    """Return the exported raster's values without alpha, CRS, resolution and colours."""
    with rasterio.open(predict_of(step)["exported"]) as raster:
        colours = [c.name for c in raster.colorinterp]
        return raster.read(), raster.crs, raster.res, colours


def image_values(folder):
    with rasterio.open(folder / "image.tif") as raster:
        return raster.read()


def test_a_file_is_handed_over_as_it_is(steps, folder):
    call = predict_of(steps["plain_file"])
    assert call["words"] == ["some-model", str(folder / "image.tif"), str(folder / "map.tif")]
    assert not [a for a in call["arguments"] if a.startswith(("--bounds", "--aoi", "--bands"))]


def test_a_map_that_is_there_is_replaced_and_one_that_is_not_is_made(steps):
    assert "--overwrite" not in predict_of(steps["plain_file"])["arguments"]
    assert "--overwrite" in predict_of(steps["part_of_a_file"])["arguments"]


def test_an_extent_is_given_in_the_rasters_crs(steps):
    (bounds,) = [
        a for a in predict_of(steps["part_of_a_file"])["arguments"] if a.startswith("--bounds=")
    ]
    corners = [float(v) for v in bounds.removeprefix("--bounds=").split(",")]
    assert corners == pytest.approx([LEFT + 4, TOP - 7.5, LEFT + 12, TOP - 2.5])


def test_an_extent_outside_of_the_raster_is_refused(steps):
    assert "outside of the layer 'image'" in said(steps["outside"])
    assert steps["outside"]["calls"] == []


def test_every_option_reaches_the_command_line(steps, folder):
    arguments = set(predict_of(steps["all_options"])["arguments"])
    assert {
        *("--bands=3,1,2", "--gsd=0.25", "--tta=flips", "--overlap=32", "--tile-size=256"),
        *("--batch-size=2", "--precision=fp32", "--device=cpu", "--max-memory=2.0GB"),
        f"--confidence={folder / 'confidence.tif'}",
    } <= arguments


def test_only_selected_polygons_are_handed_over(steps, folder):
    assert steps["selected_polygons"]["error"] == ""
    found = geopandas.read_file(folder / "aoi.gpkg")
    assert len(found) == 2
    assert found.crs.to_epsg() == 3857


def test_polygons_without_crs_are_refused_by_name(steps):
    assert "'drawn' has no CRS" in said(steps["memory_polygons_without_crs"])


@pytest.mark.parametrize("name", ["memory_raster", "virtual_text", "raster_in_geopackage"])
def test_a_layer_that_is_no_file_is_exported_whole_and_unchanged(steps, folder, name):
    assert steps[name]["error"] == "", said(steps[name])
    values, crs, resolution, colours = exported(steps[name])
    assert crs.to_epsg() == 3857
    assert resolution == pytest.approx((SIZE_M, SIZE_M))
    rgb = [values[i] for i, colour in enumerate(colours) if colour != "alpha"]
    np.testing.assert_array_equal(rgb, image_values(folder))


def test_a_virtual_file_is_handed_over_as_it_is(steps, folder):
    assert predict_of(steps["virtual_file"])["words"][1] == str(folder / "virtual.vrt")


def test_a_crs_that_was_set_in_qgis_counts(steps, folder):
    values, crs, _, _ = exported(steps["crs_set_in_qgis"])
    assert crs.to_epsg() == 32645
    np.testing.assert_array_equal(values[:3], image_values(folder))


def test_a_web_map_is_exported_at_the_resolution_that_was_asked_for(steps):
    assert steps["web_map"]["error"] == "", said(steps["web_map"])
    values, crs, resolution, colours = exported(steps["web_map"])
    assert crs.to_epsg() == 3857
    assert resolution == pytest.approx((20, 20), rel=0.02)
    assert colours == ["red", "green", "blue", "alpha"]
    assert values[:, 5, 5].tolist() == [200, 100, 50, 255]


def test_a_web_map_without_a_resolution_is_exported_at_the_models(steps):
    _, _, resolution, _ = exported(steps["web_map_at_the_models_resolution"])
    assert resolution == pytest.approx((0.2, 0.2), rel=0.02)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("web_map_without_extent", "'web map' is a web map. Give the extent"),
        ("web_map_too_large", "Give a smaller extent"),
        ("web_map_without_tiles", "'web map' gave no image for this extent"),
        ("web_map_for_teaching", "Teach a model needs a raster file; of the layer 'web map'"),
        ("engines_sentence", "model 'x' expects 3 bands; 'y.tif' has 1. Give --bands, or use a"),
        ("engines_sentence", "In QGIS: Advanced parameters ▸ Bands."),
        ("barred_folder", "Nothing can be written to the folder '/proc'"),
        ("missing_folder", "does not exist. Make it, or choose another."),
        ("other_format", "ending in .tif, .tiff was expected"),
        ("nonsense_resolution", "auto, native or metres per pixel; got 'fine'"),
        ("no_labels", "Labels were expected: polygons, or a raster."),
        ("no_engine", "Settings ▸ Options ▸ geoseg"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason_and_what_to_do(steps, name, sentence):
    assert steps[name]["error"]
    assert sentence in said(steps[name])


def test_a_layer_that_is_no_raster_is_refused(steps):
    assert steps["broken_layer"]["error"]


def test_every_option_of_vectorize_reaches_the_command_line(steps, folder):
    (call,) = steps["vectorize_options"]["calls"]
    assert {
        *("--classes=building,2", "--min-area=4.0", "--fill-holes=2.5", "--simplify=0.5"),
        *("--smooth=auto", "--square-corners=building", "--connectivity=8", "--dst-crs=EPSG:32645"),
        f"--confidence={folder / 'image.tif'}",
    } <= set(call["arguments"])


def test_the_time_left_is_said(steps):
    assert "doing: About 3 min left" in steps["plain_file"]["lines"]


def test_a_file_that_is_no_model_is_named_in_the_list(steps):
    sentences = steps["damaged_models"]
    assert "missing.safetensors' cannot be read" in sentences.pop("missing")
    assert len(sentences) == 4
    for name, sentence in sentences.items():
        assert f"{name}.safetensors' was expected to be a model of geoseg" in sentence


def test_temporary_files_are_gone_after_all_runs(steps):
    assert steps["leftovers"] == []
