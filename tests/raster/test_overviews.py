"""Overviews: two by two pixels to one, by count or mean, without nodata."""

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.shutil import copy as copy_raster
from rio_cogeo.cogeo import cog_validate

from geoseg import _native
from geoseg.raster.layer import Layer
from geoseg.raster.overviews import halve, halve_reference, with_overviews
from geoseg.raster.writer import finish_cog

NONE = 255
CLASSES = Layer("class_map", "uint8", NONE)
SCORES = Layer("probabilities", "uint8", NONE, bands=3, overviews="AVERAGE")


def write(path, values, nodata=NONE):
    """Write an array (bands, H, W) as a GeoTIFF in UTM."""
    bands, height, width = values.shape
    profile = {"height": height, "width": width, "count": bands, "dtype": values.dtype}
    place = {"crs": CRS.from_epsg(32633), "transform": rasterio.Affine(2, 0, 5e5, 0, -2, 6e6)}
    with rasterio.open(path, "w", driver="GTiff", nodata=nodata, **profile, **place) as dataset:
        dataset.write(values)
    return path


@pytest.mark.parametrize("do", [halve, halve_reference])
@pytest.mark.parametrize(
    ("four", "mode", "mean"),
    [
        ([[1, 2], [2, 3]], 2, 2),
        ([[1, 2], [3, 4]], 1, 3),  # all once: the first; 2.5 goes up
        ([[3, 1], [1, 3]], 3, 2),  # twice each: the first
        ([[NONE, 2], [1, 1]], 1, 1),
        ([[NONE, 2], [1, NONE]], 2, 2),  # 1.5 goes up
        ([[NONE, NONE], [NONE, 9]], 9, 9),  # nodata, though more frequent, does not count
        ([[NONE, NONE], [NONE, NONE]], NONE, NONE),
        ([[7], [8]], 7, 8),
        ([[4, 5]], 4, 5),
    ],
)
def test_four_become_one(do, four, mode, mean):
    values = np.array(four, np.uint8)
    assert do(values, NONE, "MODE").tolist() == [[mode]]
    assert do(values, NONE, "AVERAGE").tolist() == [[mean]]


@pytest.mark.skipif(_native.library() is None, reason="no compiled kernels")
@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 33), st.integers(1, 150)),
    dtype=st.sampled_from(["uint8", "uint16"]),
    kinds=st.integers(1, 300),
    rule=st.sampled_from(["MODE", "AVERAGE"]),
    seed=st.integers(0, 99),
)
def test_the_kernel_equals_its_reference(size, dtype, kinds, rule, seed):
    none = np.iinfo(dtype).max
    rng = np.random.default_rng(seed)
    pool = np.append(rng.integers(0, none, kinds), none).astype(dtype)
    values = rng.choice(pool, size)
    wider = np.zeros((size[0], size[1] + 3), dtype)
    wider[:, 1:-2] = values
    wanted = halve_reference(values, none, rule)
    assert wanted.shape == (-(-size[0] // 2), -(-size[1] // 2))
    for given_values in (values, wider[:, 1:-2]):
        assert np.array_equal(halve(given_values, none, rule), wanted)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(CLASSES, (1, 2049, 1301)), (SCORES, (3, 1026, 700))],
    ids=["map", "scores"],
)
def test_every_level_of_a_cog_is_half_of_the_one_before(tmp_path, monkeypatch, layer, shape):
    monkeypatch.setattr("geoseg.raster.overviews.JOB_BYTES", 2**18)  # several jobs
    values = np.random.default_rng(0).choice([0, 1, 2, NONE], shape).astype(np.uint8)
    source = write(tmp_path / "map.tif", values)
    out = finish_cog(source, tmp_path / "out.tif", layer, threads=3)
    assert cog_validate(out, strict=True) == (True, [], [])
    level = 0
    while max(values.shape[1:]) > 512:
        values = np.stack([halve_reference(band, NONE, layer.overviews) for band in values])
        with rasterio.open(out, overview_level=level) as dataset:
            assert np.array_equal(dataset.read(), values)
        level += 1
    with rasterio.open(out) as dataset:
        assert [len(dataset.overviews(band)) for band in dataset.indexes] == [level] * shape[0]
        assert dataset.transform == rasterio.Affine(2, 0, 5e5, 0, -2, 6e6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "out.tif"]


def test_means_are_those_that_gdal_makes(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (1, 1024, 768)).astype(np.uint8)
    source = write(tmp_path / "map.tif", values)
    options = {"OVERVIEW_RESAMPLING": "AVERAGE", "BLOCKSIZE": "128", "OVERVIEWS": "AUTO"}
    copy_raster(str(source), str(tmp_path / "gdal.tif"), driver="COG", **options)
    found = values[0]
    for level in range(3):
        found = halve(found, NONE, "AVERAGE")
        with rasterio.open(tmp_path / "gdal.tif", overview_level=level) as dataset:
            assert np.array_equal(dataset.read(1), found)


def test_what_was_made_on_the_way_goes_when_it_fails(tmp_path):
    source = write(tmp_path / "map.tif", np.zeros((1, 1500, 600), np.uint8))
    with (
        pytest.raises(ZeroDivisionError),
        with_overviews(source, tmp_path / "out", CLASSES, least_px=512, threads=1) as vrt,
    ):
        with rasterio.open(vrt) as dataset:
            assert dataset.overviews(1) == [2, 4]
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_overviews_that_a_killed_run_left_do_no_harm(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, (1, 200, 180)).astype(np.uint8)
    source, out = write(tmp_path / "blocks.tif", values), tmp_path / "made.tif"

    def build():
        return with_overviews(source, out, CLASSES, least_px=64, threads=1)

    with build():
        left = {path: path.read_bytes() for path in tmp_path.glob("made.tif.*")}
    for path, content in left.items():
        path.write_bytes(content)
    with build() as vrt:
        assert {path: path.read_bytes() for path in tmp_path.glob("made.tif.*")} == left
        with rasterio.open(vrt) as dataset:
            assert dataset.overviews(1) == [2, 4]
    assert list(tmp_path.glob("made.tif.*")) == []
