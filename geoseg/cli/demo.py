"""``geoseg demo``: a real scene, a real model, a map to look at."""

import time
from importlib import resources
from pathlib import Path

import click

from geoseg.cli.events import ProgressKind, listening

MODEL = "demo-buildings-banepa"
SCENE = "banepa_scene.tif"
# Smaller than any house, larger than a parked car.
LEAST_BUILDING_M2 = 12.0


@click.command("demo")
@click.argument("out_dir", type=click.Path(path_type=Path, file_okay=False), default="geoseg-demo")
@click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
)
def command(out_dir: Path, progress: ProgressKind) -> None:
    """Predict and vectorise the shipped scene with the shipped model; print what was made.

    The scene is 2048 x 2048 px of drone imagery over Banepa, Nepal; the model knows buildings of
    that town and is a demonstration only. An earlier demo in OUT_DIR is replaced.
    """
    from geoseg.cli.polygons import write_polygons
    from geoseg.config import PredictOptions
    from geoseg.predict import predict_raster
    from geoseg.vector import VectorOptions

    began = time.perf_counter()
    scene = Path(str(resources.files("geoseg") / "assets" / SCENE))
    options = PredictOptions(
        confidence=out_dir / "confidence.tif",
        quicklook=out_dir / "buildings.png",
        overwrite=True,
    )
    with listening("demo", progress) as listener:
        result = predict_raster(
            MODEL, scene, out_dir / "buildings.tif", options=options, listener=listener
        )
        outputs = result.outputs
        vector = out_dir / "buildings.gpkg"
        wanted = VectorOptions(
            classes=("building",),
            min_area_m2=LEAST_BUILDING_M2,
            fill_holes_m2=LEAST_BUILDING_M2,
            square_corners=("building",),
            confidence=outputs.confidence,
            overwrite=True,
        )
        write_polygons(outputs.class_map, vector, options=wanted, listener=listener)
        listener.result(
            {
                "outputs": {
                    "class_map": str(outputs.class_map),
                    "confidence": str(outputs.confidence),
                    "probabilities": None,
                    "vector": str(vector),
                    "quicklook": str(outputs.quicklook),
                },
                "seconds": round(time.perf_counter() - began, 3),
                "pixels": result.pixels,
            }
        )
