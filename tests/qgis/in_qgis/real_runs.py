"""Run the algorithms with the real engine: real_runs.py FOLDER MODEL STEP...

FOLDER holds image.tif, other images and polygons; each STEP is a function below.
"""

import sys
from pathlib import Path

import headless
from qgis.core import (
    QgsApplication,
    QgsProcessingContext,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterRasterLayer,
    QgsProject,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QCoreApplication

folder, model = Path(sys.argv[1]), sys.argv[2]
image = str(folder / "image.tif")


def segment():
    return headless.run(
        "segment",
        {
            "INPUT": image,
            "MODEL": model,
            "OUTPUT": str(folder / "qgis map.tif"),
            "CONFIDENCE": str(folder / "qgis confidence.tif"),
        },
    )


def of_several_panels(**values):
    named = {"INPUT": str(folder / "long.tif"), "MODEL": model, "TILE_SIZE": 512, "OVERLAP": 64}
    return {**named, "OUTPUT": str(folder / "stopped.tif"), **values}


def cancel():
    found = headless.run("segment", of_several_panels(), cancel_at=36)
    QCoreApplication.processEvents()
    layers = QgsProject.instance().mapLayers().values()
    found["layers"] = [[layer.name(), layer.source(), layer.isValid()] for layer in layers]
    found["there"] = sorted(p.name for p in folder.iterdir() if p.name.startswith("stopped"))
    return found


def finished_panels():
    return sorted(p.name for p in (folder / "stopped.tif.parts").glob("panel-*.tif"))


def resume():
    found = headless.run("segment", of_several_panels(), look=finished_panels)
    QCoreApplication.processEvents()
    found["layers"] = [layer.name() for layer in QgsProject.instance().mapLayers().values()]
    found["there"] = sorted(p.name for p in folder.iterdir() if p.name.startswith("stopped"))
    return found


def cancel_temporary():
    values = of_several_panels(OUTPUT="TEMPORARY_OUTPUT", SHOW_PART=False)
    found = headless.run("segment", values, cancel_at=1)
    from qgis.core import QgsProcessingUtils

    left = Path(QgsProcessingUtils.tempFolder()).rglob("*")
    found["left"] = sorted(str(p) for p in left if p.is_file())
    return found


def modeler():
    """A model of Segment raster alone: an input, a fixed model, an output."""
    algorithm = QgsProcessingModelAlgorithm("one step", "tests")
    definition = QgsProcessingParameterRasterLayer("image")
    algorithm.addModelParameter(definition, QgsProcessingModelParameter("image"))
    child = QgsProcessingModelChildAlgorithm("geoseg:segment")
    child.setChildId("segment")
    source = QgsProcessingModelChildParameterSource
    child.addParameterSources("INPUT", [source.fromModelParameter("image")])
    child.addParameterSources("MODEL", [source.fromStaticValue(model)])
    output = QgsProcessingModelOutput("map")
    output.setChildId("segment")
    output.setChildOutputName("OUTPUT")
    output.setName("map")
    output.setDescription("map")
    child.setModelOutputs({"map": output})
    algorithm.addChildAlgorithm(child)
    feedback, context = headless.Recorder(), QgsProcessingContext()
    context.setProject(QgsProject.instance())
    # QGIS 3.22 calls the model's output "segment:map", later ones "map".
    (written,) = algorithm.destinationParameterDefinitions()
    values = {"image": image, written.name(): str(folder / "model map.tif")}
    ok_values, reason = algorithm.checkParameterValues(values, context)
    found, ok = algorithm.run(values, context, feedback)
    return {"ok": ok and ok_values, "reason": reason, "lines": feedback.lines, "found": str(found)}


def teach():
    return headless.run(
        "teach",
        {
            "INPUT": image,
            "MODEL": model,
            "LABELS": str(folder / "labels.gpkg"),
            "CLASS_FIELD": "class",
            "STEPS": 2,
            "BATCH_SIZE": 1,
            "CROP_SIZE": 64,
            "OUTPUT": str(folder / "taught in qgis.safetensors"),
        },
    )


def list_taught():
    from geoseg_qgis.engine import find_engine
    from geoseg_qgis.models import ask_shipped_models, known_models
    from geoseg_qgis.settings import Settings

    engine = find_engine()
    before = [m.value for m in known_models(engine, Settings())]
    ask_shipped_models(engine)
    after = known_models(engine, Settings())
    rows = [[m.value, m.label, list(m.classes), m.hint] for m in after]
    return {"before": before, "rows": rows}


def evaluate():
    return headless.run(
        "evaluate",
        {
            "INPUT": image,
            "MODEL": model,
            "LABELS": str(folder / "labels.gpkg"),
            "CLASS_FIELD": "class",
            "OUTPUT": str(folder / "evaluation in qgis"),
        },
    )


def describe():
    return headless.run(
        "describe",
        {"MODEL": model, "INPUT": image, "OUTPUT": str(folder / "description.html")},
    )


def one_band():
    values = {"INPUT": str(folder / "one_band.tif"), "MODEL": model}
    return headless.run("segment", {**values, "OUTPUT": str(folder / "refused.tif")})


def without_crs():
    values = {"INPUT": str(folder / "no_crs.tif"), "MODEL": model}
    refused = headless.run("segment", {**values, "OUTPUT": str(folder / "refused.tif")})
    native = headless.run(
        "segment", {**values, "GSD": "native", "OUTPUT": str(folder / "no_crs_map.tif")}
    )
    return {"refused": refused, "native": native}


def vectorize():
    values = {"INPUT": str(folder / "qgis map.tif"), "MIN_AREA": 2}
    return headless.run("vectorize", {**values, "OUTPUT": str(folder / "qgis polygons.gpkg")})


def polygons():
    """Segment raster with polygons, twice: the second run finds the first one's file shown."""
    values = {
        "INPUT": image,
        "MODEL": model,
        "OUTPUT": str(folder / "both.tif"),
        "POLYGONS": str(folder / "both.gpkg"),
    }
    return headless.run("segment", values)


def held_open():
    project = QgsProject.instance()
    out = str(folder / "qgis map.tif")
    project.addMapLayer(QgsRasterLayer(out, "shown"))
    context = QgsProcessingContext()
    context.setProject(project)
    found = headless.run(
        "segment", {"INPUT": image, "MODEL": model, "OUTPUT": out}, context=context
    )
    project.removeAllMapLayers()
    return found


steps = {}
for name in sys.argv[3:]:
    steps[name] = globals()[name]()
steps["algorithms"] = [a.id() for a in QgsApplication.processingRegistry().algorithms()]
headless.report(steps)
