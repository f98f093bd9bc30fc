"""Labels come onto the map's grid by its pixels' centres, and misfits are sentences."""

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine

from geoseg.data.patch_reader import grid_of
from geoseg.data.sample import IGNORE
from geoseg.errors import GeoreferenceError, InputError, UsageError
from geoseg.evaluate.labels import LabelOptions, find_class, open_labels
from geoseg.raster.info import inspect_raster
from geoseg.raster.reader import open_raster
from geoseg.spec import ClassSpec
from geoseg.types import Window
from tests.conftest import NORTH_UP

CLASSES = (
    ClassSpec(0, "background", "#000000"),
    ClassSpec(3, "Building", "#ff0000"),
    ClassSpec(7, "road", "#00ff00"),
)
IDS = np.array([0, 3, 7], np.uint8)
ALL = Window(0, 0, 20, 30)


@pytest.fixture
def grid(make_raster):
    path = make_raster(np.zeros((20, 30), np.uint8), "map.tif")
    with open_raster(str(path)) as dataset:
        return grid_of(inspect_raster(dataset, str(path)))


def channels(seed=0, shape=(20, 30)):
    return np.random.default_rng(seed).integers(0, 3, shape)


def box(row, col, row_end, col_end):
    corners = [(col, row), (col_end, row), (col_end, row_end), (col, row_end)]
    return shapely.Polygon([NORTH_UP @ corner for corner in corners])


def write_polygons(path, shapes, crs="EPSG:32633", **fields):
    geopandas.GeoDataFrame(fields, geometry=shapes, crs=crs).to_file(path)
    return path


def test_ids_of_a_raster_become_channels(make_raster, grid):
    expected = channels()
    path = make_raster(IDS[expected], "labels.tif")
    labels = open_labels(path, grid, CLASSES, LabelOptions())
    assert (labels.read(ALL) == expected).all()
    assert (labels.read(Window(3, 5, 10, 7)) == expected[3:13, 5:12]).all()


def test_nodata_the_ignore_index_and_ground_outside_are_not_scored(make_raster, grid):
    values = IDS[channels()][:15]
    values[0, 0], values[0, 1], values[0, 2] = 255, 99, 42
    path = make_raster(values, "labels.tif", nodata=99)
    read = open_labels(path, grid, CLASSES, LabelOptions(ignore=(42,))).read(ALL)
    assert (read[0, :3] == IGNORE).all()
    assert (read[15:] == IGNORE).all()
    assert (read == IGNORE).sum() == 3 + 5 * 30


def test_labels_twice_as_fine_give_what_the_centre_lies_in(make_raster, grid):
    fine = channels(shape=(40, 60))
    path = make_raster(IDS[fine], "fine.tif", transform=NORTH_UP @ Affine.scale(0.5))
    read = open_labels(path, grid, CLASSES, LabelOptions()).read(ALL)
    assert (read == fine[1::2, 1::2]).all()


def test_a_class_can_be_left_out_by_name_or_id(make_raster, grid):
    expected = channels()
    path = make_raster(IDS[expected], "labels.tif")
    read = open_labels(path, grid, CLASSES, LabelOptions(ignore=("ROAD", 0))).read(ALL)
    assert (read == np.where(expected == 1, 1, IGNORE)).all()


def test_an_unknown_id_is_named_with_its_option(make_raster, grid):
    path = make_raster(np.full((20, 30), 9, np.uint8), "labels.tif")
    with pytest.raises(InputError) as error:
        open_labels(path, grid, CLASSES, LabelOptions()).read(ALL)
    assert "expected class ids 0, 3, 7; got 9 (600 px)" in str(error.value)
    assert "--ignore" in str(error.value)
    assert "data." not in str(error.value)


def test_options_of_polygons_are_refused_for_rasters(make_raster, grid):
    path = make_raster(np.zeros((20, 30), np.uint8), "labels.tif")
    with pytest.raises(UsageError, match=r"--background is for polygons; the labels .* a raster"):
        open_labels(path, grid, CLASSES, LabelOptions(background="background"))


