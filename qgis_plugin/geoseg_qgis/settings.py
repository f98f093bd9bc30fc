"""What the user has chosen, kept by QGIS under ``geoseg/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qgis.core import QgsApplication, QgsSettings

PREFIX = "geoseg/"
BACKENDS = ("auto", "cpu")


def plugin_version() -> str:
    """Return the version that metadata.txt names."""
    import configparser  # here, for a start of QGIS that loads as little as can be

    parser = configparser.ConfigParser(interpolation=None)
    parser.read(Path(__file__).parent / "metadata.txt", encoding="utf-8")
    return parser["general"]["version"]


def default_source() -> str:
    """Return the requirement of the engine that goes with this plugin."""
    return f"geoseg=={plugin_version()}"


class Settings:
    """Reads and writes QGIS's settings of this plugin; a property each."""

    def __init__(self) -> None:
        self._store = QgsSettings()

    @property
    def python_path(self) -> str:
        """Path of the engine's Python or of its environment; empty: it is looked for."""
        return self._text("python_path")

    @python_path.setter
    def python_path(self, path: str) -> None:
        self._write("python_path", path)

    @property
    def engine_source(self) -> str:
        """What is installed: a requirement, a wheel, a folder with one, or a checkout."""
        return self._text("engine_source") or default_source()

    @engine_source.setter
    def engine_source(self, source: str) -> None:
        self._write("engine_source", source)

    @property
    def backend(self) -> str:
        """``auto``: the torch that fits the machine's graphics card; ``cpu``: the small one."""
        backend = self._text("backend")
        return backend if backend in BACKENDS else "auto"

    @backend.setter
    def backend(self, backend: str) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"expected one of {', '.join(BACKENDS)}; got {backend!r}")
        self._write("backend", backend)

    @property
    def offline_folder(self) -> str:
        """Folder of wheels that replaces the network; empty: the network is used."""
        return self._text("offline_folder")

    @offline_folder.setter
    def offline_folder(self, folder: str) -> None:
        self._write("offline_folder", folder)

    @property
    def proxy(self) -> str:
        """Address of the proxy for installing, ``http://host:port``; empty: the system's."""
        return self._text("proxy")

    @proxy.setter
    def proxy(self, address: str) -> None:
        self._write("proxy", address)

    @property
    def model_files(self) -> list[str]:
        """Model files the user has added, in his order."""
        value = self._store.value(PREFIX + "model_files", [])
        # A list of one comes back as a text from some of Qt's stores.
        values = [value] if isinstance(value, str) else list(value or [])
        return [str(path) for path in values if path]

    @model_files.setter
    def model_files(self, paths: Sequence[str]) -> None:
        self._write("model_files", list(dict.fromkeys(map(str, paths))))

    def managed_folder(self) -> Path:
        """Return the folder in the QGIS profile where "Install engine" puts its environment."""
        return Path(QgsApplication.qgisSettingsDirPath()) / "geoseg"

    def _text(self, name: str) -> str:
        return str(self._store.value(PREFIX + name, "") or "").strip()

    def _write(self, name: str, value: Any) -> None:
        self._store.setValue(PREFIX + name, value)
