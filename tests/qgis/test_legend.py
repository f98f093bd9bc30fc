"""In real QGIS a class map's legend has exactly the model's classes, named and coloured."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from geoseg.config import PredictOptions
from geoseg.errors import InterruptedRunError
from geoseg.listener import Listener
from geoseg.predict import predict_raster
from tests.conftest import levels_model

CLASSES = 5
SCRIPT = Path(__file__).parent / "legend.py"


def open_in_qgis(python, *paths):
    done = subprocess.run(
        [python, str(SCRIPT), *map(str, paths)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["legends"]


@pytest.fixture
def class_map(make_raster, tmp_path):
    values = (np.arange(300)[:, None] // 40 + np.arange(280) // 60) % CLASSES
    raster = make_raster(values.astype(np.uint8))
    return predict_raster(levels_model(CLASSES), raster, tmp_path / "map.tif").outputs.class_map


def expected_rows():
    return [[c.id, c.name, c.color] for c in levels_model(CLASSES).spec.classes]


@pytest.mark.qgis
def test_the_style_file_gives_every_class_its_row(class_map, qgis_python):
    (found,) = open_in_qgis(qgis_python, class_map)
    assert found["renderer"] == "paletted"
    assert found["rows"] == expected_rows()
    assert (found["crs"], found["nodata"], found["size"]) == ("EPSG:32633", 255, [280, 300])
    assert found["extent"] == [500000.0, 5000000.0]


@pytest.mark.qgis
def test_without_the_style_file_the_colour_table_gives_the_same_rows(class_map, qgis_python):
    class_map.with_suffix(".qml").unlink()
    (found,) = open_in_qgis(qgis_python, class_map)
    assert found["rows"] == expected_rows()


@pytest.mark.qgis
def test_an_unfinished_map_opens_with_its_classes(make_raster, tmp_path, qgis_python):
    class StopAfterOne(Listener):
        def progress(self, done, total, pixels_done):
            if done > total // 2:
                raise InterruptedRunError("stop")

    raster = make_raster(np.zeros((300, 280), np.uint8))
    options = PredictOptions(tile_size_px=64, overlap_px=16)
    with pytest.raises(InterruptedRunError):
        predict_raster(
            levels_model(CLASSES),
            raster,
            tmp_path / "map.tif",
            options=options,
            listener=StopAfterOne(),
        )
    (found,) = open_in_qgis(qgis_python, tmp_path / "map.tif.parts" / "class_map.vrt")
    assert found["rows"] == expected_rows()


@pytest.mark.qgis
def test_confidence_is_shown_as_grey(make_raster, tmp_path, qgis_python):
    raster = make_raster(np.zeros((300, 280), np.uint8))
    options = PredictOptions(confidence=tmp_path / "confidence.tif")
    predict_raster(levels_model(CLASSES), raster, tmp_path / "map.tif", options=options)
    (found,) = open_in_qgis(qgis_python, tmp_path / "confidence.tif")
    assert (found["renderer"], found["nodata"]) == ("singlebandgray", 255)
