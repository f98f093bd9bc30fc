"""What all algorithms share: their place in the toolbox, and how they talk to the engine."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingUtils,
)
from qgis.PyQt.QtCore import QUrl
from qgis.PyQt.QtGui import QIcon

from geoseg_qgis import runner
from geoseg_qgis.algorithms.parameters import Given
from geoseg_qgis.client import EngineError, build_command
from geoseg_qgis.engine import Engine, ask_engine, check_engine, find_engine
from geoseg_qgis.exports import export_raster
from geoseg_qgis.layers import LayerError, RasterSource, write_polygons
from geoseg_qgis.translate import mark, tr

FOLDER = Path(__file__).parent.parent
ICON = FOLDER / "resources" / "icon.svg"
GUIDE = FOLDER / "docs" / "index.html"
# The first start of an engine reads much of torch from the disk.
ASK_TIMEOUT_S = 300.0
# The time left is said again when it has changed, and not more often than this.
SAY_EVERY_S = 5.0
# What an engine that is too old or broken looks like from outside.
DOUBTFUL = frozenset({"Usage", "UsageError", "Crash", "Error"})
# What options in the engine's sentences are called in the dialogs.
FIELDS = {
    "--bands": mark("Advanced parameters ▸ Bands"),
    "--gsd": mark("Advanced parameters ▸ Ground resolution"),
    "--max-memory": mark("Advanced parameters ▸ Memory bound"),
    "--tile-size": mark("Advanced parameters ▸ Side of a tile"),
    "--overwrite": mark("untick Resume to begin anew"),
    "--class-field": mark("Field of the class"),
    "--background": mark("Class of the background"),
    "--device": mark("Device"),
}
_fits: set[tuple[Any, ...]] = set()


class FeedbackBridge:
    """Tells QGIS how a run of the engine goes; ``share`` is its part of the progress bar."""

    def __init__(
        self, feedback: QgsProcessingFeedback, share: tuple[float, float] = (0.0, 100.0)
    ) -> None:
        self.feedback = feedback
        self.first, self.last = share
        self._said = ""
        self._said_at = 0.0

    def is_cancelled(self) -> bool:
        """Return whether the user has pressed Cancel."""
        return bool(self.feedback.isCanceled())

    def set_progress(self, percent: float, remaining_s: float | None) -> None:
        """Move the bar, and say how long it will take."""
        self.feedback.setProgress(self.first + (self.last - self.first) * percent / 100)
        said = time_left(remaining_s) if percent < 100 else ""
        now = time.monotonic()
        if said and said != self._said and now - self._said_at >= SAY_EVERY_S:
            self._said, self._said_at = said, now
            self.feedback.setProgressText(said)

    def log(self, level: str, message: str) -> None:
        """Show a line in the log."""
        if level == "warning":
            self.feedback.pushWarning(message)
        else:
            self.feedback.pushInfo(message)


class GeosegAlgorithm(QgsProcessingAlgorithm):
    """An algorithm that one command of geoseg does."""

    def createInstance(self) -> GeosegAlgorithm:  # noqa: N802
        """Return a new one, as Processing wants it for each run."""
        return type(self)()

    def icon(self) -> QIcon:
        """Return the plugin's icon."""
        return QIcon(str(ICON))

    def svgIconPath(self) -> str:  # noqa: N802
        """Return where the icon lies, for the modeler."""
        return str(ICON)

    def helpUrl(self) -> str:  # noqa: N802
        """Return the user guide, which comes with the plugin."""
        return QUrl.fromLocalFile(str(GUIDE)).toString() + f"#{self.name()}"

    def canExecute(self) -> tuple[bool, str]:  # noqa: N802
        """Return whether there is an engine, and what to do if not."""
        try:
            find_engine()
        except EngineError as error:
            return False, str(error)
        return True, ""


def engine_or_stop() -> Engine:
    """Return the engine, or end the algorithm with the way to get one."""
    try:
        return find_engine()
    except EngineError as error:
        raise QgsProcessingException(str(error)) from error


def run_engine(
    command: str, arguments: Sequence[str], bridge: FeedbackBridge, engine: Engine
) -> dict[str, Any]:
    """Run a command and return its result's data.

    Raises:
        Cancelled: the user stopped it.
        QgsProcessingException: with the engine's sentence.
    """
    line = build_command(engine, command, arguments)
    try:
        return runner.run(line, bridge)
    except EngineError as error:
        raise _exception(engine, error) from error


