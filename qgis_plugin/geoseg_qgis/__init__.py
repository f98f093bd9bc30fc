"""geoseg for QGIS: land-cover maps from imagery, by geoseg's own process.

Walk: toolbar → ``plugin.open_predict_dialog`` → ``algorithms.predict`` → ``client.build_command``
→ ``runner.run`` ⇄ ``geoseg predict --progress json`` → ``results`` and ``styles`` → layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qgis.gui import QgisInterface

    from geoseg_qgis.plugin import GeosegPlugin


def classFactory(iface: QgisInterface | None) -> GeosegPlugin:  # noqa: N802
    """Return the plugin; QGIS calls this when it loads it, qgis_process without an interface."""
    from geoseg_qgis.plugin import GeosegPlugin

    return GeosegPlugin(iface)
