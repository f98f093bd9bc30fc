import warnings

import geopandas
import numpy as np
import pytest
import shapely

from geoseg.config.run import ClassConfig
from geoseg.data.label_polygons import LARGE_POLYGON
from geoseg.data.sample import IGNORE
from geoseg.errors import GeoreferenceError, InputError
from geoseg.types import Window
from tests.data.marks import (
    CLASSES,
    MARK,
    centre_of,
    is_marked,
    north_up,
    pairs_of,
    patch,
    rotated,
    south_up,
    whole,
)

UTM = "EPSG:32633"
FOUR = (ClassConfig(3, "field"), ClassConfig(5, "wood"), ClassConfig(7, "water"))


@pytest.fixture
def scene(make_raster, tmp_path):
    """Return a maker of one image and of vector labels beside it, and what is read of it."""

    def make(polygons, *, fields=None, columns=None, crs=UTM, index=None, suffix=".gpkg", **raster):
        image = {"transform": north_up(0.3), **raster}
        make_raster(np.ones((1, 300, 300), np.uint8), "images/a.tif", **image)
        frame = geopandas.GeoDataFrame(columns or {}, geometry=polygons, crs=crs)
        path = tmp_path / f"labels{suffix}"
        if suffix == ".parquet":
            frame.to_parquet(path)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
                frame.to_file(path)
        pairs = pairs_of(tmp_path / "images", path, **(fields or {}))
        return pairs[patch(pairs, index)] if index else whole(pairs)

    return make


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".fgb", ".parquet"])
def test_a_pixel_is_labelled_when_its_centre_lies_in_a_polygon(scene, suffix):
    crs = "EPSG:4326" if suffix == ".geojson" else UTM
    polygon = geopandas.GeoSeries([MARK], crs=UTM).to_crs(crs)
    sample = scene(polygon, crs=crs, suffix=suffix, fields={"background_id": 0})
    np.testing.assert_array_equal(sample["mask"] == 1, is_marked(north_up(0.3), (300, 300)))
    assert set(np.unique(sample["mask"])) == {0, 1}


@pytest.mark.parametrize("transform", [south_up(0.3, 300), rotated(0.3)])
def test_polygons_meet_scenes_of_any_direction(scene, transform):
    sample = scene([MARK], transform=transform, fields={"background_id": 0})
    np.testing.assert_array_equal(sample["mask"] == 1, is_marked(transform, (300, 300)))


def test_polygons_come_from_another_crs(scene):
    polygon = geopandas.GeoSeries([MARK], crs=UTM).to_crs("EPSG:2180")
    sample = scene(polygon, crs="EPSG:2180", fields={"background_id": 0})
    wanted = is_marked(north_up(0.3), (300, 300))
    np.testing.assert_allclose(centre_of(sample["mask"].numpy() == 1), centre_of(wanted), atol=0.05)


def test_ground_without_a_polygon_is_ignored_unless_it_is_background(scene):
    sample = scene([MARK], fields={"background_id": 0})
    assert set(np.unique(sample["mask"])) == {0, 1}
    sample = scene([MARK], fields={"classes": (ClassConfig(1, "mark"),)})
    assert set(np.unique(sample["mask"])) == {0, IGNORE}


def test_a_pixel_gets_the_same_label_in_any_window(scene):
    all_of_it = scene([MARK.buffer(3.3)], fields={"background_id": 0})["mask"]
    part = scene([MARK.buffer(3.3)], fields={"background_id": 0}, index=Window(90, 95, 64, 64))
    np.testing.assert_array_equal(part["mask"], all_of_it[90:154, 95:159])


@pytest.mark.parametrize(
    ("field", "values"),
    [("id", [3, 5]), ("id", ["3", "5"]), ("id", [3.0, 5.0]), ("kind", ["field", "wood"])],
)
def test_classes_are_given_by_id_or_name(scene, field, values):
    boxes = [shapely.box(500000, 4999910, 500045, 5000000), MARK]
    sample = scene(boxes, columns={field: values}, fields={"class_field": field, "classes": FOUR})
    # The later polygon lies on top of the earlier one.
    assert sample["mask"][0, 0] == 0
    np.testing.assert_array_equal(sample["mask"] == 1, is_marked(north_up(0.3), (300, 300)))
    assert sample["mask"][0, 299] == IGNORE


