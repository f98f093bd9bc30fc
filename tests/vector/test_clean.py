"""Specks and holes: the rules on drawings, then against a slow form of them on random maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import DiskFullError, OutOfMemoryError
from geoseg.vector import clean
from geoseg.vector.clean import KernelSieve, open_sieve, sieve
from geoseg.vector.memory import Bounds
from geoseg.vector.sieve_reference import ReferenceSieve, SieveRules
from tests.vector.slow_sieve import slow_sieve

UNIT = 2**20
KERNEL = clean._kernel()
kernels = pytest.mark.skipif(KERNEL is None, reason="no compiled sieve")


class Map:
    """Rows held in memory."""

    def __init__(self, values):
        self.values = np.asarray(values, np.int32)
        self.height, self.width = self.values.shape
        self.read = []

    def read_rows(self, start, stop):
        self.read.append((start, stop))
        return self.values[start:stop]


def draw(text):
    return np.array([[-1 if c == "." else int(c) for c in row] for row in text.split()])


def cleaned(values, folder, *, min_area=0.0, fill_holes=0.0, connectivity=4, **options):
    rows = sieve(
        Map(values),
        min_area_px=min_area,
        fill_holes_px=fill_holes,
        connectivity=connectivity,
        folder=folder,
        **options,
    )
    return rows.read_rows(0, rows.height)


def run_by(worker, values, weights, strip):
    """Return the map that a sieve makes of strips."""
    out = values.copy()
    for start in range(0, len(values), strip):
        rows = np.ascontiguousarray(values[start : start + strip], np.int32)
        for row, first, stop, class_id in worker.add(rows, weights[start : start + strip]):
            assert row < start + len(rows)
            out[row, first:stop] = class_id
    return out


@pytest.fixture(params=["kernel", "reference"], autouse=True)
def path(request, monkeypatch):
    """Run every test on both paths."""
    if request.param == "reference":
        monkeypatch.setattr(clean, "_kernel", lambda: None)
    elif KERNEL is None:
        pytest.skip("no compiled sieve")


RULES = {
    "a speck becomes the class that surrounds it most": (
        {"min_area": 2},
        "00111 00211 00111",
        "00111 00111 00111",
    ),
    "two regions of a class count together": (
        {"min_area": 2},
        "00000 11211 33333",
        "00000 11111 33333",
    ),
    # Class 1 would be large enough with the speck; without, it is the next speck itself.
    "of equal borders the larger region wins": ({"min_area": 3}, ".1200 .1.00", ".0000 .0.00"),
    "of equal regions the first edge wins": ({"min_area": 3}, "00211 00211", "00011 00011"),
    "specks grow together": ({"min_area": 2}, "12.33 ..033", "22.33 ..333"),
    "a region of the area stays": ({"min_area": 3}, "0000 0122 0012", "0000 0022 0022"),
    "nodata is no target and stays": ({"min_area": 5}, "0.1 ... 2.3", "0.1 ... 2.3"),
    "a hole is filled": ({"fill_holes": 3}, "11111 12211 11111", "11111 11111 11111"),
    "a hole of the area stays": ({"fill_holes": 2}, "11111 12211 11111", "11111 12211 11111"),
    "at the edge there is no hole": ({"fill_holes": 3}, "11111 11211 11211", "11111 11211 11211"),
    "at nodata there is no hole": ({"fill_holes": 3}, "1111 12.1 1111", "1111 12.1 1111"),
    "between two classes there is no hole": (
        {"fill_holes": 3},
        "11111 11211 33333",
        "11111 11211 33333",
    ),
    "holes within holes go from the inside": (
        {"fill_holes": 10},
        "11111 12221 12321 12221 11111",
        "11111 11111 11111 11111 11111",
    ),
    "a diagonal river is no chain of holes": (
        {"fill_holes": 3},
        "21111 12111 11211 11121 11112",
        "21111 12111 11211 11121 11112",
    ),
    "corners join with 8": (
        {"min_area": 3, "connectivity": 8},
        "20000 02000 00200 00000",
        "20000 02000 00200 00000",
    ),
    "corners do not join with 4": (
        {"min_area": 3},
        "20000 02000 00200 00000",
        "00000 00000 00000 00000",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule, tmp_path):
    options, before, after = RULES[rule]
    values = draw(before)
    np.testing.assert_array_equal(cleaned(values, tmp_path, **options), draw(after))


def test_rows_weigh_what_they_cover(tmp_path):
    values = draw("0000 0110 0000 0000 0110 0000")
    weights = np.array([1, 1, 1, 0.4, 0.4, 0.4])
    result = cleaned(values, tmp_path, min_area=1.5, weights=weights)
    np.testing.assert_array_equal(result, draw("0000 0110 0000 0000 0000 0000"))


def test_nothing_to_do_is_the_map_itself(tmp_path):
    rows = Map([[1, 2]])
    assert sieve(rows, min_area_px=0, fill_holes_px=0, connectivity=4, folder=tmp_path) is rows
    assert list(tmp_path.iterdir()) == []


def test_rows_are_read_once_and_told(tmp_path):
    rows, told = Map(np.zeros((7, 3))), []
    sieve(
        rows,
        min_area_px=2,
        fill_holes_px=0,
        connectivity=4,
        folder=tmp_path,
        bounds=Bounds(3),
        on_rows=told.append,
    )
    assert rows.read == [(0, 3), (3, 6), (6, 7)]
    assert told == [3, 6, 7]


@pytest.mark.parametrize("greatest", [254, 255, 65534, 65535, 2**31 - 2])
def test_any_class_id_comes_through(greatest, tmp_path):
    values = np.zeros((9, 4), np.int32)
    values[0, 1], values[3], values[5:, 2:], values[8, 0] = 7, -1, greatest, greatest
    expected = values.copy()
    expected[0, 1] = expected[8, 0] = 0
    result = cleaned(values, tmp_path, min_area=2, bounds=Bounds(2))
    np.testing.assert_array_equal(result, expected)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("last_row", "becomes"), [(398, 1), (397, 0)])
def test_a_speck_waits_for_the_far_end_of_its_neighbour(last_row, becomes, tmp_path):
    """The line below the break is large enough to win it, or is a speck too."""
    values = np.zeros((400, 5), np.int32)
    values[1 : last_row + 1, 2] = 1
    values[100, 2] = 2
    expected = np.where(values > 0, becomes, 0)
    for step in (7, 64, 400):
        result = cleaned(values, tmp_path, min_area=297.5, bounds=Bounds(step))
        np.testing.assert_array_equal(result, expected)


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clean.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(DiskFullError, match="must hold the cleaned map and cannot be written"):
        cleaned(np.zeros((2, 2)), tmp_path, min_area=2)


@st.composite
def maps(draw_from):
    height, width = draw_from(st.integers(1, 9)), draw_from(st.integers(1, 9))
    classes = draw_from(st.integers(2, 4))
    seed = draw_from(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (height, width))
    size = draw_from(st.integers(1, 3))
    values = np.repeat(np.repeat(coarse, size, 0), size, 1)[:height, :width]
    values = np.where(
        rng.random(values.shape) < 0.3, rng.integers(0, classes, values.shape), values
    )
    nodata = draw_from(st.sampled_from([0.0, 0.05, 0.3]))
    return np.where(rng.random(values.shape) < nodata, -1, values).astype(np.int32)


@settings(deadline=None, max_examples=60)
@given(
    values=maps(),
    min_area=st.integers(0, 12),
    fill_holes=st.integers(0, 20),
    corners_join=st.booleans(),
    weighted=st.booleans(),
)
def test_strips_and_paths_agree_with_the_slow_form(
    values, min_area, fill_holes, corners_join, weighted
):
    height, width = values.shape
    rules = SieveRules(
        min_area=min_area * UNIT, fill_holes=fill_holes * UNIT, corners_join=corners_join
    )
    areas = np.linspace(0.5, 1.7, height) if weighted else np.ones(height)
    weights = np.rint(areas * UNIT).astype(np.int64)
    expected = slow_sieve(values, weights, rules)
    for strip in (1, 2, 3, height):
        result = run_by(open_sieve(height, width, rules), values, weights, strip)
        np.testing.assert_array_equal(result, expected)


@kernels
@settings(deadline=None, max_examples=30)
@given(values=maps(), limit=st.integers(1, 30), spare=st.sampled_from([0, 5, 50]))
def test_when_regions_are_decided_changes_nothing(values, limit, spare):
    height, width = values.shape
    rules = SieveRules(min_area=limit // 3, fill_holes=limit, corners_join=False)
    weights = np.ones(height, np.int64)
    worker = KernelSieve(KERNEL, height, width, rules=rules, spare_records=spare)
    result = run_by(worker, values, weights, height)
    reference = run_by(ReferenceSieve(height, width, rules), values, weights, 2)
    np.testing.assert_array_equal(result, reference)


def test_what_is_held_does_not_grow_with_the_map():
    rng = np.random.default_rng(4)
    rules = SieveRules(min_area=20, fill_holes=0, corners_join=False)
    worker = ReferenceSieve(2000, 60, rules)
    held = []
    for _ in range(40):
        values = np.where(rng.random((50, 60)) < 0.05, 1, 0).astype(np.int32)
        worker.add(values, np.ones(50, np.int64))
        held.append(worker.undecided)
    assert max(held) < 60


def test_memory_that_is_short_is_said(monkeypatch, path):
    class Short:
        geoseg_sieve_new = staticmethod(lambda *_: None)

    with pytest.raises(OutOfMemoryError, match="Give a smaller --min-area or --fill-holes"):
        KernelSieve(Short(), 1, 1, rules=SieveRules(min_area=1, fill_holes=1, corners_join=False))
