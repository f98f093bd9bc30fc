"""The report says what the record says, is one file, and opens in a browser without complaint."""

import base64
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from geoseg.errors import InputError, MachineError
from geoseg.evaluate.report import write_report, write_training_report
from geoseg.evaluate.report_views import find_confusions
from geoseg.evaluate.wording import NONE
from tests.evaluate.records import (
    full_record,
    make_area,
    make_calibration,
    make_picture,
    make_record,
)

VOID = {"meta", "link", "img", "br"}
SECTIONS = ["curves", "classes", "confusion", "calibration", "ground", "area", "examples"]
NASTY = "<b>&\"' {{ 7 * 7 }} $x$ </td><script>alert(1)</script> 建物"


class Page(HTMLParser):
    """A parsed page: tags with their attributes, headings, tables as rows of cell texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "tags are left open"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{tag} is closed while another is open"

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "script"}:
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    def table(self, heading):
        """Return the rows of the table whose first cell holds a heading, cells stripped."""
        found = next(t for t in self.tables if t[0][0].strip().startswith(heading))
        return [[" ".join(cell.split()) for cell in row] for row in found]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(record, folder):
    return Page(write_report(record, folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full_text(tmp_path_factory):
    """Return the text of a page with every section."""
    return write_report(full_record(), tmp_path_factory.mktemp("full")).read_text("utf-8")


@pytest.fixture(scope="module")
def full_page(full_text):
    return Page(full_text)


def test_the_page_is_well_formed_and_its_anchors_exist(full_text, full_page):
    ids = full_page.attributes("id")
    assert len(ids) == len(set(ids))
    links = [href for href in full_page.attributes("href") if href.startswith("#")]
    assert {href[1:] for href in links} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", full_text)) <= set(ids)


def test_each_section_has_its_place(full_page):
    assert set(SECTIONS) <= set(full_page.attributes("id"))


def test_sections_without_figures_are_left_away(tmp_path):
    ids = page_of(make_record(), tmp_path).attributes("id")
    assert [name for name in SECTIONS if name in ids] == ["classes", "confusion"]


def test_headline_figures_equal_the_record(full_page):
    scores = make_record().scores
    assert f"mIoU {scores['miou']:.3f}" in full_page.text
    assert f"mIoU without background {scores['miou_without_background']:.3f}" in full_page.text
    assert "ECE 0.080" in full_page.text


def test_class_rows_equal_the_record_best_first(tmp_path):
    record = make_record()
    rows = page_of(record, tmp_path).table("Class")[1:]
    assert [row[0] for row in rows] == ["background", "building", "water"]
    for row, c in zip(rows[:2], record.classes, strict=False):
        shown = [f"{v:.3f}" for v in (c.iou, c.precision, c.accuracy, c.dice)]
        assert row[1:6] == [str(c.id), *shown]
        assert row[6:] == [f"{n / 12.5:.1f} %" for n in (c.pixels, c.predicted_pixels)]


def test_undefined_scores_are_dashes_which_are_explained(tmp_path):
    page = page_of(make_record(), tmp_path)
    assert page.table("Class")[-1] == ["water", "3", *[NONE] * 4, "0.0 %", "0.0 %"]
    assert "Neither labelled nor predicted, and left out of the means: water." in page.text
    assert "nan" not in page.text.lower()


def test_the_confusion_table_has_shares_and_counts(tmp_path):
    rows = page_of(make_record(), tmp_path).table("labelled")
    assert rows[1] == ["background", "93.8 %900", "6.2 %60", "0.0 %0"]
    assert rows[3] == ["water", *[f"{NONE}0"] * 3]


def test_mistakes_are_listed_largest_first():
    found = find_confusions(make_record())
    assert [(c.label, c.predicted, c.pixels) for c in found] == [
        ("background", "building", 60),
        ("building", "background", 40),
    ]
    assert (found[0].label_share, found[0].error_share) == (60 / 960, 0.6)


def test_a_map_without_mistakes_lists_none():
    assert find_confusions(make_record(counts=((5, 0, 0), (0, 5, 0), (0, 0, 5)))) == []


def test_a_large_confusion_matrix_is_a_heat_map(tmp_path):
    names = [f"class {k}" for k in range(40)]
    counts = [[1000 if i == j else 1 for j in range(40)] for i in range(40)]
    page = page_of(make_record(names, counts), tmp_path)
    assert "Confusion matrix of 40 classes as a heat map" in page.attributes("aria-label")
    assert not any(t[0][0].strip().startswith("labelled") for t in page.tables)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"in_sample": True}, "In-sample: the model was trained on these data"),
        ({"in_sample": False}, "Held out: the model was not trained on these data."),
        ({}, "does not say whether the model has seen these data"),
        ({"gsd_m": None}, "sampling distance (GSD) of the data is unknown"),
        ({"gsd_m": 0.25}, "Ground sampling distance (GSD): 0.25 m."),
        ({"gsd_m": [0.25, 0.5]}, "Ground sampling distance (GSD): 0.25 to 0.5 m."),
        ({"gsd_m": [0.30001, 0.3]}, "Ground sampling distance (GSD): 0.3 m."),
    ],
)
def test_the_page_says_what_kind_of_numbers_it_has(tmp_path, settings, sentence):
    text = page_of(make_record(settings=settings), tmp_path).text
    assert sentence in text
    assert "Means are macro: each of 2 classes counts the same" in text
    assert "1,250 pixels of 4 images were scored. 50 (3.8 %) were left out" in text


def test_notes_and_settings_are_shown(full_page):
    assert "Only labelled ground counts." in full_page.text
    assert ["protocol.mode", "whole"] in [row for table in full_page.tables for row in table]


def test_only_files_beside_the_page_are_links(full_page):
    assert "evaluation.json" in full_page.attributes("href")
    assert not any("elsewhere" in href for href in full_page.attributes("href"))
    assert "elsewhere/model.safetensors" in full_page.text


def test_a_file_name_cannot_become_a_script(tmp_path):
    page = page_of(make_record(files={"x": "javascript:alert(1)"}), tmp_path)
    assert "javascript%3Aalert%281%29" in page.attributes("href")


def test_estimated_areas_have_an_interval(tmp_path):
    page = page_of(make_record(area=make_area()), tmp_path)
    row = page.table("Class")  # the first table is of the scores
    row = next(t for t in page.tables if "Mapped" in t[0][1])[1]
    assert [" ".join(cell.split()) for cell in row] == [
        *("building", "3.14", "3.30", "3.12 to 3.48", "90.0 % ± 2.0 %".replace(" ±", "±")),
        *("80.0 %", "80"),
    ]
    assert "Area (estimated)" in page.text
    assert "200 points of a stratified random sample" in page.text


def test_descriptive_areas_have_none_and_say_so(tmp_path):
    page = page_of(make_record(area=make_area("descriptive")), tmp_path)
    table = next(t for t in page.tables if "Mapped" in t[0][1])
    assert [len(row) for row in table] == [2, 2]
    assert "Area (descriptive)" in page.text
    assert "Counted in the map, without interval." in page.text
    assert "95 %" not in page.text


def test_what_comes_from_outside_is_escaped(tmp_path):
    record = full_record(
        names=("background", NASTY, "water"),
        model=NASTY,
        data=NASTY,
        notes=(NASTY,),
        settings={NASTY: NASTY},
        files={NASTY: NASTY},
        versions={NASTY: NASTY},
        pictures=(make_picture(NASTY),),
        curves={NASTY: ((1, 1.0), (2, 2.0)), "miou": ((1, 0.5),)},
    )
    page = page_of(record, tmp_path)
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 1
    assert not [tag for tag, _ in page.tags if tag == "b"]
    for where in (page.text, *(t for t in page.attributes("alt") if t.startswith("Image"))):
        assert " ".join(NASTY.split()) in where
    assert "49" not in page.text.split()


def test_nothing_is_fetched(full_text, full_page):
    assert "http" not in full_text.replace("http-equiv", "")
    assert "@import" not in full_text
    assert "url(" not in full_text.replace("url(#", "")
    sources = full_page.attributes("src")
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    links = [h for h in full_page.attributes("href") if not h.startswith(("#", "data:"))]
    assert links == ["evaluation.json"]


def test_the_page_forbids_itself_other_sources(full_text, full_page):
    policy = next(attrs["content"] for _, attrs in full_page.tags if "http-equiv" in attrs)
    script = full_text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def test_pictures_and_charts_have_words(full_page):
    assert all(attrs.get("alt") for tag, attrs in full_page.tags if tag == "img")
    charts = [attrs for tag, attrs in full_page.tags if tag == "svg"]
    assert len(charts) == 5
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    headings = [attrs for tag, attrs in full_page.tags if tag == "th"]
    assert all(attrs["scope"] in {"row", "col"} for attrs in headings)


def test_the_same_record_makes_the_same_page(tmp_path, full_text):
    assert write_report(full_record(), tmp_path).read_text("utf-8") == full_text


def test_a_usual_page_stays_below_five_megabytes(tmp_path):
    chips = [make_picture(f"chip {k}", "worst", side=224, seed=k) for k in range(12)]
    record = full_record(pictures=(make_picture("scene", "overview", side=512), *chips))
    # Noise is the worst that can happen to a picture's size.
    assert write_report(record, tmp_path).stat().st_size < 5e6


def test_the_best_temperature_is_drawn_only_if_it_differs(tmp_path):
    same = dataclasses.replace(make_calibration(), best_temperature=1.0)
    assert (
        "with temperature 1.4"
        in page_of(make_record(calibration=make_calibration()), tmp_path).text
    )
    assert "with temperature 1" not in page_of(make_record(calibration=same), tmp_path).text


def test_a_folder_that_is_a_file_gives_a_sentence(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(
        MachineError, match=r"report.html' cannot be written: .+ Give another folder"
    ):
        write_report(make_record(), tmp_path / "out")


METRICS = (
    "step,train_loss,miou,iou_building\n1,1.5,,\n2,1.2,0.4,0.3\n3,1.1,0.5,0.2\n4,1.3,0.45,0.6\n"
)


def test_a_training_report_shows_curves_and_scores(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    page = Page(write_training_report(tmp_path, make_record()).read_text(encoding="utf-8"))
    assert {"curves", "classes"} <= set(page.attributes("id"))
    assert "best mIoU in validation, at step 3." in page.text
    assert page.table("Series")[1:] == [
        ["train_loss", "4", "1.3", "1.1", "3"],
        ["miou", "4", "0.45", "0.5", "3"],
        ["iou_building", "4", "0.6", "0.6", "4"],
    ]


def test_a_training_report_without_scores_shows_curves(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "metrics.csv").write_text(METRICS)
    page = Page(write_training_report(folder).read_text(encoding="utf-8"))
    assert page.text.startswith("Training of my run")
    assert "classes" not in page.attributes("id")


def test_a_run_without_figures_says_so(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n")
    page = Page(write_training_report(tmp_path).read_text(encoding="utf-8"))
    assert "The run has logged no figures yet." in page.text


def test_a_training_report_without_metrics_gives_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"metrics file '.*metrics.csv' cannot be read"):
        write_training_report(tmp_path)


@pytest.fixture
def chromium(tmp_path):
    """Return a function that opens a page in headless Chromium: (DOM, console lines)."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"browser not run: found none of {', '.join(names)}")
    options = [
        *("--headless", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--dump-dom"),
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=2000",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--no-sandbox")  # Chromium has no sandbox for root, as containers run

    def open_page(path):
        done = subprocess.run(
            [program, *options, path.as_uri()],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return open_page


def test_chromium_opens_the_page_without_complaint(tmp_path, chromium, full_text):
    path = tmp_path / "report.html"
    path.write_text(full_text, "utf-8")
    dom, console = chromium(path)
    assert console == []
    assert "<button" in dom, "the page's script did not run"


def test_chromium_would_complain_of_a_foreign_source(tmp_path, chromium):
    path = write_report(make_record(), tmp_path)
    foreign = '<img alt="" src="https://example.invalid/a.png"></body>'
    path.write_text(path.read_text("utf-8").replace("</body>", foreign), "utf-8")
    _, console = chromium(path)
    assert any("Content Security Policy" in line for line in console)


def test_a_click_on_a_heading_sorts_with_undefined_values_last(tmp_path, chromium):
    path = write_report(make_record(), tmp_path)
    text = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text("utf-8"))
    click = 'document.querySelector("#classes th:nth-child(3) button").click();'
    path.write_text(text.replace("</body>", f"<script>{click}</script></body>"), "utf-8")
    dom, console = chromium(path)
    assert console == []
    rows = Page(dom).table("Class")[1:]
    assert [row[0] for row in rows] == ["building", "background", "water"]
