"""Sample points meet the map, and samples that estimate nothing are refused."""

import geopandas
import numpy as np
import pytest

from geoseg.data.sample import IGNORE
from geoseg.errors import GeoreferenceError, InputError
from geoseg.evaluate.points import PointOptions, load_points
from geoseg.evaluate.scene import ClassMap
from geoseg.spec import ClassSpec
from tests.conftest import NORTH_UP

CLASSES = (ClassSpec(0, "land", "#000000"), ClassSpec(5, "water", "#0000ff"))
MAPPED = np.array([[0, 0, 5], [5, 255, 0]], np.uint8)
CENTRES = [(row, col) for row in range(2) for col in range(3)]


@pytest.fixture
def class_map(make_raster):
    return ClassMap(make_raster(MAPPED, "map.tif", nodata=255), CLASSES)


@pytest.fixture
def write(tmp_path):
    def write(places, name="points.gpkg", crs="EPSG:32633", **fields):
        points = [NORTH_UP @ (col + 0.5, row + 0.5) for row, col in places]
        xs, ys = zip(*points, strict=True)
        frame = geopandas.GeoDataFrame(fields, geometry=geopandas.points_from_xy(xs, ys), crs=crs)
        frame.to_file(tmp_path / name)
        return tmp_path / name

    return write


def load(path, class_map, **options):
    return load_points(PointOptions(path, "stratified", **options), class_map.grid.crs, CLASSES)


def test_points_are_counted_by_mapped_and_reference_class(write, class_map):
    path = write(CENTRES, reference=["land", "Water", "5", "water", "land", "0"])
    points = load(path, class_map)
    assert points.reference.tolist() == [0, 1, 1, 1, 0, 0]
    assert points.count(class_map).tolist() == [[2, 1], [0, 2]]


def test_points_in_another_crs_fall_onto_the_same_pixels(write, class_map):
    path = write(CENTRES, truth=[0, 5, 5, 5, 0, 0])
    frame = geopandas.read_file(path).to_crs("EPSG:4326")
    frame.to_file(path.with_suffix(".geojson"))
    points = load(path.with_suffix(".geojson"), class_map, reference_field="truth")
    assert points.count(class_map).tolist() == [[2, 1], [0, 2]]


def test_points_off_the_map_or_without_a_class_are_left_out(write, class_map):
    path = write([*CENTRES, (9, 9)], reference=["land", None, "", "water", "land", "land", "land"])
    points = load(path, class_map)
    assert (points.reference == IGNORE).sum() == 2
    assert points.count(class_map).tolist() == [[2, 0], [0, 1]]


def test_no_point_on_the_map_is_an_error(write, class_map):
    points = load(write([(9, 9), (1, 1)], reference=["land", "land"]), class_map)
    with pytest.raises(InputError, match=r"points on the map with a reference class; none of 2 is"):
        points.count(class_map)


def test_points_of_another_map_are_refused(write, class_map):
    fields = {"reference": ["land"] * 6, "drawn": ["land", "land", "land", "water", None, "land"]}
    points = load(write(CENTRES, **fields), class_map, strata_field="drawn")
    with pytest.raises(InputError) as error:
        points.count(class_map)
    assert "1 of 5 points have another class in it than in field 'drawn'" in str(error.value)


def test_points_of_this_map_are_taken(write, class_map):
    fields = {"reference": ["land"] * 6, "drawn": ["land", "land", "water", 5, None, 0]}
    fields["drawn"] = [str(v) for v in fields["drawn"][:4]] + [None, "0"]
    points = load(write(CENTRES, **fields), class_map, strata_field="drawn")
    assert points.count(class_map).tolist() == [[3, 0], [2, 0]]


def test_fields_and_classes_that_do_not_exist_are_named(write, class_map):
    path = write(CENTRES, seen=["land", "lake", "land", "land", "land", "land"])
    with pytest.raises(InputError, match=r"expected a field 'reference' with classes; it has seen"):
        load(path, class_map)
    with pytest.raises(InputError, match=r"\(0 land, 5 water\) in field 'seen'; got 'lake'"):
        load(path, class_map, reference_field="seen")


def test_what_are_no_points_is_refused(write, class_map, tmp_path):
    path = write(CENTRES, reference=[0] * 6)
    frame = geopandas.read_file(path)
    frame.geometry = frame.buffer(1)
    frame.to_file(tmp_path / "discs.gpkg")
    with pytest.raises(InputError, match=r"expected points; got Polygon"):
        load(tmp_path / "discs.gpkg", class_map)
    with pytest.raises(InputError, match=r"'.*nowhere.gpkg' cannot be read"):
        load(tmp_path / "nowhere.gpkg", class_map)
    (tmp_path / "text.gpkg").write_text("no")
    with pytest.raises(InputError, match=r"cannot be read: .*[^.]\. Give a vector"):
        load(tmp_path / "text.gpkg", class_map)
    with pytest.raises(GeoreferenceError, match=r"the map has none"):
        load_points(PointOptions(path, "simple"), "", CLASSES)
