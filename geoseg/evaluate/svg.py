"""Charts as inline SVG that stands in a page and takes its colours."""

import io
import re
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

# Drawn in these, replaced by the page's own in the SVG, so that the dark page has light lines.
INK, FAINT, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404"
PAGE_COLORS = {
    INK: "currentColor",
    FAINT: "var(--line)",
    FIRST: "var(--right)",
    SECOND: "var(--wrong)",
}


def chart_style(ink: str = INK, faint: str = FAINT) -> AbstractContextManager[None]:
    """Return the settings that all charts are drawn and written with.

    Args:
        ink: colour of text and axes.
        faint: colour of the grid.
    """
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = {  # matplotlib types each key, and not all of its versions the same
        "text.parse_math": False,
        "svg.fonttype": "none",  # text stays text: sharp, selectable, in the page's font
        "svg.hashsalt": "geoseg",  # the same numbers make the same file
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "grid.color": faint,
        "legend.frameon": False,
        **dict.fromkeys(names, ink),
    }
    return matplotlib.rc_context(settings)


def to_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Return a figure as an ``<svg>`` element that may stand in a page beside others.

    Identifiers get ``name`` in front, since all charts share the page's; what names a namespace or
    a font is dropped, and colours become the page's.

    Args:
        figure: drawn and written within `chart_style`.
        name: different from those of the page's other charts.
        alt: what the chart shows, in words.
    """
    file = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r" xmlns(:xlink)?=\"[^\"]*\"| version=\"1.1\"", "", text)
    # Some versions write the font in one, some its size apart.
    text = re.sub(r"\bfont: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    prefix = re.sub(r"\W+", "-", name).strip("-").lower()
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{prefix}-', text).replace("xlink:href=", "href=")
    for drawn, color in PAGE_COLORS.items():
        text = text.replace(drawn, color)
    head = f'<svg role="img" aria-label="{escape(alt)}" class="chart"'
    return Markup(re.sub(r"<svg width=\"[^\"]*\" height=\"[^\"]*\"", lambda _: head, text, count=1))
