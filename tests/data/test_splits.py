from dataclasses import replace

import numpy as np
import pyproj
import pytest
import shapely

from geoseg.config.run import SplitConfig
from geoseg.data.patches import PatchGrid
from geoseg.data.scenes import Scene
from geoseg.data.splits import divide_scenes, flat_crs, flat_grounds, scene_groups
from geoseg.errors import InputError, UsageError
from geoseg.types import Window
from tests.data.marks import UTM, grid_of, north_up, rotated

SPLITS = ("train", "val", "test")


def scene(name, left=500000.0, top=5000000.0, *, size_px=1000, gsd_m=0.5, transform=None, crs=UTM):
    grid = grid_of(transform or north_up(gsd_m, left, top), size_px, size_px, crs)
    return Scene(name, name, grid, (gsd_m, gsd_m))


def names(scenes):
    return [s.name for s in scenes]


def test_scenes_that_overlap_or_touch_are_one():
    scenes = [
        scene("a"),
        scene("far", left=510000),
        scene("beside a", left=500500),
        scene("half below that", left=500750, top=4999700),
        scene("corner to corner with a", left=499500, top=5000500),
        scene("a gap of two pixels to far", left=510501),
    ]
    assert scene_groups(scenes) == [[0, 2, 3, 4], [1], [5]]


def test_scenes_of_different_crs_meet_on_the_ground():
    x, y = pyproj.Transformer.from_crs(UTM, "EPSG:2180", always_xy=True).transform(500200, 4999800)
    there = scene("b", transform=north_up(0.5, x, y), crs="EPSG:2180")
    assert scene_groups([scene("a"), there, scene("c", left=520000)]) == [[0, 1], [2]]


def test_scenes_without_place_stand_alone():
    bare = [Scene(name, name, PatchGrid("", north_up(1), 10, 10)) for name in "ab"]
    assert scene_groups(bare) == [[0], [1]]


@pytest.mark.parametrize("by", ["scene", "chip"])
def test_every_file_falls_into_one_split_drawn_by_the_seed(by):
    scenes = [scene(str(i), left=500000 + 2000 * i) for i in range(10)]
    config = SplitConfig(by=by, val_share=0.3, test_share=0.2)
    parts = divide_scenes(scenes, config)
    assert [len(parts[name]) for name in SPLITS] == [5, 3, 2]
    assert sorted(n for name in SPLITS for n in names(parts[name])) == names(scenes)
    assert parts == divide_scenes(scenes, config)
    assert parts != divide_scenes(scenes, replace(config, seed=1))
    assert divide_scenes(scenes, config, has_test=True)["test"] == ()


def test_chips_divides_neighbours_only_when_asked():
    chips = [scene(str(i), left=500000 + 500 * i) for i in range(4)]
    with pytest.raises(
        InputError,
        match=r"1 scene\(s\), where files that overlap or touch are one cannot be divided into "
        r"train, 1 for val and 0 for test\. Give by: cell",
    ):
        divide_scenes(chips, SplitConfig(by="scene"))
    assert len(divide_scenes(chips, SplitConfig(by="chip"))["val"]) == 1


def test_a_held_out_scene_takes_its_neighbours_along():
    scenes = [scene("a"), scene("a2", left=500400), scene("b", left=520000)]
    for seed in range(4):
        parts = divide_scenes(scenes, SplitConfig(by="scene", val_share=0.5, seed=seed))
        assert {"a" in names(p) for p in parts.values()} == {True, False}
        assert all(("a" in names(p)) == ("a2" in names(p)) for p in parts.values())


@pytest.mark.parametrize("transform", [None, rotated(0.5)])
def test_cells_divide_every_pixel_into_one_split(transform):
    whole = scene("a", size_px=800, transform=transform)
    config = SplitConfig(by="cell", cell_m=70, val_share=0.25, test_share=0.15)
    parts = divide_scenes([whole], config)
    window = Window(0, 0, 800, 800)
    masks = [parts[name][0].region.mask(window) for name in SPLITS]
    assert (np.sum(masks, axis=0) == 1).all()
    shares = [mask.mean() for mask in masks]
    np.testing.assert_allclose(shares, (0.6, 0.25, 0.15), atol=0.06)


def test_overlapping_scenes_share_their_cells():
    scenes = [scene("a", size_px=600), scene("b", left=500150, size_px=600)]
    parts = divide_scenes(scenes, SplitConfig(by="cell", cell_m=60, val_share=0.4))
    flat = flat_crs(scenes)
    train, val = (shapely.union_all(flat_grounds(parts[name], flat)) for name in ("train", "val"))
    assert shapely.area(train & val) < 1
    assert shapely.area(train | val) == pytest.approx(450 * 300, rel=0.01)


def test_cells_are_metres_on_the_ground_in_degrees_too():
    degrees = north_up(4e-6, 15.0, 60.0)  # 0.22 m by 0.45 m
    parts = divide_scenes(
        [scene("a", transform=degrees, size_px=2000, crs="EPSG:4326")],
        SplitConfig(by="cell", cell_m=100, val_share=0.5),
    )
    areas = []
    for part in parts.values():
        for member in part:
            areas += [shapely.area(p) * 0.2236 * 0.4457 for p in member.region.polygons]
    assert np.median(areas) == pytest.approx(100 * 100, rel=0.01)


def test_cells_keep_to_a_region_that_is_there_already():
    whole = scene("a", size_px=800)
    left = whole.in_pixels([shapely.box(500000, 4999600, 500200, 5000000)])
    config = SplitConfig(by="cell", cell_m=50, val_share=0.4)
    parts = divide_scenes([replace(whole, region=left)], config)
    window = Window(0, 0, 800, 800)
    masks = [parts[name][0].region.mask(window) for name in ("train", "val")]
    assert not masks[0][:, 400:].any()
    np.testing.assert_array_equal(
        masks[0] ^ masks[1], np.arange(800)[None] < np.full((800, 1), 400)
    )


def test_only_labelled_ground_counts_for_cells():
    whole = scene("a", size_px=800)
    labelled = whole.in_pixels([shapely.box(500000, 4999990, 500400, 5000000)])
    parts = divide_scenes(
        [replace(whole, labelled=labelled)], SplitConfig(by="cell", cell_m=40, val_share=0.5)
    )
    window = Window(0, 0, 800, 800)
    held = parts["val"][0].region.mask(window)[:20].mean()
    assert held == pytest.approx(0.5, abs=0.11)


def test_one_cell_cannot_be_divided():
    with pytest.raises(
        InputError,
        match=r"cell\(s\) of 50000 m cannot be divided .* Give a smaller data.split.cell",
    ):
        divide_scenes([scene("a")], SplitConfig(by="cell", cell_m=50_000, val_share=1.0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(by="cell", cell_m=0), r"cell_m: expected metres above 0; got 0"),
        (SplitConfig(by="cell"), r"cell needs scenes with a CRS; 'bare' has none"),
    ],
)
def test_cells_need_a_place_and_a_size(config, message):
    bare = Scene("bare", "bare", PatchGrid("", north_up(1), 10, 10))
    with pytest.raises(UsageError, match=message):
        divide_scenes([scene("a") if config.cell_m == 0 else bare], config)
