"""Labels are read by ids or by the colours of the classes, whichever their values show."""

import numpy as np
import pytest
import rasterio

from geoseg.data.patch_reader import grid_of
from geoseg.data.sample import IGNORE
from geoseg.errors import InputError, UsageError
from geoseg.evaluate import label_values
from geoseg.evaluate.labels import LabelOptions, open_labels
from geoseg.listener import Listener
from geoseg.raster.gdal import quiet_georeference
from geoseg.raster.info import inspect_raster
from geoseg.raster.reader import open_raster
from geoseg.spec import ClassSpec
from geoseg.types import Window

CLASSES = (
    ClassSpec(0, "building", "#3C1098"),
    ClassSpec(1, "land", "#8429F6"),
    ClassSpec(4, "road", "#6EC1E4"),
)
BUILDING, LAND, ROAD = (60, 16, 152), (132, 41, 246), (110, 193, 228)
GREY, BLACK, WHITE = (155, 155, 155), (0, 0, 0), (255, 255, 255)
SHAPE = (20, 30)
ALL = Window(0, 0, *SHAPE)


@pytest.fixture
def grid(make_raster):
    return grid_at(make_raster(np.zeros(SHAPE, np.uint8), "map.tif"))


@pytest.fixture
def make_palette(make_raster):
    def make(values, palette, name="palette.tif", **profile):
        path = make_raster(values, name, photometric="palette", **profile)
        with quiet_georeference(), rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, palette)
        return path

    return make


def grid_at(path):
    with quiet_georeference(), open_raster(str(path)) as dataset:
        return grid_of(inspect_raster(dataset, str(path)))


def values_of(*ids, seed=0):
    return np.random.default_rng(seed).choice(np.array(ids, np.uint8), SHAPE)


def read(path, grid, classes=CLASSES, **options):
    labels = open_labels(path, grid, classes, LabelOptions(**options))
    return labels.read(ALL), labels.note


def test_a_palette_that_contradicts_the_ids_is_read_by_its_colours(make_palette, grid):
    values = values_of(0, 1, 2)
    path = make_palette(values, {0: LAND, 1: ROAD, 2: BUILDING, 3: GREY})
    mask, note = read(path, grid)
    assert (mask == np.array([1, 2, 0])[values]).all()
    assert note == (
        "the labels are read by the colours of their palette, which contradict their ids: value 0 "
        "has the colour of 'land' (#8429F6)"
    )


def test_black_white_and_transparent_entries_of_a_palette_are_not_scored(make_palette, grid):
    values = values_of(0, 1, 2, 3)
    path = make_palette(values, {0: LAND, 1: BUILDING, 2: BLACK, 3: WHITE})
    mask, note = read(path, grid)
    assert (mask == np.array([1, 0, IGNORE, IGNORE])[values]).all()
    black, white = (values == 2).sum(), (values == 3).sum()
    assert f"#000000 ({black} px)" in note
    assert f"#FFFFFF ({white} px)" in note


def test_ids_of_a_map_with_the_classes_palette_stay_ids(make_palette, grid):
    values = values_of(0, 1, 4, 255)
    path = make_palette(values, {0: BUILDING, 1: LAND, 4: ROAD}, nodata=255)
    mask, note = read(path, grid)
    channel = {0: 0, 1: 1, 4: 2, 255: IGNORE}
    assert (mask == np.vectorize(channel.get)(values)).all()
    assert note == ""


@pytest.mark.parametrize(
    "palette",
    [
        {0: (1, 2, 3), 1: (200, 0, 0), 4: (0, 200, 0)},
        {0: BLACK, 1: WHITE, 4: GREY},
        {0: WHITE, 1: BLACK, 4: LAND[::-1]},
    ],
)
def test_a_palette_of_other_colours_says_nothing(make_palette, grid, palette):
    values = values_of(0, 1, 4)
    mask, note = read(make_palette(values, palette), grid)
    assert (mask == np.array([0, 1, 0, 0, 2])[values]).all()
    assert note == ""


