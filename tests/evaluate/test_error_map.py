"""The error map says what was taken for what, opens anywhere, and is whole or absent."""

import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from geoseg.data.sample import IGNORE
from geoseg.errors import InputError
from geoseg.evaluate.error_map import ErrorCodes, open_error_map, publish_error_map
from geoseg.raster.gdal import quiet_georeference
from geoseg.raster.info import inspect_raster
from geoseg.spec import ClassSpec
from geoseg.types import Window
from tests.conftest import ROOT


def classes(count):
    return tuple(
        ClassSpec(k, f"class {k}", f"#{k * 37 % 256:02x}{k * 91 % 256:02x}40") for k in range(count)
    )


TARGET = np.array([[0, 1, 2], [1, IGNORE, 2]], np.uint8)
PREDICTED = np.array([[0, 2, 2], [0, 1, 1]], np.uint8)


def test_pairs_of_few_classes_have_values_of_their_own():
    codes = ErrorCodes(classes(3))
    assert codes.encode(TARGET, PREDICTED).tolist() == [[0, 1 + 3 + 2, 0], [1 + 3, 255, 1 + 6 + 1]]
    legend = {c.id: c for c in codes.legend()}
    assert legend[0].name == "right"
    assert legend[6].name == "class 1, mapped as class 2"
    assert len(legend) == 1 + 6
    assert len({c.color for c in legend.values()}) == 7


def test_the_legend_lists_what_occurs():
    codes = ErrorCodes(classes(3))
    confusion = np.zeros((3, 3), np.int64)
    confusion[1, 2] = confusion[0, 0] = 1
    assert [c.id for c in codes.legend(confusion)] == [0, 6]


def test_labels_of_many_classes_have_values():
    codes = ErrorCodes(classes(16))
    assert codes.encode(TARGET, PREDICTED).tolist() == [[0, 2, 0], [2, 255, 3]]
    assert codes.legend()[2].name == "class 1, mapped as another class"


def test_of_too_many_classes_right_and_wrong_are_told():
    codes = ErrorCodes(classes(254))
    assert codes.encode(TARGET, PREDICTED).tolist() == [[0, 1, 0], [1, 255, 1]]
    assert [c.name for c in codes.legend()] == ["right", "wrong"]


@pytest.fixture
def georef(make_raster):
    path = make_raster(np.zeros((700, 600), np.uint8), "map.tif")
    with rasterio.open(path) as dataset:
        return inspect_raster(dataset, str(path)).georef


def test_the_map_is_a_cog_with_named_values(tmp_path, georef):
    codes = ErrorCodes(classes(3))
    rng = np.random.default_rng(0)
    target, predicted = rng.integers(0, 3, (2, 700, 600)).astype(np.uint8)
    path = tmp_path / "error_map.tif"
    with open_error_map(path, codes, georef, (700, 600)) as writer:
        for row in range(0, 700, 512):
            part = slice(row, min(row + 512, 700))
            writer.add(Window(row, 0, part.stop - row, 600), target[part], predicted[part])
    confusion = np.ones((3, 3), np.int64)
    confusion[2, 1] = 0
    publish_error_map(path, codes, confusion)
    assert cog_validate(path, quiet=True)[0]
    with rasterio.open(path) as dataset:
        assert (dataset.read(1) == codes.encode(target, predicted)).all()
        assert dataset.nodata == 255
        assert dataset.transform == georef.transform
        assert dataset.crs == georef.crs
        assert dataset.colormap(1)[0] == (0xE8, 0xE8, 0xE8, 255)
    names = sorted(p.name for p in tmp_path.iterdir() if p.name != "map.tif")
    assert names == ["error_map.qml", "error_map.tif", "error_map.tif.aux.xml"]
    style = (tmp_path / "error_map.qml").read_text("utf-8")
    assert 'label="class 1, mapped as class 2"' in style
    assert "class 2, mapped as class 1" not in style


def test_what_a_killed_run_left_beside_the_map_goes_with_the_next_one(tmp_path, georef):
    codes, path = ErrorCodes(classes(3)), tmp_path / "error_map.tif"
    for name in ("part.tif", "part.tif.aux.xml", "part.cog", "part.cog.vrt", "part.cog.ovr-9.tif"):
        (tmp_path / f".error_map.{name}").touch()
    values = np.zeros((700, 600), np.uint8)
    with open_error_map(path, codes, georef, values.shape) as writer:
        assert [p.name for p in tmp_path.glob(".*")] == [".error_map.part.tif"]
        writer.add(Window(0, 0, 700, 600), values, values)
    publish_error_map(path, codes, np.ones((3, 3), np.int64))
    assert cog_validate(path, quiet=True)[0]
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("kind", ["gcps", "rpcs"])
def test_control_points_and_rpcs_are_kept(tmp_path, kind):
    name = {"gcps": "byte_gcp.tif", "rpcs": "byte_rpc.tif"}[kind]
    source = ROOT / "tests" / "data" / "zoo" / name
    with quiet_georeference(), rasterio.open(source) as dataset:
        given = inspect_raster(dataset, str(source)).georef
    path, codes = tmp_path / "error_map.tif", ErrorCodes(classes(3))
    with open_error_map(path, codes, given, TARGET.shape) as writer:
        writer.add(Window(0, 0, *TARGET.shape), TARGET, PREDICTED)
    publish_error_map(path, codes, np.ones((3, 3), np.int64))
    with quiet_georeference(), rasterio.open(path) as dataset:
        made = inspect_raster(dataset, str(path)).georef
    assert given.gcps if kind == "gcps" else given.rpcs
    assert [p.asdict() | {"id": 0} for p in made.gcps] == [
        p.asdict() | {"id": 0} for p in given.gcps
    ]
    assert made.gcps_crs == given.gcps_crs
    assert (made.rpcs and made.rpcs.to_gdal()) == (given.rpcs and given.rpcs.to_gdal())
    assert made.transform == given.transform


def test_a_stopped_walk_leaves_nothing_and_keeps_its_own_error(tmp_path, georef):
    path = tmp_path / "error_map.tif"
    with pytest.raises(InputError, match="labels are broken"):
        with open_error_map(path, ErrorCodes(classes(3)), georef, (700, 600)):
            raise InputError("labels are broken")
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]