def check_fit(
    engine: Engine, raster: str, model: str, bands: Sequence[str], feedback: QgsProcessingFeedback
) -> None:
    """End the algorithm with the engine's reason if the model cannot take the raster.

    What fitted is remembered, so that a batch over one raster asks once.
    """
    key = (engine, model, tuple(bands), *_state(raster), *_state(model))
    if key in _fits:
        return
    feedback.setProgressText(tr("Checking that the model fits the raster…"))
    ask(engine, "describe", [raster, f"--model={model}", *bands, "--json"])
    _fits.add(key)


def ask(engine: Engine, command: str, arguments: Sequence[str]) -> Any:
    """Return what a ``--json`` command prints, or end the algorithm with the engine's sentence."""
    try:
        return ask_engine(engine, command, arguments, timeout_s=ASK_TIMEOUT_S)
    except EngineError as error:
        raise _exception(engine, error) from error


def hand_over(
    source: RasterSource,
    extent: Any,
    gsd_m: float | None,
    folder: Path,
    feedback: QgsProcessingFeedback,
) -> str:
    """Return the name under which the engine opens a raster layer, exported if it has to be."""
    if source.path is not None:
        return source.path
    try:
        return export_raster(source, extent, gsd_m, folder, feedback)
    except LayerError as error:
        raise QgsProcessingException(str(error)) from error


def check_output(path: str, suffixes: Sequence[str]) -> None:
    """End the algorithm if an output is no file, of another format, or in a barred folder."""
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in suffixes or path.startswith(("ogr:", "postgres:", "memory:")):
        raise QgsProcessingException(
            tr("An output file ending in {} was expected; got {!r}. Choose such a name.").format(
                ", ".join(f".{s}" for s in suffixes), path
            )
        )
    folder = Path(path).parent
    if not folder.is_dir():
        raise QgsProcessingException(
            tr("The folder {!r} does not exist. Make it, or choose another.").format(str(folder))
        )
    if not _can_write(folder):
        raise QgsProcessingException(
            tr("Nothing can be written to the folder {!r}. Choose another for the output.").format(
                str(folder)
            )
        )


def polygons_file(given: Given, name: str, folder: Path, fields: Sequence[str] = ()) -> str:
    """Return a temporary file of a polygon parameter: its layer's features, or those selected."""
    source = given.algorithm.parameterAsSource(given.parameters, name, given.context)
    if source is None:
        raise QgsProcessingException(given.algorithm.invalidSourceError(given.parameters, name))
    # The engine writes the name into what it makes.
    plain = re.sub(r"[^\w-]+", "_", source.sourceName()).strip("_") or name.lower()
    own = folder / name.lower()
    own.mkdir(exist_ok=True)
    try:
        context = given.context.transformContext()
        return str(write_polygons(source, own / f"{plain}.gpkg", context, fields))
    except LayerError as error:
        raise QgsProcessingException(str(error)) from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder that is gone after the run, however it ends."""
    folder = tempfile.mkdtemp(prefix="geoseg_", dir=QgsProcessingUtils.tempFolder())
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def time_left(remaining_s: float | None) -> str:
    """Return a duration in words, no finer than it is known; empty where it is not."""
    if remaining_s is None:
        return ""
    if remaining_s >= 5400:
        return tr("About {:.0f} h left").format(remaining_s / 3600)
    if remaining_s >= 90:
        return tr("About {:.0f} min left").format(remaining_s / 60)
    return tr("About {:.0f} s left").format(max(5, 5 * round(remaining_s / 5)))


def with_fields(sentence: str) -> str:
    """Return the engine's sentence, and which fields of the dialog its options are."""
    fields = [tr(field) for option, field in FIELDS.items() if option in sentence]
    return sentence + " " + tr("In QGIS: {}.").format(", ".join(fields)) if fields else sentence


def _exception(engine: Engine, error: EngineError) -> QgsProcessingException:
    """Return what the user reads; where the engine may be too old or not geoseg, that is said."""
    if error.kind in DOUBTFUL and error.exit_code not in {3, 4}:
        try:
            check_engine(engine)
        except EngineError as reason:
            return QgsProcessingException(str(reason))
    return QgsProcessingException(with_fields(str(error)))


def _can_write(folder: Path) -> bool:
    """Return whether a file can be made; permissions alone do not say so on Windows."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _state(path: str) -> tuple[str, int]:
    try:
        return path, Path(path).stat().st_mtime_ns
    except OSError:
        return path, 0
