"""The user's language."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QTranslator

CONTEXT = "geoseg"
FOLDER = Path(__file__).parent / "i18n"


def tr(text: str) -> str:
    """Return a sentence of the plugin in the language of QGIS, or as it is."""
    return QCoreApplication.translate(CONTEXT, text)


def mark(text: str) -> str:
    """Return a sentence as it is: it is collected for translation here, and shown elsewhere."""
    return text


def install_translator() -> QTranslator | None:
    """Load the language of QGIS and return it, or None where there is no translation."""
    translator = QTranslator()
    found = translator.load(f"geoseg_{QgsApplication.locale()}", str(FOLDER))
    if not found:
        return None
    QCoreApplication.installTranslator(translator)
    return translator


def remove_translator(translator: QTranslator | None) -> None:
    """Take a language away again."""
    if translator is not None:
        QCoreApplication.removeTranslator(translator)
