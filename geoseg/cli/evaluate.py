"""``geoseg evaluate``: how good a model is, on a raster with labels or on a data set."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from geoseg.cli.events import CommandListener, ProgressKind, listening
from geoseg.cli.options import BANDS, BOUNDS, FILE, GSD, SIZE, BoundsCommand
from geoseg.config import DEFAULT_MAX_MEMORY_BYTES, PredictOptions
from geoseg.errors import UsageError
from geoseg.extras import TRAIN_PACKAGES, require_extra

if TYPE_CHECKING:
    from geoseg.evaluate.options import EvaluateOptions
    from geoseg.evaluate.record import EvaluationRecord

RUN_SUFFIXES = {".yaml", ".yml"}
PREDICT_OPTIONS = (
    *("aoi", "bands", "bounds", "gsd", "tta", "tile_size_px", "overlap_px", "batch_size"),
    *("precision", "device", "max_memory_bytes", "resume"),
)

# Options that only mean something for a raster, and what they are when they are not given.
RASTER_OPTIONS = {
    "labels": "--labels",
    "class_field": "--class-field",
    "background": "--background",
    "ignore": "--ignore",
    "cell_m": "--cell-size",
    "boundary_m": "--boundary-width",
    "sample_points": "--sample-points",
    "sampling_design": "--sampling-design",
    "strata_field": "--strata-field",
    "aoi": "--aoi",
    "bands": "--bands",
    "bounds": "--bounds",
    "gsd": "--gsd",
    "tta": "--tta",
    "tile_size_px": "--tile-size",
    "overlap_px": "--overlap",
    "batch_size": "--batch-size",
    "resume": "--resume",
}
RASTER_DEFAULTS = ("auto", "none")


@click.command("evaluate", cls=BoundsCommand)
@click.argument("model")
@click.argument("target", metavar="RASTER|CONFIG")
@click.argument("overrides", metavar="[KEY.SUB=VALUE]...", nargs=-1)
@click.option(
    "--labels",
    type=FILE,
    help="Of RASTER: polygons, or a raster of class ids or of the classes' colours.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for report, metrics and maps [default for CONFIG: in its own folder].",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Of CONFIG's data.",
)
@click.option("--class-field", help="Field of the polygons that holds a class id or name.")
@click.option("--background", help="Class of ground outside of the polygons [default: not scored].")
@click.option(
    "--ignore",
    multiple=True,
    help="Class, label value or colour '#RRGGBB' that is not scored; repeatable.",
)
@click.option("--cell-size", "cell_m", type=float, help="Side of the cells of cells.gpkg, metres.")
@click.option(
    "--boundary-width",
    "boundary_m",
    type=float,
    help="Band of the boundary IoU, metres [default: 2 % of a tile's diagonal].",
)
@click.option(
    "--sample-points", type=FILE, help="Probability sample of the ground: areas with intervals."
)
@click.option(
    "--sampling-design",
    type=click.Choice(["stratified", "simple"]),
    help="How the points were drawn: by the classes of this map, or simple random.",
)
@click.option("--reference-field", default="reference", show_default=True, help="Their true class.")
@click.option("--strata-field", help="The class they were drawn from; checked against the map.")
@click.option(
    "--store-temperature", type=FILE, help="Write MODEL with calibrated confidences to this file."
)
@click.option("--aoi", type=FILE, help="Vector file: only ground inside is mapped and scored.")
@click.option("--bands", type=BANDS, help="Bands in the model's order, from 1.")
@click.option("--bounds", type=BOUNDS, help="Only this box, in the raster's CRS.")
@click.option("--gsd", type=GSD, default="auto", show_default=True, help="auto, native or metres.")
@click.option(
    "--tta",
    type=click.Choice(["none", "flips", "d4"]),
    default="none",
    show_default=True,
    help="Average over mirrored or all eight views.",
)
@click.option("--tile-size", "tile_size_px", type=click.IntRange(1), help="Side of a tile, px.")
@click.option("--overlap", "overlap_px", type=click.IntRange(0), help="Blended overlap, px.")
@click.option("--batch-size", type=click.IntRange(1), help="Tiles at once.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="Of RASTER's map; a data set is scored in fp32.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps.")
@click.option(
    "--max-memory",
    "max_memory_bytes",
    type=SIZE,
    default=str(DEFAULT_MAX_MEMORY_BYTES),
    help="Bound on this process's memory, such as 4GB.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted prediction.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier evaluation.")
@click.option("--json", "as_json", is_flag=True, help="Print the content of metrics.json.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="json: one object a line on stdout, for programs.",
)
@click.option("--watch-stdin", is_flag=True, help="Stop cleanly when stdin is closed.")
def command(
    *,
    model: str,
    target: str,
    overrides: tuple[str, ...],
    labels: Path | None,
    out: Path | None,
    split: Literal["train", "val", "test"],
    as_json: bool,
    progress: ProgressKind,
    watch_stdin: bool,
    **values: Any,
) -> None:
    """Score MODEL on a RASTER with labels, or on the data of a run file CONFIG (.yaml).

    A raster is predicted as by `geoseg predict`. The folder --out then holds report.html,
    metrics.json, class_map.tif, error_map.tif (what was taken for what), errors.gpkg (the errors
    as polygons) and cells.gpkg (scores by place). A data set is scored by the protocol of its run
    file: report.html and metrics.json.

    \b
    geoseg evaluate model.safetensors ortho.tif --labels truth.gpkg --class-field class --out eval
    geoseg evaluate runs/dubai/model.safetensors configs/segnext_t_dubai.yaml --split val
    """
    require_extra("train", *TRAIN_PACKAGES, purpose="evaluation")
    if as_json and progress == "json":
        raise UsageError("--json and --progress json both write to stdout; give one of them.")
    options = _options(values)
    with listening("evaluate", progress, watch_stdin=watch_stdin) as listener:
        if Path(target).suffix.lower() in RUN_SUFFIXES:
            _refuse_for_config(labels, values)
            folder, record = _on_config(
                model, target, overrides, options, listener=listener, split=split, out=out
            )
        else:
            _check_raster(target, overrides, labels, out)
            folder, record = _on_raster(
                model, target, options, listener=listener, labels=labels, out=out
            )
        if as_json:
            click.echo(record.to_json())
            return
        if progress != "json":
            click.echo("\n".join(score_lines(record)))
        listener.result(
            {
                "outputs": {kind: str(folder / name) for kind, name in record.files.items()},
                "scores": record.to_dict()["scores"],
                "seconds": round(record.seconds, 3),
                "pixels": record.pixels,
            }
        )


def score_lines(record: "EvaluationRecord") -> list[str]:
    """Return the scores as a table."""
    width = max(len("class"), *(len(c.name) for c in record.classes))
    heads = ("IoU", "recall", "precision", "boundary IoU", "pixels")
    lines = [f"{'class':<{width}}  " + "  ".join(f"{head:>12}" for head in heads)]
    for c in record.classes:
        figures = (c.iou, c.accuracy, c.precision, c.boundary_iou)
        cells = [_figure(value) for value in figures] + [f"{c.pixels:,}"]
        lines.append(f"{c.name:<{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    scores = record.scores
    named = [("mIoU", "miou"), ("mIoU without background", "miou_without_background")]
    named += [("accuracy", "accuracy"), ("mean boundary IoU", "mean_boundary_iou")]
    lines.append(
        ", ".join(f"{said} {_figure(scores[key])}" for said, key in named if key in scores)
    )
    found = record.calibration
    if found is not None:
        lines.append(
            f"calibration error {_figure(found.ece)}; at temperature {found.best_temperature:.3g}: "
            f"{_figure(found.ece_after)}"
        )
    return [*lines, *(f"note: {note}" for note in record.notes)]


def _options(values: dict[str, Any]) -> "EvaluateOptions":
    from geoseg.evaluate.labels import LabelOptions
    from geoseg.evaluate.options import EvaluateOptions
    from geoseg.evaluate.points import PointOptions

    points = None
    if values["sample_points"] is not None:
        if values["sampling_design"] is None:
            raise UsageError(
                "--sample-points needs --sampling-design stratified or simple: only a sample drawn "
                "by a known design says anything about areas."
            )
        points = PointOptions(
            values["sample_points"],
            values["sampling_design"],
            values["reference_field"],
            values["strata_field"],
        )
    ignore = tuple(int(v) if v.lstrip("-").isdigit() else v for v in values["ignore"])
    return EvaluateOptions(
        predict=PredictOptions(**{name: values[name] for name in PREDICT_OPTIONS}),
        labels=LabelOptions(values["class_field"], values["background"], ignore),
        points=points,
        cell_m=values["cell_m"],
        boundary_m=values["boundary_m"],
        store_temperature=values["store_temperature"],
        overwrite=values["overwrite"],
    )


def _on_raster(
    model: str,
    raster: str,
    options: "EvaluateOptions",
    *,
    listener: CommandListener,
    labels: Path | None,
    out: Path | None,
) -> tuple[Path, "EvaluationRecord"]:
    from geoseg.evaluate import evaluate_raster

    assert labels is not None
    assert out is not None
    return out, evaluate_raster(model, raster, labels, out, options=options, listener=listener)


def _on_config(
    model: str,
    config: str,
    overrides: tuple[str, ...],
    options: "EvaluateOptions",
    *,
    listener: CommandListener,
    split: Literal["train", "val", "test"],
    out: Path | None,
) -> tuple[Path, "EvaluationRecord"]:
    from geoseg.config.parse import parse_config
    from geoseg.evaluate import evaluate_config

    run = parse_config(config, overrides)
    folder = out or Path(run.out) / f"evaluation_{split}"
    return folder, evaluate_config(
        model, run, folder, split=split, options=options, listener=listener
    )


def _check_raster(
    raster: str, overrides: tuple[str, ...], labels: Path | None, out: Path | None
) -> None:
    if overrides:
        raise UsageError(
            f"expected one RASTER, or a CONFIG (.yaml) with key.sub=value words; got {raster!r} "
            f"and {overrides[0]!r}."
        )
    for option, value in (("--labels FILE", labels), ("--out DIR", out)):
        if value is None:
            raise UsageError(f"a raster is evaluated with {option}; it is not given.")


def _refuse_for_config(labels: Path | None, values: dict[str, Any]) -> None:
    """Raise a UsageError for options that only mean something for a raster."""
    if labels is not None:
        values = {**values, "labels": labels}
    for name, option in RASTER_OPTIONS.items():
        if values.get(name) not in {None, (), False, *RASTER_DEFAULTS}:
            raise UsageError(
                f"{option} is for a raster; a data set is scored as its run file says. Change the "
                "file, or give key.sub=value words."
            )


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
