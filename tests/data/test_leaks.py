from dataclasses import dataclass, replace

import pytest
import shapely

from geoseg.config.run import SplitConfig
from geoseg.data.chips import Chip
from geoseg.data.leaks import check_leak, format_area
from geoseg.data.sample import Split
from geoseg.data.splits import divide_scenes
from geoseg.types import Window
from tests.data.marks import north_up
from tests.data.test_splits import scene


@dataclass
class Scenes:
    scenes: tuple


@dataclass
class Chips:
    chips: tuple


def of_scenes(*scenes):
    return Split(Scenes(scenes), (), names=tuple(s.path for s in scenes))


def of_chips(*chips):
    return Split(Chips(chips), (), names=tuple(c.name for c in chips))


def of_names(*names):
    return Split(Scenes(()), (), names=names)


def test_shared_ground_is_said_with_its_area():
    train = of_scenes(scene("a.tif"), scene("b.tif", left=530000))
    val = of_scenes(scene("c.tif", left=500450), scene("d.tif", left=540000))
    (sentence,) = check_leak(train, val)
    assert "share 2.5 ha of ground, 5.0% of the validation's" in sentence
    assert "most of it in 'a.tif' and 'c.tif'" in sentence


def test_ground_is_shared_across_crs():
    degrees = north_up(4e-6, 15.0, 45.1535)
    val = of_scenes(scene("b.tif", transform=degrees, crs="EPSG:4326", size_px=300))
    assert check_leak(of_scenes(scene("a.tif")), val) != ()


def test_neighbouring_files_are_said():
    train = of_scenes(scene("a.tif"), scene("b.tif", left=530000))
    val = of_scenes(scene("c.tif", left=500500), scene("d.tif", left=540000))
    (sentence,) = check_leak(train, val)
    assert sentence.startswith(
        "1 of 2 validation files touch a training file, for example 'c.tif' and 'a.tif'"
    )


def test_a_file_in_both_splits_shares_all_its_ground():
    sentences = check_leak(of_scenes(scene("a.tif")), of_scenes(scene("a.tif")))
    assert "100.0% of the validation's, most of it in 'a.tif':" in sentences[0]


@pytest.mark.parametrize("by", ["cell", "scene"])
def test_division_by_place_does_not_leak(by):
    scenes = [scene(f"{i}.tif", left=500000 + 700 * i) for i in range(5)]
    parts = divide_scenes(scenes, SplitConfig(by=by, cell_m=100))
    assert check_leak(of_scenes(*parts["train"]), of_scenes(*parts["val"])) == ()


def test_division_by_chip_leaks():
    scenes = [scene(f"{i}.tif", left=500000 + 500 * i) for i in range(5)]
    parts = divide_scenes(scenes, SplitConfig(by="chip"))
    (sentence,) = check_leak(of_scenes(*parts["train"]), of_scenes(*parts["val"]))
    assert "touch a training file" in sentence


def test_only_labelled_ground_of_a_region_counts():
    whole = scene("a.tif")
    left, right = (
        replace(whole, region=whole.in_pixels([shapely.box(x, 4999500, x + 250, 5000000)]))
        for x in (500000, 500250)
    )
    assert check_leak(of_scenes(left), of_scenes(right)) == ()


def test_a_chip_in_both_splits_is_said():
    chips = [Chip(str(i), f"{i}.png", f"{i}_m.png") for i in range(3)]
    (sentence,) = check_leak(of_chips(*chips[:2]), of_chips(*chips[1:]))
    assert sentence.startswith(
        "1 of 2 validation files are training files, too, for example '1.png"
    )


def test_windows_of_one_image_are_different_chips_of_one_scene():
    windows = [Window(0, col, 8, 8) for col in (0, 8, 16)]
    chips = [Chip(f"s_{i}", "s.tif", "s_m.tif", w, "s") for i, w in enumerate(windows)]
    (sentence,) = check_leak(of_chips(*chips[:2]), of_chips(chips[2]))
    assert sentence.startswith("1 of 1 validation chips seem to be cut from scenes of training")


@pytest.mark.parametrize(
    ("train", "val", "leaks"),
    [
        (("M-33-20_0", "M-33-20_1"), ("M-33-20_2",), True),
        (("x/tile1_part001",), ("x/tile1_part002",), True),
        (("scene7-12-4",), ("scene7-12-5",), True),
        (("warsaw_1",), ("krakow_1",), False),
        (("2007_000129",), ("2007_000033",), False),
        (("IMG_0001",), ("IMG_0002",), False),
        (("0", "1"), ("2", "3"), False),
    ],
)
def test_names_tell_chips_of_one_scene(train, val, leaks):
    assert bool(check_leak(of_names(*train), of_names(*val))) == leaks


def test_areas_are_written_as_people_would():
    assert [format_area(a) for a in (7.25, 25000, 3.2e6)] == ["7.25 m2", "2.5 ha", "3.2 km2"]
