"""In real QGIS polygons have their classes' names and colours, and the fields of the contract."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geoseg.raster.layer import Layer, pam_text
from geoseg.spec import ClassSpec
from geoseg.vector import vectorize_raster

SCRIPT = Path(__file__).parent / "layer_style.py"
CLASSES = (
    ClassSpec(0, "grass", "#1a9641"),
    ClassSpec(1, "Gebäude & Höfe", "#d7301f"),
    ClassSpec(3, "water", "#2c7bb6"),
)
FIELDS = ["class_id", "class_name", "area_m2", "perim_m", "confidence", "on_edge"]


@pytest.mark.qgis
def test_layers_open_named_and_coloured(make_raster, tmp_path, qgis_python):
    ids = np.zeros((60, 60), np.uint8)
    ids[5:25, 5:25], ids[30:, 30:], ids[50:, :10] = 1, 3, 255
    class_map = make_raster(ids, "map.tif", nodata=255)
    layer = Layer("class_map", "uint8", 255, classes=CLASSES)
    class_map.with_name("map.tif.aux.xml").write_text(pam_text(layer), encoding="utf-8")
    # QGIS 3.22 has no driver for GeoParquet.
    paths = [tmp_path / f"layer{s}" / f"layer{s}" for s in (".gpkg", ".shp", ".fgb", ".geojson")]
    for path in paths:
        vectorize_raster(class_map, path)
    picture = tmp_path / "picture.png"
    done = subprocess.run(
        [qgis_python, str(SCRIPT), str(picture), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for path, found in zip(paths, json.loads(done.stdout.splitlines()[-1])["layers"], strict=True):
        assert found["renderer"] == "categorizedSymbol", path
        assert found["rows"] == [[c.id, c.name, c.color] for c in CLASSES]
        assert found["fields"] == FIELDS
        assert found["features"] == 3
        assert found["crs"] == ("EPSG:4326" if path.suffix == ".geojson" else "EPSG:32633")
    shown = np.asarray(Image.open(picture).convert("RGB"))
    assert "#{:02x}{:02x}{:02x}".format(*shown[100, 100]) == CLASSES[1].color
    assert "#{:02x}{:02x}{:02x}".format(*shown[300, 300]) == CLASSES[2].color
