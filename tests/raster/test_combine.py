"""Several files read as one raster, or are refused with the reason."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geoseg.errors import GeoreferenceError, InputError
from geoseg.raster import mosaic, stack
from tests.conftest import NORTH_UP, ROTATED

RNG = np.random.default_rng(0)


def whole(bands=2, height=60, width=90):
    return RNG.integers(1, 255, (bands, height, width)).astype(np.uint8)


def cut(make_raster, values, boxes, transform=NORTH_UP, **profile):
    return [
        str(
            make_raster(
                values[:, row : row + height, col : col + width],
                f"part{i}.tif",
                transform=transform @ Affine.translation(col, row),
                **profile,
            )
        )
        for i, (row, col, height, width) in enumerate(boxes)
    ]


def read(name):
    with rasterio.open(name) as dataset:
        return dataset.read(), dataset.dataset_mask() > 0, dataset.transform, dataset.crs


QUARTERS = [(30, 40, 30, 50), (0, 0, 30, 40), (0, 40, 30, 50), (30, 0, 30, 40)]


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED], ids=["north-up", "rotated"])
def test_a_mosaic_is_the_raster_that_was_cut(make_raster, transform):
    values = whole()
    with mosaic(cut(make_raster, values, QUARTERS, transform)) as name:
        found, valid, placed, crs = read(name)
    assert np.array_equal(found, values)
    assert valid.all()
    assert np.allclose(placed[:6], transform[:6], rtol=0, atol=1e-9)
    assert crs.to_epsg() == 32633


def test_what_no_raster_covers_is_not_valid(make_raster):
    values = whole()
    with mosaic(cut(make_raster, values, QUARTERS[:3])) as name:
        _, valid, _, _ = read(name)
    expected = np.ones((60, 90), bool)
    expected[30:, :40] = False
    assert np.array_equal(valid, expected)


def test_later_rasters_lie_on_top_but_not_with_their_nodata(make_raster):
    values = whole(1)
    values[:, :, 50:] = 0
    below, above = cut(make_raster, values, [(0, 0, 60, 60), (0, 40, 60, 50)], nodata=0)
    with rasterio.open(above, "r+") as dataset:
        dataset.write(np.full((1, 60, 10), 7, np.uint8), window=((0, 60), (0, 10)))
        dataset.write(np.zeros((1, 30, 10), np.uint8), window=((0, 30), (0, 10)))
    with mosaic([below, above]) as name:
        found, valid, _, _ = read(name)
    assert np.array_equal(found[0, :30, 40:50], values[0, :30, 40:50])
    assert (found[0, 30:, 40:50] == 7).all()
    assert np.array_equal(valid, found[0] != 0)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"crs": "EPSG:32634"}, "coordinate reference systems: EPSG:32633 and EPSG:32634"),
        ({"nodata": 0}, "nodata values"),
    ],
)
def test_rasters_of_other_kinds_are_refused_by_name(make_raster, change, fact):
    first = str(make_raster(whole(), "first.tif"))
    other = str(make_raster(whole(), "other.tif", **change))
    with pytest.raises(InputError, match=f"first.tif.*other.tif.*{fact}"):
        with mosaic([first, other]):
            pass


def test_a_raster_beside_the_grid_is_refused_with_its_shift(make_raster):
    first = str(make_raster(whole(), "first.tif"))
    moved = NORTH_UP @ Affine.translation(90.25, 0)
    other = str(make_raster(whole(), "other.tif", transform=moved))
    with pytest.raises(GeoreferenceError, match=r"other.tif.*0\.25 px beside"):
        with mosaic([first, other]):
            pass


def test_a_raster_without_a_place_is_refused(make_raster):
    first = str(make_raster(whole(), "first.tif"))
    other = str(make_raster(whole(), "other.tif", transform=None, crs=None))
    with pytest.raises(GeoreferenceError, match=r"other.tif.*expected a georeference"):
        with mosaic([first, other]):
            pass


def test_a_stack_has_all_bands_in_order_with_their_names_and_nodata(make_raster):
    values = whole(3)
    names = [
        str(make_raster(v, f"{label}.tif", descriptions=(label,), nodata=3))
        for label, v in zip(("red", "green", "blue"), values, strict=True)
    ]
    with stack(names) as name:
        found, _, placed, _ = read(name)
        with rasterio.open(name) as dataset:
            assert dataset.descriptions == ("red", "green", "blue")
            assert dataset.nodatavals == (3, 3, 3)
    assert np.array_equal(found, values)
    assert placed == NORTH_UP


def test_a_coarser_band_is_brought_to_the_finest_grid(make_raster):
    coarse = np.repeat(np.arange(10, 100, 10, dtype=np.uint8)[None, :], 6, axis=0)  # 6 x 9
    half = NORTH_UP @ Affine.scale(10)
    names = [
        str(make_raster(whole(1), "fine.tif")),
        str(make_raster(coarse, "coarse.tif", transform=half)),
    ]
    with stack(names) as name:
        found, _, _, _ = read(name)
    assert found.shape == (2, 60, 90)
    # Halfway between the centres of the first two coarse pixels.
    assert abs(int(found[1, 30, 9]) - 15) <= 1
    assert abs(int(found[1, 30, 4]) - 10) <= 1


def test_a_stack_of_other_ground_is_refused(make_raster):
    first = str(make_raster(whole(1), "first.tif"))
    moved = NORTH_UP @ Affine.translation(5, 0)
    other = str(make_raster(whole(1), "other.tif", transform=moved))
    with pytest.raises(GeoreferenceError, match=r"other.tif.*5\.0 px"):
        with stack([first, other]):
            pass


def test_a_masked_file_masks_the_stack(make_raster):
    mask = np.full((60, 90), 255, np.uint8)
    mask[:20] = 0
    names = [
        str(make_raster(whole(1), "first.tif", mask=mask)),
        str(make_raster(whole(1), "second.tif")),
    ]
    with stack(names) as name:
        _, valid, _, _ = read(name)
    assert np.array_equal(valid, mask > 0)


def test_rasters_inside_an_archive(make_raster, tmp_path):
    values = whole()
    parts = cut(make_raster, values, QUARTERS)
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        for part in parts:
            archive.write(part, Path(part).name)
    names = [f"zip://{tmp_path}/parts.zip!{Path(part).name}" for part in parts]
    with mosaic(names) as name:
        assert np.array_equal(read(name)[0], values)


def test_a_pixel_comes_from_one_raster_even_where_a_band_holds_the_nodata_value(make_raster):
    below = str(make_raster(np.full((3, 8, 8), 100, np.uint8), "below.tif", nodata=0))
    values = np.full((3, 8, 8), 200, np.uint8)
    values[0] = 0
    values[:, :4] = 0
    above = str(make_raster(values, "above.tif", nodata=0))
    with mosaic([below, above]) as name:
        found, _, _, _ = read(name)
    assert found[:, 6, 3].tolist() == [0, 200, 200]
    assert found[:, 1, 3].tolist() == [100, 100, 100]


def test_nan_of_a_later_raster_hides_nothing(make_raster):
    below = str(make_raster(np.full((1, 8, 8), 1.5, np.float32), "below.tif"))
    values = np.full((1, 8, 8), 2.5, np.float32)
    values[:, :4] = np.nan
    with mosaic([below, str(make_raster(values, "above.tif"))]) as name:
        found, _, _, _ = read(name)
    assert found[0, :, 0].tolist() == [1.5] * 4 + [2.5] * 4


def test_two_masks_in_a_stack_are_refused(make_raster):
    mask = np.full((60, 90), 255, np.uint8)
    names = [str(make_raster(whole(1), f"{i}.tif", mask=mask)) for i in range(2)]
    with pytest.raises(InputError, match="can have one mask"):
        with stack(names):
            pass