def test_labels_elsewhere_are_refused_with_both_extents(make_raster, grid):
    path = make_raster(
        np.zeros((20, 30), np.uint8), "far.tif", transform=Affine.translation(9e3, 0) @ NORTH_UP
    )
    with pytest.raises(InputError) as error:
        open_labels(path, grid, CLASSES, LabelOptions())
    assert "expected labels that overlap the map" in str(error.value)
    assert "covers 509000, 4999994, 509009, 5000000" in str(error.value)
    assert "the map covers 500000, 4999994, 500009, 5000000" in str(error.value)


def test_labels_without_a_crs_are_refused(make_raster, grid):
    path = make_raster(np.zeros((20, 30), np.uint8), "bare.tif", crs=None)
    with pytest.raises(GeoreferenceError, match=r"'.*bare.tif' has none and the map has one"):
        open_labels(path, grid, CLASSES, LabelOptions())


def test_polygons_count_by_the_centres_of_pixels(tmp_path, grid):
    shapes = [box(2, 2, 10, 10), box(5.4, 5.6, 15, 20)]
    path = write_polygons(tmp_path / "p.gpkg", shapes, kind=["Building", "7"])
    labels = open_labels(path, grid, CLASSES, LabelOptions("kind", "background"))
    expected = np.zeros((20, 30), np.uint8)
    expected[2:10, 2:10] = 1
    expected[5:15, 6:20] = 2
    assert (labels.read(ALL) == expected).all()
    assert (labels.read(Window(4, 3, 9, 11)) == expected[4:13, 3:14]).all()
    assert labels.note == ""


def test_without_a_background_ground_outside_is_not_scored_and_that_is_said(tmp_path, grid):
    path = write_polygons(tmp_path / "p.gpkg", [box(2, 2, 4, 4)], kind=[3])
    labels = open_labels(path, grid, CLASSES, LabelOptions("kind"))
    assert (labels.read(ALL) == IGNORE).sum() == 600 - 4
    assert labels.note.startswith("only 'Building' is labelled")
    assert "--background CLASS" in labels.note


def test_polygons_without_a_field_are_the_only_class_there_is(tmp_path, grid):
    path = write_polygons(tmp_path / "p.gpkg", [box(2, 2, 4, 4)], osm=[3])
    labels = open_labels(path, grid, CLASSES[:2], LabelOptions(background=0))
    assert (labels.read(ALL) == 1).sum() == 4
    with pytest.raises(InputError, match=r"expected --class-field, the field that tells which"):
        open_labels(path, grid, CLASSES, LabelOptions(background=0))


def test_a_field_or_class_that_does_not_exist_is_named(tmp_path, grid):
    path = write_polygons(tmp_path / "p.gpkg", [box(2, 2, 4, 4)], kind=["tree"])
    with pytest.raises(InputError, match=r"expected the field 'sort' of --class-field; it has kin"):
        open_labels(path, grid, CLASSES, LabelOptions("sort"))
    with pytest.raises(InputError, match=r"got 'tree'"):
        open_labels(path, grid, CLASSES, LabelOptions("kind"))
    with pytest.raises(UsageError) as error:
        open_labels(path, grid, CLASSES, LabelOptions("kind", background="sea"))
    assert str(error.value) == (
        "--background: expected one of 0 background, 3 Building, 7 road; got 'sea'."
    )


def test_classes_are_found_by_name_before_id():
    assert find_class(" BUILDING ", CLASSES) == 1
    assert find_class(7, CLASSES) == 2
    assert find_class("1", CLASSES) is None


def test_banepa_polygons_give_the_masks_that_were_made_from_them(shared_data):
    folder = shared_data / "banepa-buildings" / "val"
    mask = sorted((folder / "masks").glob("*.tif"))[3]
    with open_raster(str(mask)) as dataset:
        grid = grid_of(inspect_raster(dataset, str(mask)))
        expected = dataset.read(1)
    labels = open_labels(
        folder / "osm_buildings.geojson", grid, CLASSES[:2], LabelOptions(background="background")
    )
    read = labels.read(Window(0, 0, *expected.shape))
    assert (read != expected).mean() < 1e-4
