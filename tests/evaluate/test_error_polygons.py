"""Polygons of the error map hold its errors, all of them, and nothing else."""

import sqlite3

import numpy as np
import pyogrio
import pytest
import rasterio
from affine import Affine

from geoseg.data.sample import IGNORE
from geoseg.errors import InterruptedRunError
from geoseg.evaluate.error_map import ErrorCodes, open_error_map, publish_error_map
from geoseg.evaluate.error_polygons import write_error_polygons
from geoseg.listener import Listener
from geoseg.raster.info import inspect_raster
from geoseg.spec import ClassSpec
from geoseg.types import Window
from tests.conftest import NORTH_UP

CLASSES = tuple(
    ClassSpec(k, name, color)
    for k, (name, color) in enumerate(
        [("water", "#0000ff"), ("road & rail", "#808080"), ("house", "#ff0000")]
    )
)
SHAPE = (60, 70)
PLACES = {
    "north_up": {"transform": NORTH_UP},
    "rotated": {"transform": NORTH_UP @ Affine.rotation(30)},
    "no_crs": {"crs": None, "transform": None},
}


class Heard(Listener):
    def __init__(self):
        self.said = []

    def start(self, plan):
        raise AssertionError("the plan is the prediction's")

    def log(self, level, message):
        self.said.append(level)


@pytest.fixture
def write(make_raster, tmp_path):
    """Return a function that writes both kinds of file and returns the layer."""

    def write(target, predicted, listener=None, classes=CLASSES, **place):
        path = make_raster(np.zeros(SHAPE, np.uint8), "map.tif", **place)
        with rasterio.open(path) as dataset:
            georef = inspect_raster(dataset, str(path)).georef
        codes, error_map = ErrorCodes(classes), tmp_path / "error_map.tif"
        with open_error_map(error_map, codes, georef, SHAPE) as writer:
            writer.add(Window(0, 0, *SHAPE), target, predicted)
        known = target != IGNORE
        confusion = np.zeros((len(classes),) * 2, np.int64)
        np.add.at(confusion, (target[known], predicted[known]), 1)
        publish_error_map(error_map, codes, confusion)
        return write_error_polygons(
            error_map,
            tmp_path / "errors.gpkg",
            codes.legend(confusion),
            max_memory_bytes=10**9,
            listener=listener or Heard(),
        )

    return write


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    target, predicted = rng.integers(0, 3, (2, *SHAPE)).astype(np.uint8)
    target[:20] = IGNORE
    predicted[target == 2] = 2  # one class without an error
    return target, predicted


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_areas_by_class_are_those_of_the_pixels(write, scene, tmp_path, place):
    layer = pyogrio.read_dataframe(write(*scene, **place), layer="errors")
    with rasterio.open(tmp_path / "error_map.tif") as dataset:
        values, pixel_area = dataset.read(1), abs(dataset.transform.determinant)
        assert layer.crs == dataset.crs
    found = layer.geometry.area.groupby(layer["class_id"]).sum()
    codes, counts = np.unique(values[(values != 0) & (values != 255)], return_counts=True)
    assert found.index.tolist() == codes.tolist()
    np.testing.assert_allclose(found.to_numpy(), counts * pixel_area, rtol=1e-6)


def test_errors_are_named_and_coloured_as_in_the_map(write, scene):
    path = write(*scene)
    layer = pyogrio.read_dataframe(path, layer="errors")
    names = dict(zip(layer["class_id"], layer["class_name"], strict=True))
    legend = {c.id: c for c in ErrorCodes(CLASSES).legend()}
    assert names == {i: legend[i].name for i in (2, 3, 4, 6)}
    assert names[2] == "water, mapped as road & rail"
    with sqlite3.connect(path) as base:
        ((name, style),) = base.execute("SELECT f_table_name, styleQML FROM layer_styles")
    base.close()
    assert name == "errors"
    assert 'label="water, mapped as road &amp; rail"' in style
    assert 'value="0"' not in style
    for i in names:
        rgb = ",".join(str(int(legend[i].color[k : k + 2], 16)) for k in (1, 3, 5))
        assert f'name="color" value="{rgb},255"' in style


def test_a_map_without_errors_makes_an_empty_layer(write, scene):
    full = pyogrio.read_info(write(*scene), layer="errors")
    right = scene[1].copy()
    empty = pyogrio.read_info(write(right, right), layer="errors")
    assert (full["features"] > 0, empty["features"]) == (True, 0)
    for key in ("layer_name", "geometry_type", "crs"):
        assert empty[key] == full[key]
    assert empty["fields"].tolist() == full["fields"].tolist()
    assert empty["dtypes"].tolist() == full["dtypes"].tolist()


def test_many_classes_have_an_error_for_each_label(write, scene):
    many = tuple(ClassSpec(k, f"class {k}", f"#{k:02x}4080") for k in range(20))
    layer = pyogrio.read_dataframe(write(*scene, classes=many), layer="errors")
    assert set(layer["class_name"]) == {f"class {k}, mapped as another class" for k in (0, 1)}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_only_warnings_are_passed_on(write, scene):
    placed, bare = Heard(), Heard()
    write(*scene, listener=placed)
    write(*scene, listener=bare, **PLACES["no_crs"])
    assert (placed.said, bare.said) == ([], ["warning"])


def test_a_stopped_run_leaves_no_layer(write, scene, tmp_path):
    class Stops(Listener):
        def check(self):
            raise InterruptedRunError("stopped")

    with pytest.raises(InterruptedRunError):
        write(*scene, listener=Stops())
    assert [p for p in tmp_path.iterdir() if "errors" in p.name] == []