def test_ignored_names_are_ignored_even_on_background(scene):
    fields = {
        "class_field": "kind",
        "classes": FOUR,
        "ignore": ("unclear",),
        "background_id": 3,
    }
    sample = scene([MARK], columns={"kind": ["unclear"]}, fields=fields)
    assert set(np.unique(sample["mask"])) == {0, IGNORE}


def test_a_large_polygon_is_clipped_without_a_change(scene):
    # A comb whose teeth are narrower than a pixel is wide, so that each pixel counts.
    x = np.linspace(500000, 500090, LARGE_POLYGON)
    y = 4999950 + 30 * np.sin(x * 3)
    polygon = shapely.Polygon([*zip(x, y, strict=True), (500090, 4999900), (500000, 4999900)])
    window = Window(100, 50, 60, 60)
    part = scene([polygon], fields={"background_id": 0}, index=window)["mask"]
    half = shapely.Polygon([*zip(x[::2], y[::2], strict=True)])
    assert shapely.get_num_coordinates(half) < LARGE_POLYGON
    whole_mask = scene([polygon], fields={"background_id": 0})["mask"]
    np.testing.assert_array_equal(part, whole_mask[100:160, 50:110])
    rows, cols = np.indices((300, 300)) + 0.5
    xs, ys = north_up(0.3) @ (cols, rows)
    np.testing.assert_array_equal(whole_mask == 1, shapely.contains_xy(polygon, xs, ys))


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        (
            {"kind": ["wod"]},
            {"class_field": "kind", "classes": FOUR},
            r"field 'kind'; got 'wod'\. Did you mean 'wood'\? Add them to data.classes",
        ),
        (
            {"id": [4]},
            {"class_field": "id", "classes": FOUR},
            r"expected ids or names of data.classes in field 'id'; got '4'",
        ),
        (
            {"kind": [None]},
            {"class_field": "kind", "classes": FOUR},
            r"got 'no value'",
        ),
        (
            {"kind": ["wood"]},
            {"class_field": "class", "classes": FOUR},
            r"expected the field 'class' of data.class_field; it has kind",
        ),
        (
            {"kind": ["wood"]},
            {"classes": FOUR},
            r"which of the 3 classes a polygon has; got none\. Fields: kind",
        ),
        ({}, {"classes": CLASSES}, r"which of the 2 classes"),
        ({}, {"background_id": 9}, r"one of 0, 1; got 9"),
    ],
)
def test_labels_without_a_known_class_are_refused(scene, columns, fields, message):
    with pytest.raises(InputError, match=message):
        scene([MARK], columns=columns, fields=fields)


def test_lines_are_refused(scene):
    with pytest.raises(InputError, match=r"1 of 2 features are LineString\. Buffer lines"):
        scene([MARK, MARK.exterior.simplify(0)], fields={"background_id": 0}, crs=UTM)


def test_a_file_without_features_is_refused(scene):
    with pytest.raises(InputError, match=r"expected polygons; it is empty"):
        scene([], fields={"background_id": 0})


def test_a_file_that_is_no_vector_file_is_named(make_raster, tmp_path):
    make_raster(np.ones((1, 9, 9), np.uint8), "images/a.tif")
    path = tmp_path / "labels.gpkg"
    path.write_text("no")
    with pytest.raises(InputError, match=r"labels\.gpkg' cannot be read: .*[^.]\. Give a vector"):
        pairs_of(tmp_path / "images", path)


def test_polygons_without_crs_are_refused_on_placed_imagery(scene):
    with pytest.raises(GeoreferenceError, match=r"labels\.gpkg' has none\. Assign it"):
        scene([MARK], crs=None, fields={"background_id": 0})


def test_degrees_that_are_none_are_refused(scene):
    with pytest.raises(GeoreferenceError, match=r"have no place in the imagery's CRS"):
        scene([MARK], crs="EPSG:4326", suffix=".gpkg", fields={"background_id": 0})


def test_polygons_elsewhere_are_refused(scene):
    far = shapely.box(600000, 4000000, 600010, 4000010)
    with pytest.raises(InputError, match=r"no image has ground that the labels speak of"):
        scene([far], fields={"classes": (ClassConfig(1, "mark"),)})
