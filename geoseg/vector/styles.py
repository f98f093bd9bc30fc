"""QGIS styles that show polygons in their classes' names and colours."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import quoteattr

from geoseg.vector.classes import ClassTable

OUTLINE_MM = 0.1
# Made as QGIS itself makes it, so that QGIS can add styles of its own.
STYLE_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
    f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
    styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
    owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT CURRENT_TIMESTAMP
)"""


def qml_text(classes: ClassTable, ids: Iterable[int]) -> str:
    """Return a QGIS style with one named, coloured row per class, by the field ``class_id``."""
    ids = sorted(ids)
    categories = "".join(
        f'      <category render="true" value="{i}" symbol="{k}" type="integer" '
        f"label={quoteattr(classes.name(i))}/>\n"
        for k, i in enumerate(ids)
    )
    symbols = "".join(_symbol(k, classes.color(i)) for k, i in enumerate(ids))
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22" styleCategories="Symbology">\n'
        '  <renderer-v2 type="categorizedSymbol" attr="class_id" forceraster="0" '
        'enableorderby="0" symbollevels="0">\n'
        f"    <categories>\n{categories}    </categories>\n"
        f"    <symbols>\n{symbols}    </symbols>\n"
        "  </renderer-v2>\n"
        "  <blendMode>0</blendMode>\n"
        "  <layerOpacity>1</layerOpacity>\n"
        "</qgis>\n"
    )


def store_style(gpkg: Path, layer: str, qml: str) -> None:
    """Put a style into a GeoPackage as the default of a layer."""
    connection = sqlite3.connect(gpkg)
    try:
        with connection:
            (geometry,) = connection.execute(
                "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
            ).fetchone()
            connection.execute(STYLE_TABLE)
            connection.execute(
                "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, srs_id)"
                " VALUES ('layer_styles', 'attributes', 'layer_styles', '', 0)"
            )
            connection.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
                "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, "
                "owner) VALUES ('', '', ?, ?, 'classes', ?, '', 1, 'classes of the map', '')",
                (layer, geometry, qml),
            )
    finally:
        connection.close()


def _symbol(name: int, color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    options = {
        "color": f"{red},{green},{blue},255",
        "joinstyle": "bevel",
        "outline_color": f"{red * 2 // 3},{green * 2 // 3},{blue * 2 // 3},255",
        "outline_style": "solid",
        "outline_width": str(OUTLINE_MM),
        "outline_width_unit": "MM",
        "style": "solid",
    }
    lines = "".join(
        f'            <Option type="QString" name="{key}" value="{value}"/>\n'
        for key, value in options.items()
    )
    # QGIS before 3.26 reads the properties, later ones the options.
    old = "".join(f'          <prop k="{key}" v="{value}"/>\n' for key, value in options.items())
    return (
        f'      <symbol type="fill" name="{name}" alpha="1" clip_to_extent="1" '
        'force_rhr="0">\n'
        '        <layer class="SimpleFill" enabled="1" locked="0" pass="0">\n'
        f'          <Option type="Map">\n{lines}          </Option>\n'
        f"{old}"
        "        </layer>\n"
        "      </symbol>\n"
    )