def test_black_and_white_classes_do_not_turn_a_black_and_white_palette(make_palette, grid):
    values = values_of(0, 1)
    pair = (ClassSpec(0, "other", "#FFFFFF"), ClassSpec(1, "house", "#FF0000"))
    mask, note = read(make_palette(values, {0: BLACK, 1: WHITE}), grid, pair)
    assert (mask == values).all()
    assert note == ""


def test_a_palette_that_fits_neither_way_is_refused(make_palette, grid):
    values = values_of(0, 1, 2)
    path = make_palette(values, {0: LAND, 1: BUILDING, 2: GREY})
    with pytest.raises(InputError) as error:
        read(path, grid)
    said = str(error.value)
    assert "value 0 has the colour of 'land' (#8429F6)" in said
    assert f"#9B9B9B ({(values == 2).sum()} px) is no class's" in said
    assert "Give --ignore '#9B9B9B'" in said
    mask, note = read(path, grid, ignore=("#9b9b9b",))
    assert (mask == np.array([1, 0, IGNORE])[values]).all()
    assert "not scored: #9B9B9B" in note


def test_only_what_occurs_on_the_map_counts(make_palette, grid):
    values = values_of(0, 1)
    large = np.full((40, 60), 2, np.uint8)
    large[:20, :30] = values
    path = make_palette(large, {0: LAND, 1: BUILDING, 2: GREY})
    assert (read(path, grid)[0] == 1 - values).all()


def test_three_bands_are_read_by_colours(make_raster, grid):
    table = np.array([BUILDING, LAND, ROAD, BLACK], np.uint8)
    values = values_of(0, 1, 2, 3)
    path = make_raster(table[values].transpose(2, 0, 1), "rgb.tif")
    mask, note = read(path, grid)
    assert (mask == np.where(values == 3, IGNORE, values)).all()
    assert note.startswith("the labels are read by the colours of the classes; not scored: #000000")
    without_land = read(path, grid, ignore=("#8429f6",))[0]
    assert (without_land == np.where(values % 2 == 1, IGNORE, values)).all()


def test_transparent_ground_is_not_scored(make_raster, grid):
    values = values_of(0, 1)
    table = np.array([[*BUILDING, 255], [*GREY, 0]], np.uint8)
    colors = ("red", "green", "blue", "alpha")
    path = make_raster(table[values].transpose(2, 0, 1), "rgba.tif", colors=colors)
    assert (read(path, grid)[0] == np.where(values == 1, IGNORE, 0)).all()


def test_unknown_colours_are_named_with_what_to_do(make_raster, grid):
    table = np.array([BUILDING, GREY], np.uint8)
    values = values_of(0, 1)
    path = make_raster(table[values].transpose(2, 0, 1), "rgb.tif")
    with pytest.raises(InputError) as error:
        read(path, grid)
    assert str(error.value) == (
        "expected labels in the colours of the model's classes, #3C1098 building, #8429F6 land, "
        f"#6EC1E4 road; {str(path)!r} has #9B9B9B ({(values == 1).sum()} px). Give --ignore "
        "'#9B9B9B' for ground that is not to be scored, or save the labels as class ids."
    )
    assert (read(path, grid, ignore=("#9B9B9B",))[0] == np.where(values == 1, IGNORE, 0)).all()


def test_a_picture_is_not_counted_to_its_end(make_raster, grid, monkeypatch):
    monkeypatch.setattr(label_values, "BLOCK_PX", 10)
    monkeypatch.setattr(label_values, "MOST_VALUES", 50)
    noise = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.uint8)
    with pytest.raises(InputError, match=r"and 95 more. Save the class ids .* JPEG keeps no exact"):
        read(make_raster(noise, "noise.tif"), grid)


def test_ids_in_three_bands_stay_ids(make_raster, grid):
    values = values_of(0, 1, 4)
    mask, note = read(make_raster(np.stack([values] * 3), "ids.tif"), grid)
    assert (mask == np.array([0, 1, 0, 0, 2])[values]).all()
    assert note == ""


