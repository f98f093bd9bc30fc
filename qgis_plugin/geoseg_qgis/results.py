"""What happens to files after a run: their names before it, their layers after it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QObject, Qt, pyqtSignal

from geoseg_qgis.layers import file_of_layer
from geoseg_qgis.styles import classes_of, style_class_map, style_polygons
from geoseg_qgis.translate import tr

if TYPE_CHECKING:
    from qgis.core import QgsMapLayer, QgsProcessingFeedback

PARTS_SUFFIX = ".parts"
PARTS_MAP = "class_map.vrt"
# QGIS does not own a post-processor: it is kept here until its layer is there.
_waiting: dict[str, StyleResult] = {}


class StyleResult(QgsProcessingLayerPostProcessorInterface):
    """Gives a layer of a result the classes of its class map."""

    def __init__(self, key: str, class_map: str) -> None:
        super().__init__()
        self.key = key
        self.class_map = class_map

    def postProcessLayer(  # noqa: N802
        self,
        layer: QgsMapLayer,
        context: QgsProcessingContext,  # noqa: ARG002
        feedback: QgsProcessingFeedback,  # noqa: ARG002
    ) -> None:
        """Style the layer; called by QGIS in the main thread."""
        classes = classes_of(self.class_map)
        if classes and isinstance(layer, QgsRasterLayer):
            style_class_map(layer, classes)
        elif classes and isinstance(layer, QgsVectorLayer):
            style_polygons(layer, classes)
        _waiting.pop(self.key, None)


class PartsOnCanvas(QObject):
    """Shows and hides the finished part of an unfinished map, from whichever thread asks."""

    show_part = pyqtSignal(str, str)
    forget_part = pyqtSignal(str)

    def __init__(self) -> None:
        super().__init__()
        # Queued: layers are only touched in the main thread, where this object lives.
        self.show_part.connect(self._show, Qt.ConnectionType.QueuedConnection)
        self.forget_part.connect(self._forget, Qt.ConnectionType.QueuedConnection)

    def _show(self, vrt: str, name: str) -> None:
        layer = QgsRasterLayer(vrt, name)
        if layer.isValid():
            QgsProject.instance().addMapLayer(layer)

    def _forget(self, folder: str) -> None:
        project = QgsProject.instance()
        inside = [
            layer.id()
            for layer in project.mapLayers().values()
            if _is_inside(file_of_layer(layer), folder)
        ]
        project.removeMapLayers(inside)


def style_when_loaded(context: QgsProcessingContext, path: str, class_map: str) -> None:
    """Have a result styled once QGIS has loaded it, if it loads it."""
    if not context.willLoadLayerOnCompletion(path):
        return
    details = context.layerToLoadOnCompletionDetails(path)
    _waiting[path] = StyleResult(path, class_map)
    details.setPostProcessor(_waiting[path])


def load_later(context: QgsProcessingContext, path: str, name: str, class_map: str) -> None:
    """Have a file added to the project that no output of the algorithm stands for."""
    project = context.project()
    if project is None:
        return
    details = QgsProcessingContext.LayerDetails(name, project, name)
    context.addLayerToLoadOnCompletion(path, details)
    style_when_loaded(context, path, class_map)


def rename_result(context: QgsProcessingContext, old: str, new: str) -> None:
    """Have QGIS load another file than the one it was told of."""
    loads = context.layersToLoadOnCompletion()
    if old != new and old in loads:
        context.setLayersToLoadOnCompletion(
            {(new if path == old else path): details for path, details in loads.items()}
        )


def forget_results(context: QgsProcessingContext, paths: Iterable[str]) -> None:
    """Have QGIS not load files that were not made."""
    unmade = set(paths)
    loads = context.layersToLoadOnCompletion()
    if unmade & set(loads):
        context.setLayersToLoadOnCompletion(
            {path: details for path, details in loads.items() if path not in unmade}
        )


def free_name(path: str, project: QgsProject | None, *, resume: bool = False) -> str:
    """Return the path, or the first of ``name_2.tif``, ``name_3.tif`` ... if QGIS shows it.

    A file that a layer shows is not replaced under it: the layer would show something torn, and
    on Windows the file is locked.

    Args:
        path: the name that the user gave.
        project: whose layers are looked at.
        resume: a versioned name whose run was cancelled is taken up again, not passed over.
    """
    shown = _shown_files(project)
    wanted = Path(path)
    number = 1
    candidate = wanted
    while _is_shown(candidate, shown) if number == 1 else _is_used(candidate, resume):
        number += 1
        candidate = wanted.with_name(f"{wanted.stem}_{number}{wanted.suffix}")
    return str(candidate)


def claim_output(
    path: str,
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
    *,
    resume: bool = False,
) -> str:
    """Return the file that is written for an output: its own, or a versioned one; see `free_name`.

    QGIS is told of the change, and so is the user.
    """
    free = free_name(path, context.project(), resume=resume)
    if free != path:
        rename_result(context, path, free)
        feedback.pushWarning(
            tr("{!r} is shown by a layer of the project; writing {!r} instead.").format(path, free)
        )
    return free


def parts_of(out: str) -> Path:
    """Return the folder in which geoseg keeps the finished part of an output."""
    return Path(out + PARTS_SUFFIX)


def has_finished(out: str) -> bool:
    """Return whether a stopped run has left any block of its map."""
    return any(parts_of(out).glob("*.tif"))


def is_temporary(path: str) -> bool:
    """Return whether QGIS throws a path away at its end."""
    return _is_inside(path, QgsProcessingUtils.tempFolder())


def remove_parts(out: str) -> None:
    """Throw the finished part of an output away."""
    shutil.rmtree(parts_of(out), ignore_errors=True)


def _is_shown(path: Path, shown: Sequence[Path]) -> bool:
    return path.exists() and (any(_is_same(path, other) for other in shown) or _is_locked(path))


def _is_used(path: Path, resume: bool) -> bool:
    return path.exists() or (not resume and parts_of(str(path)).exists())


def _shown_files(project: QgsProject | None) -> list[Path]:
    if project is None:
        return []
    files = (file_of_layer(layer) for layer in project.mapLayers().values())
    return [Path(file) for file in files if file]


def _is_same(path: Path, other: Path) -> bool:
    try:
        return other.exists() and path.samefile(other)
    except OSError:
        return False


def _is_locked(path: Path) -> bool:
    """Return whether Windows lets nobody replace the file; elsewhere a name is always free."""
    if os.name != "nt":
        return False
    try:
        path.rename(path)
    except OSError:
        return True
    return False


def _is_inside(path: str, folder: str) -> bool:
    if not path or not folder:
        return False
    return Path(folder).resolve() in Path(path).resolve().parents


def unfinished_name(out: str) -> str:
    """Return the layer name of an unfinished map."""
    return tr("{} (unfinished)").format(Path(out).stem)
