"""Layers that are no plain files, refusals and options, with an engine that only writes down.

layers.py FOLDER: holds image.tif, no_crs.tif, labels.gpkg, raster.gpkg and tiles/{z}/{x}/{y}.png.
"""

import os
import sys
from pathlib import Path

import headless
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingContext,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

gdal.UseExceptions()
folder = Path(sys.argv[1])
image = str(folder / "image.tif")
out = str(folder / "map.tif")


def add(layer):
    assert layer.isValid(), layer.source()
    QgsProject.instance().addMapLayer(layer)
    return layer


def segment(layer, **values):
    """Run Segment raster on a layer of the project."""
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    source = layer if isinstance(layer, str) else layer.id()
    values = {"INPUT": source, "MODEL": "some-model", "OUTPUT": out, **values}
    return headless.run("segment", values, context=context)


def plain_file():
    return segment(image)


def part_of_a_file():
    box = QgsRasterLayer(image, "i").extent().scaled(0.5)
    corners = f"{box.xMinimum()},{box.xMaximum()},{box.yMinimum()},{box.yMaximum()}"
    return segment(image, EXTENT=f"{corners} [EPSG:3857]")


def outside():
    return segment(image, EXTENT="0,1,0,1 [EPSG:3857]")


def all_options():
    return segment(
        image,
        BANDS=[3, 1, 2],
        GSD="0.25",
        TTA="flips",
        OVERLAP=32,
        TILE_SIZE=256,
        BATCH_SIZE=2,
        PRECISION="fp32",
        DEVICE="cpu",
        MAX_MEMORY=2,
        CONFIDENCE=str(folder / "confidence.tif"),
    )


def selected_polygons():
    layer = add(QgsVectorLayer(str(folder / "labels.gpkg"), "labels"))
    layer.selectByIds([1, 2])
    return segment(image, AOI=QgsProcessingFeatureSourceDefinition(layer.id(), True))


def memory_polygons_without_crs():
    layer = add(QgsVectorLayer("Polygon", "drawn", "memory"))
    layer.setCrs(QgsCoordinateReferenceSystem())
    return segment(image, AOI=layer.id())


def memory_raster():
    gdal.Translate("/vsimem/in memory.tif", image)
    return segment(add(QgsRasterLayer("/vsimem/in memory.tif", "memory")))


def raster_in_geopackage():
    return segment(add(QgsRasterLayer(f"GPKG:{folder / 'raster.gpkg'}:picture", "package")))


def virtual_file():
    gdal.Translate(str(folder / "virtual.vrt"), image, format="VRT")
    return segment(add(QgsRasterLayer(str(folder / "virtual.vrt"), "vrt")))


def virtual_text():
    made = gdal.Translate("", image, format="VRT")
    text = made.GetMetadata("xml:VRT")[0]
    return segment(add(QgsRasterLayer(text, "virtual")))


def crs_set_in_qgis():
    layer = QgsRasterLayer(str(folder / "no_crs.tif"), "placed")
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32645"))
    return segment(add(layer))


def web_layer(tiles=folder / "tiles"):
    tiles = tiles.as_uri()
    uri = f"type=xyz&url={tiles}/{{z}}/{{x}}/{{y}}.png&zmax=2&zmin=0"
    return add(QgsRasterLayer(uri, "web map", "wms"))


def web_map():
    # 2 km of Web Mercator at 60 degrees north are 1 km of ground.
    return segment(web_layer(), EXTENT="0,2000,8399737,8401737 [EPSG:3857]", GSD="10")


def web_map_at_the_models_resolution():
    return segment(web_layer(), EXTENT="0,40,0,40 [EPSG:3857]")


def web_map_without_extent():
    return segment(web_layer())


def web_map_without_tiles():
    layer = web_layer(folder / "nowhere")
    return segment(layer, EXTENT="0,2000,8399737,8401737 [EPSG:3857]", GSD="10")


def web_map_too_large():
    return segment(web_layer(), EXTENT="0,9000000,0,9000000 [EPSG:3857]", GSD="0.1")


def web_map_for_teaching():
    values = {"INPUT": web_layer().id(), "MODEL": "m", "LABELS": str(folder / "labels.gpkg")}
    out_file = str(folder / "x.safetensors")
    return headless.run("teach", {**values, "CLASS_FIELD": "class", "OUTPUT": out_file})


def broken_layer():
    values = {"INPUT": str(folder / "labels.gpkg"), "MODEL": "m", "OUTPUT": out}
    return headless.run("segment", values)


def engines_sentence():
    return segment(image, OUTPUT=str(folder / "refuse.tif"))


def barred_folder():
    return segment(image, OUTPUT="/proc/map.tif")


def missing_folder():
    return segment(image, OUTPUT=str(folder / "not there" / "map.tif"))


def other_format():
    return segment(image, OUTPUT=str(folder / "map.png"))


def nonsense_resolution():
    return segment(image, GSD="fine")


def no_labels():
    return headless.run("evaluate", {"INPUT": image, "MODEL": "m", "OUTPUT": str(folder / "e")})


def vectorize_options():
    values = {
        "INPUT": image,
        "CLASSES": "building,2",
        "MIN_AREA": 4,
        "FILL_HOLES": 2.5,
        "SIMPLIFY": 0.5,
        "SMOOTH": True,
        "SQUARE_CORNERS": "building",
        "CONNECTIVITY": "8",
        "CONFIDENCE": image,
        "DST_CRS": "EPSG:32645",
        "OUTPUT": str(folder / "p.gpkg"),
    }
    return headless.run("vectorize", values)


def no_engine():
    kept = os.environ.pop("GEOSEG_PYTHON")
    found = segment(image)
    os.environ["GEOSEG_PYTHON"] = kept
    return found


def damaged_models():
    """What the list says of files that are no models, and of none."""
    from geoseg_qgis.models import model_of_file

    contents = {
        "short": b"12",
        "huge": (1 << 60).to_bytes(8, "little"),
        "no_json": (5).to_bytes(8, "little") + b"hello",
        "other": (2).to_bytes(8, "little") + b"{}",
    }
    found = {"missing": model_of_file(str(folder / "missing.safetensors")).description}
    for name, content in contents.items():
        path = folder / f"{name}.safetensors"
        path.write_bytes(content)
        found[name] = model_of_file(str(path)).description
    return found


def leftovers():
    """Temporary folders of the plugin that are still there, after all of the above."""
    from qgis.core import QgsProcessingUtils

    return sorted(p.name for p in Path(QgsProcessingUtils.tempFolder()).glob("geoseg_*"))


STEPS = (
    *(plain_file, part_of_a_file, outside, all_options, selected_polygons),
    *(memory_polygons_without_crs, memory_raster, raster_in_geopackage, virtual_file, virtual_text),
    *(crs_set_in_qgis, web_map, web_map_at_the_models_resolution, web_map_without_extent),
    *(web_map_too_large, web_map_without_tiles, web_map_for_teaching, broken_layer),
    *(engines_sentence, barred_folder),
    *(missing_folder, other_format, nonsense_resolution, no_labels, vectorize_options),
    *(no_engine,),
)
calls = folder / "calls.jsonl"
steps = {}
for step in STEPS:
    before = len(calls.read_text("utf-8").splitlines()) if calls.exists() else 0
    steps[step.__name__] = step()
    after = calls.read_text("utf-8").splitlines() if calls.exists() else []
    steps[step.__name__]["calls"] = [headless.json.loads(line) for line in after[before:]]
    QgsProject.instance().removeAllMapLayers()
steps["damaged_models"] = damaged_models()
steps["leftovers"] = leftovers()
headless.report(steps)
