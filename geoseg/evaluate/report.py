"""The report: one HTML file that opens from disk without network.

Pictures are data URIs, charts are inline SVG, and the page forbids itself any other source. All
that comes from outside goes through the template's escaping.
"""

import base64
import dataclasses
import hashlib
import math
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from geoseg.errors import MachineError
from geoseg.evaluate import wording
from geoseg.evaluate.curves import Curves, read_curves
from geoseg.evaluate.record import EvaluationRecord
from geoseg.evaluate.report_views import view_curves, view_record

REPORT_NAME = "report.html"
METRICS_NAME = "metrics.csv"


def write_report(record: EvaluationRecord, folder: Path) -> Path:
    """Write ``report.html`` about an evaluation into a folder and return its path.

    Raises:
        MachineError: the file cannot be written.
    """
    return _write(folder / REPORT_NAME, _render(f"Evaluation of {record.model}", record))


def write_training_report(folder: Path, record: EvaluationRecord | None = None) -> Path:
    """Write ``report.html`` about a training run into its folder and return the path.

    Args:
        folder: of the run, with its ``metrics.csv``.
        record: of the trained model on the validation data; None: the page shows curves only.

    Raises:
        InputError: the run has no readable ``metrics.csv``.
        MachineError: the file cannot be written.
    """
    curves = read_curves(folder / METRICS_NAME)
    if record is not None:
        record = dataclasses.replace(record, curves=curves)
    name = folder.resolve().name if record is None else record.model
    return _write(folder / REPORT_NAME, _render(f"Training of {name}", record, curves))


def _render(title: str, record: EvaluationRecord | None, curves: Curves | None = None) -> str:
    script = _read("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    context: dict[str, Any] = {
        "title": title,
        "record": record,
        "style": Markup(_read("report.css")),
        "script": Markup(script),
        "script_digest": digest,
        "dash": wording.NONE,
        **view_curves(curves or (record.curves if record else {}), record),
        **(view_record(record) if record else {}),
    }
    return _environment().get_template("report.html").render(context)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("geoseg.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=wording.score_text,
        share=wording.share_text,
        count=wording.count_text,
        area=wording.area_text,
        value=wording.value_text,
        sentence=wording.sentence,
        sort_key=_sort_key,
        link=_link,
    )
    return environment


def _read(name: str) -> str:
    return files("geoseg.evaluate").joinpath("templates", name).read_text(encoding="utf-8")


def _sort_key(value: float | None) -> str:
    """Return a value for the page's sorting; what is undefined goes last."""
    return "" if value is None or math.isnan(value) else f"{value:.9g}"


def _link(path: str) -> str | None:
    """Return an address for a file beside the report; None for files elsewhere."""
    return quote(path) if path == Path(path).name and path else None


def _write(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise MachineError(
            f"{str(path)!r} cannot be written: {error.strerror}. Give another folder with --out."
        ) from error
    return path
