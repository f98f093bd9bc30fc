"""The plugin's own texts: what translators get, and what the guide shows."""

import re
import subprocess
import sys

from tests.qgis.session import PLUGINS

GUIDE = PLUGINS / "geoseg_qgis" / "docs" / "index.html"


def test_the_template_of_translations_is_up_to_date():
    script = PLUGINS / "collect_strings.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_guide_shows_pictures_that_are_there_and_no_others():
    shown = set(re.findall(r'src="images/([^"]+)"', GUIDE.read_text(encoding="utf-8")))
    assert shown == {path.name for path in (GUIDE.parent / "images").iterdir()}


def test_the_help_button_of_each_algorithm_finds_its_chapter():
    ids = set(re.findall(r'id="([^"]+)"', GUIDE.read_text(encoding="utf-8")))
    assert {"segment", "vectorize", "teach", "evaluate", "describe"} <= ids
