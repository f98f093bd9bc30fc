"""What a class map says about its classes: their names and colours."""

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from rasterio.io import DatasetReader, MemoryFile
from rasterio.shutil import copy as copy_raster

from geoseg.errors import UsageError
from geoseg.raster.gdal import GDAL_ERRORS

# Usages of a column in a raster attribute table, as GDAL numbers them.
RAT_NAME, RAT_MIN_MAX, RAT_RED, RAT_GREEN, RAT_BLUE = 2, 5, 6, 7, 8
GOLDEN_ANGLE = 0.6180339887


@dataclass(frozen=True)
class ClassTable:
    """Names and colours by class id, as far as the map has them.

    Attributes:
        names: by id.
        colors: ``#rrggbb`` by id.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, str] = field(default_factory=dict)

    def name(self, class_id: int) -> str:
        """Return a class's name; ``class N`` where the map has none."""
        return self.names.get(class_id) or f"class {class_id}"

    def color(self, class_id: int) -> str:
        """Return a class's colour; one made of its id where the map has none."""
        return self.colors.get(class_id) or _made_color(class_id)

    def ids(self, wanted: Iterable[int | str], option: str) -> frozenset[int]:
        """Return the ids of classes given by id or name.

        Raises:
            UsageError: a name that the map does not have.
        """
        return frozenset(self._id(name, option) for name in wanted)

    def _id(self, wanted: int | str, option: str) -> int:
        if isinstance(wanted, int):
            return wanted
        for same in (str.strip, lambda text: text.strip().casefold()):
            found = [i for i, name in self.names.items() if same(name) == same(wanted)]
            if len(found) == 1:
                return found[0]
        if wanted.strip().lstrip("-").isdigit():
            return int(wanted)
        known = ", ".join(f"{i} {name!r}" for i, name in sorted(self.names.items())[:20])
        has = f"the map has {known}" if known else "the map names no classes: give ids"
        raise UsageError(f"{option}: no class {wanted!r}; {has}.")


def read_classes(dataset: DatasetReader) -> ClassTable:
    """Return names and colours from a raster's categories, attribute table and colour table.

    rasterio has no way to the first two; GDAL writes them all into a VRT.
    """
    with MemoryFile(ext=".vrt") as memory:
        try:
            copy_raster(dataset, memory.name, driver="VRT")
            root = ElementTree.fromstring(memory.read())
        except (*GDAL_ERRORS, ElementTree.ParseError):  # no names is no fault of the map
            return ClassTable()
    band = root.find("VRTRasterBand")
    if band is None:
        return ClassTable()
    names = {
        i: (c.text or "").strip() for i, c in enumerate(band.findall("CategoryNames/Category"))
    }
    colors = {
        i: _hex([int(e.get(f"c{k}", "0")) for k in (1, 2, 3)])
        for i, e in enumerate(band.findall("ColorTable/Entry"))
    }
    rat_names, rat_colors = _attribute_table(band.find("GDALRasterAttributeTable"))
    names = {i: name for i, name in names.items() if name}
    return ClassTable({**rat_names, **names}, {**rat_colors, **colors})


def _attribute_table(
    table: ElementTree.Element | None,
) -> tuple[dict[int, str], dict[int, str]]:
    """Return names and colours by value from a raster attribute table."""
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    if table is None:
        return names, colors
    usages = [int(f.findtext("Usage") or -1) for f in table.findall("FieldDefn")]
    titles = [(f.findtext("Name") or "").lower() for f in table.findall("FieldDefn")]
    value = _column(usages, titles, RAT_MIN_MAX, "value")
    name = _column(usages, titles, RAT_NAME, "class_name")
    rgb = [_column(usages, titles, usage, "") for usage in (RAT_RED, RAT_GREEN, RAT_BLUE)]
    for row in table.findall("Row"):
        cells = [cell.text or "" for cell in row.findall("F")]
        index = int(row.get("index", "0")) if value is None else int(float(cells[value] or 0))
        if name is not None and cells[name].strip():
            names[index] = cells[name].strip()
        if all(column is not None for column in rgb):
            colors[index] = _hex([int(float(cells[c] or 0)) for c in rgb if c is not None])
    return names, colors


def _column(usages: Sequence[int], titles: Sequence[str], usage: int, title: str) -> int | None:
    if usage in usages:
        return usages.index(usage)
    return titles.index(title) if title in titles else None


def _hex(rgb: Sequence[int]) -> str:
    return "#" + "".join(f"{min(max(c, 0), 255):02x}" for c in rgb)


def _made_color(class_id: int) -> str:
    """Return a colour that differs from those of the ids around it."""
    rgb = colorsys.hsv_to_rgb(class_id * GOLDEN_ANGLE % 1.0, 0.55, 0.85)
    return _hex([round(255 * c) for c in rgb])
