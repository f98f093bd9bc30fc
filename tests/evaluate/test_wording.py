"""Numbers in the report have sensible digits and units."""

import math

import pytest

from geoseg.evaluate import wording
from geoseg.evaluate.wording import NONE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
        (0.1234, "12.3 %"),
        (0.0004, "< 0.1 %"),
        (0.9996, "> 99.9 %"),
        (math.nan, NONE),
        (None, NONE),
    ],
)
def test_shares(value, text):
    assert wording.share_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.61249, "0.612"), (1.0, "1.000"), (math.nan, NONE), (None, NONE)],
)
def test_scores(value, text):
    assert wording.score_text(value) == text


@pytest.mark.parametrize(
    ("areas", "unit", "text"),
    [
        ((5_000.0, 12.3), "m²", "5,000"),
        ((52_000.0, None), "ha", "5.20"),
        ((520_000.0, math.nan), "ha", "52.0"),
        ((2.5e9,), "km²", "2,500"),
        ((), "m²", NONE),
    ],
)
def test_areas_choose_their_unit_by_the_largest(areas, unit, text):
    chosen = wording.choose_area_unit(areas)
    assert chosen.name == unit
    assert wording.area_text(areas[0] if areas else None, chosen) == text


@pytest.mark.parametrize(
    ("note", "text"),
    [("not labelled: water", "Not labelled: water."), ("Ready!", "Ready!"), ("", "")],
)
def test_notes_become_sentences(note, text):
    assert wording.sentence(note) == text


def test_settings_are_flat_words():
    settings = {"a": {"b": 1, "c": {"d": None}}, "ratios": (0.5, 1.0), "flip": True, "empty": {}}
    assert wording.flat_settings(settings) == [
        ("a.b", "1"),
        ("a.c.d", NONE),
        ("ratios", "0.5, 1"),
        ("flip", "yes"),
        ("empty", NONE),
    ]