def test_black_and_white_classes_in_three_bands_are_colours(make_raster, grid):
    values = values_of(0, 255)
    pair = (ClassSpec(0, "other", "#000000"), ClassSpec(1, "house", "#FFFFFF"))
    mask, note = read(make_raster(np.stack([values] * 3), "bw.tif"), grid, pair)
    assert (mask == values // 255).all()
    assert note == "the labels are read by the colours of the classes"


def test_classes_that_share_a_colour_cannot_be_told_by_it(make_raster, make_palette, grid):
    alike = (ClassSpec(0, "building", "#3C1098"), ClassSpec(1, "land", "#3C1098"))
    values = values_of(0, 1)
    mask, _ = read(make_palette(values, {0: GREY, 1: BUILDING}), grid, alike)
    assert (mask == values).all()
    table = np.array([BUILDING, GREY], np.uint8)
    path = make_raster(table[values].transpose(2, 0, 1), "rgb.tif")
    with pytest.raises(InputError, match="as classes of the model share a colour"):
        read(path, grid, alike)


def test_what_is_neither_class_nor_value_nor_colour_cannot_be_ignored(make_raster, grid):
    path = make_raster(values_of(0), "labels.tif")
    with pytest.raises(UsageError, match=r"a colour '#RRGGBB'; got 'tree'\."):
        read(path, grid, ignore=("tree",))
    with pytest.raises(InputError, match=r"expected a colour '#RRGGBB'; got '#12'\."):
        read(path, grid, ignore=("#12",))


def test_labels_of_another_size_are_refused_where_nothing_places_them(make_raster):
    bare = {"crs": None, "transform": None}
    grid = grid_at(make_raster(np.zeros(SHAPE, np.uint8), "map.tif", **bare))
    path = make_raster(np.zeros((19, 30), np.uint8), "labels.tif", **bare)
    with pytest.raises(InputError) as error:
        open_labels(path, grid, CLASSES, LabelOptions())
    assert "expected labels of 30 x 20 px like the map, as neither has a CRS" in str(error.value)
    assert "has 30 x 19" in str(error.value)


def test_labels_of_another_size_may_lie_in_the_same_coordinates(make_raster):
    grid = grid_at(make_raster(np.zeros(SHAPE, np.uint8), "map.tif", crs=None))
    path = make_raster(np.zeros((19, 30), np.uint8), "labels.tif", crs=None)
    mask = open_labels(path, grid, CLASSES, LabelOptions()).read(ALL)
    assert (mask[:19] == 0).all()
    assert (mask[19] == IGNORE).all()


def test_labels_are_counted_block_by_block(make_raster, grid, monkeypatch):
    monkeypatch.setattr(label_values, "BLOCK_PX", 8)
    sizes = []
    original = label_values.read_label

    def spy(pool, file, part, **named):
        sizes.append((part.height, part.width))
        return original(pool, file, part, **named)

    class Counts(Listener):
        checks = 0

        def check(self):
            self.checks += 1

    monkeypatch.setattr(label_values, "read_label", spy)
    listener = Counts()
    path = make_raster(values_of(0, 1), "labels.tif")
    open_labels(path, grid, CLASSES, LabelOptions(), listener=listener)
    assert max(max(size) for size in sizes) == 8
    assert sum(h * w for h, w in sizes) == 20 * 30
    assert listener.checks == len(sizes)


def test_masks_of_dubai_agree_by_palette_and_by_bands(shared_data):
    classes = (*CLASSES[:2], ClassSpec(2, "road", "#6EC1E4"))
    path = shared_data / "dubai-landcover" / "val" / "masks" / "tile2_part001.png"
    grid = grid_at(path)
    mask, note = read_all(path, grid, classes)
    assert "value 0 has the colour of 'land'" in note
    assert np.bincount(mask.ravel()).tolist() == [63406, 155233, 58257]


def read_all(path, grid, classes):
    labels = open_labels(path, grid, classes, LabelOptions())
    return labels.read(Window(0, 0, grid.height, grid.width)), labels.note
