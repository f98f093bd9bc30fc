"""Write the plugin's sentences to i18n/geoseg.ts, from which translations begin.

``python qgis_plugin/collect_strings.py`` rewrites it; with ``--check`` it only says whether it is
up to date. Qt's own collector does not see through `translate.tr`.
"""

import ast
import html
import sys
from pathlib import Path

PLUGIN = Path(__file__).parent / "geoseg_qgis"
TEMPLATE = PLUGIN / "i18n" / "geoseg.ts"
FUNCTIONS = {"tr", "mark", "translate"}


def sentences_of(source: str) -> list[tuple[int, str]]:
    """Return line and text of each translated sentence in a module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        text = node.args[-1]
        if name in FUNCTIONS and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found.append((node.lineno, text.value))
    return sorted(found)


def template() -> str:
    """Return the whole file: each sentence once, with the module that it was found in first."""
    seen: dict[str, str] = {}
    for path in sorted(PLUGIN.rglob("*.py")):
        for _, text in sentences_of(path.read_text(encoding="utf-8")):
            seen.setdefault(text, path.relative_to(PLUGIN).as_posix())
    messages = "".join(
        f'    <message>\n      <location filename="../{place}"/>\n'
        f"      <source>{html.escape(text, quote=False)}</source>\n"
        f'      <translation type="unfinished"></translation>\n    </message>\n'
        for text, place in seen.items()
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n<TS version="2.1">\n'
        f"  <context>\n    <name>geoseg</name>\n{messages}  </context>\n</TS>\n"
    )


def main() -> int:
    """Write the template, or compare it."""
    text = template()
    if "--check" not in sys.argv[1:]:
        TEMPLATE.write_text(text, encoding="utf-8")
        return 0
    is_current = TEMPLATE.is_file() and TEMPLATE.read_text(encoding="utf-8") == text
    if not is_current:
        sys.stderr.write(f"{TEMPLATE} is out of date: run {Path(__file__).name}\n")
    return 0 if is_current else 1


if __name__ == "__main__":
    sys.exit(main())
