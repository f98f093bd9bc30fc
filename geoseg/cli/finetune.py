"""``geoseg finetune``: a model that has been shown a few polygons."""

import time
from pathlib import Path
from typing import Any, Literal

import click

from geoseg.cli.events import ProgressKind, listening
from geoseg.cli.options import BANDS, FILE
from geoseg.extras import TRAIN_PACKAGES, require_extra
from geoseg.types import BandIndexes


@click.command("finetune")
@click.argument("model")
@click.argument("raster")
@click.argument("labels", type=FILE)
@click.argument("out", type=FILE)
@click.option("--class-field", help="Field of the polygons that holds a class id or name.")
@click.option("--bands", type=BANDS, help="Bands of the raster in the model's order, from 1.")
@click.option(
    "--complete",
    type=FILE,
    help="Polygons inside of which everything is labelled: the rest there is background.",
)
@click.option("--background", help="Class of unlabelled ground in a complete extent.")
@click.option(
    "--encoder",
    type=click.Choice(["frozen", "low", "full"]),
    default="low",
    show_default=True,
    help="How fast the encoder learns beside the decoder.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=400, show_default=True, help="Of the optimiser."
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=4, show_default=True, help="Crops per step."
)
@click.option(
    "--crop-size",
    "crop_px",
    type=click.IntRange(32),
    default=256,
    show_default=True,
    help="Side of a crop, px.",
)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Learning rate.")
@click.option(
    "--hold-out",
    type=click.FloatRange(0, 0.9),
    default=0.2,
    show_default=True,
    help="Share of the polygons, or of a label raster's ground, that is scored and not taught.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps.")
@click.option("--resume", is_flag=True, help="Go on with a stopped run.")
@click.option("--overwrite", is_flag=True, help="Replace OUT, discard a stopped run.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="json: one object a line on stdout, for programs.",
)
@click.option("--watch-stdin", is_flag=True, help="Stop cleanly when stdin is closed.")
def command(  # one parameter an option
    *,
    model: str,
    raster: str,
    labels: Path,
    out: Path,
    class_field: str | None,
    bands: BandIndexes | None,
    complete: Path | None,
    background: str | None,
    encoder: Literal["frozen", "low", "full"],
    steps: int,
    batch_size: int,
    crop_px: int,
    lr: float,
    hold_out: float,
    seed: int,
    device: str,
    resume: bool,
    overwrite: bool,
    progress: ProgressKind,
    watch_stdin: bool,
) -> None:
    """Teach MODEL from LABELS on RASTER and write the model OUT (.safetensors).

    LABELS: polygons with a class field, or a raster of class ids. Ground without a label is
    ignored. Labels that are all classes of the model improve those; others make a model of the
    labels' classes. A share of the labels is held out, and scored before and after.

    \b
    geoseg finetune demo-buildings-banepa ortho.tif drawn.gpkg mine.safetensors --class-field class
    geoseg predict mine.safetensors ortho.tif map.tif
    """
    require_extra("train", *TRAIN_PACKAGES, purpose="teaching a model")
    from geoseg.train.finetune import finetune
    from geoseg.train.finetune_plan import FinetuneOptions

    options = FinetuneOptions(
        class_field=class_field,
        bands=bands,
        complete=complete,
        background=background,
        encoder=encoder,
        steps=steps,
        batch_size=batch_size,
        crop_px=crop_px,
        lr=lr,
        hold_out=hold_out,
        seed=seed,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
    began = time.monotonic()
    with listening("finetune", progress, watch_stdin=watch_stdin) as listener:
        result = finetune(model, raster, labels, out, options=options, listener=listener)
        said = score_sentence(result.held_out, result.unit, result.before, result.after)
        listener.log("info", said)
        listener.result(
            {
                "outputs": {"model": str(result.model)},
                "classes": [c.name for c in result.classes],
                "held_out_polygons": result.held_out if result.unit == "polygons" else 0,
                "held_out_cells": result.held_out if result.unit == "cells" else 0,
                "before": result.before,
                "after": result.after,
                "seconds": round(time.monotonic() - began, 3),
            }
        )


def score_sentence(
    held_out: int, unit: str, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> str:
    """Return what the held-out labels say of the new model."""
    if after is None:
        return f"no {unit} were held out: look at the map to judge the model"
    said = f"pixels of {held_out} held-out {unit} right: "
    if before is not None:
        said += f"{before['accuracy']:.1%} before, "
    said += f"{after['accuracy']:.1%} after"
    return (
        said
        + f"; mean IoU {after['miou']:.3f}"
        + (f" (before {before['miou']:.3f})" if before is not None else "")
    )
