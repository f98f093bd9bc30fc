"""A class map to a layer, as a whole; outlines are compared with GDAL's."""

import dataclasses
import warnings
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Geod
from rasterio.features import rasterize

from geoseg.errors import (
    InputError,
    InterruptedRunError,
    OutOfMemoryError,
    OutputExistsError,
    UsageError,
)
from geoseg.listener import Listener
from geoseg.raster.gdal import quiet_georeference
from geoseg.raster.layer import Layer, pam_text
from geoseg.spec import ClassSpec
from geoseg.vector import VectorOptions, run, vectorize_raster
from tests.conftest import NORTH_UP, ROTATED, SOUTH_UP
from tests.vector.batches import iter_by_gdal

NAMES = ("grass", "water", "rock")


def patches(height=90, width=110, seed=0, nodata=255):
    """Return classes 0 to 2 in patches, noise, and some nodata."""
    rng = np.random.default_rng(seed)
    ids = np.kron(rng.integers(0, 3, (height // 10 + 1, width // 10 + 1)), np.ones((10, 10)))
    ids = ids[:height, :width].astype(np.uint8)
    noisy = rng.random(ids.shape) < 0.05
    ids[noisy] = rng.integers(0, 3, noisy.sum())
    ids[20:35, 40:60] = nodata
    return ids


@pytest.fixture
def make_map(make_raster):
    def make(ids=None, *, named=True, **fields):
        path = make_raster(
            patches() if ids is None else ids, "map.tif", **{"nodata": 255, **fields}
        )
        if named:
            classes = tuple(ClassSpec(i, name, f"#00{i}000") for i, name in enumerate(NAMES))
            text = pam_text(Layer("class_map", "uint8", 255, classes=classes))
            path.with_name("map.tif.aux.xml").write_text(text)
        return path

    return make


def read(path: Path) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return pyogrio.read_dataframe(path, layer=path.stem)


def normal(layer):
    """Return each feature as text that does not depend on order or starting corners."""
    shapes = shapely.normalize(shapely.simplify(layer.geometry.values, 0))
    return sorted(zip(layer["class_id"], shapely.to_wkt(shapes, 9), strict=True))


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_polygons_are_the_map(make_map, tmp_path, transform):
    path = make_map(transform=transform)
    result = vectorize_raster(path, tmp_path / "layer.parquet")
    layer = read(result.out)
    with rasterio.open(path) as dataset:
        ids = dataset.read(1)
        again = rasterize(
            zip(layer.geometry, layer["class_id"], strict=True),
            ids.shape,
            transform=transform,
            fill=255,
            dtype="uint8",
        )
    np.testing.assert_array_equal(again, ids)
    assert shapely.is_valid(layer.geometry.values).all()
    assert shapely.coverage_is_valid(layer.geometry.values)
    assert result.features == len(layer)


def test_areas_per_class_are_pixels_times_their_area(make_map, tmp_path):
    path = make_map()
    result = vectorize_raster(path, tmp_path / "layer.gpkg")
    layer, ids = read(result.out), patches()
    for c in result.classes:
        count = (ids == c.id).sum()
        mine = layer[layer["class_id"] == c.id]
        assert (c.name, c.pixels, c.features) == (NAMES[c.id], count, len(mine))
        assert c.before == c.after
        assert mine.area.sum() == pytest.approx(count * 0.09, rel=1e-9)
        assert c.area_m2 == pytest.approx(mine["area_m2"].sum())
        assert c.after == pytest.approx(c.area_m2, rel=1e-4)


def test_outlines_are_those_of_gdal(make_map, tmp_path, monkeypatch):
    path = make_map()
    mine = read(vectorize_raster(path, tmp_path / "mine.gpkg").out)
    monkeypatch.setattr(run, "iter_polygons", iter_by_gdal)
    theirs = read(vectorize_raster(path, tmp_path / "theirs.gpkg").out)
    assert normal(mine) == normal(theirs)
    for field in ("area_m2", "perim_m"):
        np.testing.assert_allclose(np.sort(mine[field]), np.sort(theirs[field]), rtol=1e-9)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_the_result_does_not_depend_on_the_rows_read_at_once(make_map, tmp_path, connectivity):
    path, layers = make_map(), []
    for block_px in (1, 7, 32, 1000):
        options = VectorOptions(
            connectivity=connectivity,
            min_area_m2=0.3,
            fill_holes_m2=0.3,
            simplify_m=0.5,
            smooth_m="auto",
            block_px=block_px,
            overwrite=True,
        )
        layers.append(read(vectorize_raster(path, tmp_path / "layer.fgb", options=options).out))
    for layer in layers[1:]:
        assert normal(layer) == normal(layers[0])


def test_attributes(make_map, make_raster, tmp_path):
    ids = np.full((30, 40), 255, np.uint8)
    ids[5:15, 5:15], ids[20:25, 30:40], ids[20:25, 5:7] = 0, 1, 2
    ids[21:24, 25:28], ids[22, 26] = 0, 1
    stored = np.full(ids.shape, 254, np.uint8)
    stored[5:10, 5:15], stored[20:25, 30:40] = 127, 255
    confidence = make_raster(stored, "confidence.tif", nodata=255, scales=(1 / 254,))
    result = vectorize_raster(
        make_map(ids), tmp_path / "layer.gpkg", options=VectorOptions(confidence=confidence)
    )
    layer = read(result.out).set_index("class_name")
    grass = layer.loc["grass"].sort_values("area_m2")
    assert grass["confidence"].tolist() == [1.0, pytest.approx(0.75)]
    water = layer.loc["water"].sort_values("area_m2")
    assert water["on_edge"].tolist() == [False, True]  # a pixel in grass; at the map's edge
    assert water["confidence"].isna().tolist() == [False, True]
    box = layer.loc["rock"].geometry
    to_degrees = geopandas.GeoSeries([box], crs=32633).to_crs(4326)
    area, perimeter = Geod(ellps="WGS84").geometry_area_perimeter(to_degrees.iloc[0])
    assert layer.loc["rock", "area_m2"] == pytest.approx(area, rel=1e-6)
    assert layer.loc["rock", "perim_m"] == pytest.approx(perimeter, rel=1e-6)


@pytest.mark.parametrize(
    ("crs", "transform", "pixel_m2"),
    [
        ("EPSG:32633", Affine(2, 0, 500000, 0, -2, 5000000), 4.0032),
        ("EPSG:3857", Affine(2, 0, 0, 0, -2, 8400000), 0.991),  # 60 degrees north
        ("EPSG:4326", Affine(2e-5, 0, 15, 0, -2e-5, 60), 2.486),
        ("EPSG:2263", Affine(4, 0, 980000, 0, -4, 200000), 1.486),
        ("EPSG:32633", Affine(4, 0, 500000, 0, -1, 5000000), 4.0032),
    ],
)
def test_areas_of_options_are_on_the_ground(make_map, tmp_path, crs, transform, pixel_m2):
    ids = np.zeros((50, 60), np.uint8)
    ids[10, 10:12], ids[10, 20:23], ids[10, 30:34] = 1, 1, 1
    path = make_map(ids, crs=crs, transform=transform)
    for limit, left in ((2.5 * pixel_m2, 2), (3.5 * pixel_m2, 1), (4.5 * pixel_m2, 0)):
        options = VectorOptions(min_area_m2=limit, overwrite=True)
        layer = read(vectorize_raster(path, tmp_path / "layer.parquet", options=options).out)
        assert (layer["class_id"] == 1).sum() == left


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", Affine(2, 0, 500000, 0, -2, 5000000)),
        ("EPSG:3857", Affine(2, 0, 0, 0, -2, 8400000)),
        ("EPSG:4326", Affine(2e-5, 0, 15, 0, -2e-5, 60)),
        ("EPSG:32633", Affine(4, 0, 500000, 0, -1, 5000000)),
    ],
)
def test_simplified_outlines_keep_within_metres_of_ground(make_map, tmp_path, crs, transform):
    path, limit_m = make_map(crs=crs, transform=transform), 2.5
    exact = read(vectorize_raster(path, tmp_path / "exact.parquet").out)
    options = VectorOptions(simplify_m=limit_m)
    simple = read(vectorize_raster(path, tmp_path / "simple.parquet", options=options).out)
    assert shapely.get_num_coordinates(simple.geometry.values).sum() < 0.8 * (
        shapely.get_num_coordinates(exact.geometry.values).sum()
    )
    ground = "+proj=laea +lat_0={:.3f} +lon_0={:.3f}".format(
        *reversed(exact.to_crs(4326).total_bounds[:2])
    )
    borders = [layer.to_crs(ground).boundary.union_all() for layer in (exact, simple)]
    assert shapely.hausdorff_distance(*borders, densify=0.2) <= limit_m * 1.001


def test_classes_by_name_and_id(make_map, tmp_path):
    options = VectorOptions(classes=("water", 2))
    result = vectorize_raster(make_map(), tmp_path / "layer.gpkg", options=options)
    assert set(read(result.out)["class_name"]) == {"water", "rock"}
    assert [c.name for c in result.classes] == ["water", "rock"]
    with pytest.raises(UsageError, match="--classes: no class 'lava'; the map has 0 'grass'"):
        vectorize_raster(make_map(), tmp_path / "x.gpkg", options=VectorOptions(classes=("lava",)))


def test_nothing_is_lost_unsaid(make_map, tmp_path):
    class Log(Listener):
        lines: list[str] = []  # noqa: RUF012  one run

        def log(self, level, message):
            self.lines.append(message)

    options = VectorOptions(min_area_m2=20.0)
    result = vectorize_raster(make_map(), tmp_path / "o.gpkg", options=options, listener=Log())
    counts = np.bincount(patches().ravel(), minlength=256)
    assert [c.pixels for c in result.classes] == counts[:3].tolist()
    assert sum(c.after for c in result.classes) == pytest.approx(
        sum(c.before for c in result.classes)
    )
    assert any(c.after != c.before for c in result.classes)
    assert any(line.startswith("grass: ") and " m2 in polygons (" in line for line in Log.lines)


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".parquet", ".geojson"])
def test_an_empty_map_is_an_empty_layer(make_map, tmp_path, suffix):
    path = make_map(np.full((20, 20), 255, np.uint8))
    options = VectorOptions(min_area_m2=1.0, smooth_m="auto")
    result = vectorize_raster(path, tmp_path / f"layer{suffix}", options=options)
    assert (result.features, result.classes, len(read(result.out))) == (0, (), 0)


def test_a_map_without_a_crs_is_measured_in_pixels(make_map, tmp_path):
    path = make_map(crs=None, transform=None)
    options = VectorOptions(min_area_m2=3.0)
    result = vectorize_raster(path, tmp_path / "layer.parquet", options=options)
    layer = read(result.out)
    assert (result.unit, layer.crs, layer["area_m2"].isna().all()) == ("px", None, True)
    assert layer.area.min() >= 3.0
    with pytest.raises(InputError, match=r"GeoJSON, .* needs a map with a CRS"):
        vectorize_raster(path, tmp_path / "layer.geojson")


def test_more_than_255_classes(make_map, tmp_path):
    ids = np.arange(400, dtype=np.uint16).reshape(20, 20) + 60
    path = make_map(ids, nodata=65535, named=False)
    layer = read(vectorize_raster(path, tmp_path / "layer.gpkg").out)
    assert sorted(layer["class_id"]) == list(range(60, 460))
    assert "class 300" in set(layer["class_name"])


def test_geojson_is_longitude_and_latitude(make_map, tmp_path):
    path = make_map()
    result = vectorize_raster(path, tmp_path / "layer.geojson")
    layer = read(result.out)
    assert layer.crs.to_epsg() == 4326
    assert shapely.coverage_is_valid(layer.geometry.values)
    assert layer.to_crs(32633).area.sum() == pytest.approx(
        (patches() != 255).sum() * 0.09, rel=1e-5
    )
    with pytest.raises(UsageError, match="RFC 7946"):
        options = VectorOptions(dst_crs="EPSG:32633")
        vectorize_raster(path, tmp_path / "x.geojson", options=options)


def test_another_crs_keeps_borders_shared(make_map, tmp_path):
    options = VectorOptions(dst_crs="EPSG:3035", simplify_m=0.5)
    layer = read(vectorize_raster(make_map(), tmp_path / "layer.gpkg", options=options).out)
    assert layer.crs.to_epsg() == 3035
    assert shapely.coverage_is_valid(layer.geometry.values)


def test_square_corners(make_map, tmp_path):
    heard = []

    class Log(Listener):
        def log(self, level, message):
            heard.append(message)

    ids = np.zeros((80, 80), np.uint8)
    for row in range(80):  # a house turned by 30 degrees
        for col in range(80):
            x, y = (col - 40) * 0.866 + (row - 40) * 0.5, (row - 40) * 0.866 - (col - 40) * 0.5
            ids[row, col] = abs(x) < 24 and abs(y) < 13
    options = VectorOptions(square_corners=("water",))
    out = tmp_path / "layer.gpkg"
    result = vectorize_raster(make_map(ids), out, options=options, listener=Log())
    layer = read(result.out)
    house = layer[layer["class_id"] == 1].geometry.iloc[0]
    assert len(house.exterior.coords) == 5
    assert shapely.coverage_is_valid(layer.geometry.values)
    assert result.squared == 1  # the house; not the ground around it, whose hole is square, too
    assert any(text.startswith("square corners: 1 of 1 polygons") for text in heard)


def test_houses_that_touch_at_a_corner_are_parted(make_map, tmp_path):
    heard = []

    class Log(Listener):
        def log(self, level, message):
            heard.append(message)

    ids = np.zeros((80, 80), np.uint8)
    ids[10:40, 10:40] = ids[40:70, 40:70] = 1
    options = VectorOptions(square_corners=("water",))
    result = vectorize_raster(make_map(ids), tmp_path / "a.gpkg", options=options, listener=Log())
    layer = read(result.out)
    houses = layer[layer["class_id"] == 1].geometry.values
    assert not houses[0].touches(houses[1])
    assert shapely.coverage_is_valid(layer.geometry.values)
    assert [(c.id, c.pixels) for c in result.classes] == [(0, 6400 - 1800), (1, 1800)]
    assert "1 pixel changed where polygons touch at a corner" in heard
    both = dataclasses.replace(options, connectivity=8, overwrite=True)
    layer = read(vectorize_raster(make_map(ids), tmp_path / "a.gpkg", options=both).out)
    assert [len(g.geoms) for g in layer[layer["class_id"] == 1].geometry] == [2]


def test_what_cannot_be_is_refused(make_map, tmp_path):
    path = make_map()
    out = tmp_path / "layer.gpkg"
    for options, match in [
        (VectorOptions(min_area_m2=-1), "min_area_m2 from 0 on"),
        (VectorOptions(connectivity=6), "4 or 8; got 6"),
        (VectorOptions(block_px=0), "at least one row"),
    ]:
        with pytest.raises(UsageError, match=match):
            vectorize_raster(path, out, options=options)
    with pytest.raises(UsageError, match="EPSG:4978 is neither"):
        vectorize_raster(path, out, options=VectorOptions(dst_crs="EPSG:4978"))
    with pytest.raises(OutOfMemoryError, match="expected at least 2"):
        vectorize_raster(path, out, options=VectorOptions(max_memory_bytes=10**8))
    assert list(tmp_path.glob("layer*")) == []


@pytest.mark.parametrize(("min_area_m2", "what"), [(0, "polygons open"), (1e6, "specks undecided")])
def test_what_is_open_keeps_to_the_memory_given(make_map, tmp_path, min_area_m2, what):
    noise = np.random.default_rng(0).integers(0, 2, (400, 400)).astype(np.uint8)
    options = VectorOptions(max_memory_bytes=256 * 10**6, min_area_m2=min_area_m2)
    with pytest.raises(OutOfMemoryError, match=f"{what} at row .* at most 3 MB .*Raise --max-mem"):
        vectorize_raster(make_map(noise), tmp_path / "layer.gpkg", options=options)
    assert list(tmp_path.glob("*layer*")) == []


def test_what_is_asked_for_and_not_there_is_said(make_map, tmp_path):
    heard = []

    class Log(Listener):
        def log(self, level, message):
            heard.append((level, message))

    for ids, options in [
        (None, VectorOptions(classes=(99,))),
        (None, VectorOptions(square_corners=(98,))),
        (np.full((9, 9), 255, np.uint8), VectorOptions()),
    ]:
        options = dataclasses.replace(options, overwrite=True)
        vectorize_raster(make_map(ids), tmp_path / "a.gpkg", options=options, listener=Log())
    assert [message for level, message in heard if level == "warning"] == [
        "--classes: no pixel of the map is of 'class 99' (99)",
        "--square-corners: no pixel of the map is of 'class 98' (98)",
        "no pixel of the map has a class: the layer is empty",
    ]


def test_an_interrupted_run_leaves_nothing(make_map, tmp_path):
    class Stops(Listener):
        def progress(self, done, total, pixels):
            if done * 2 > total:
                raise InterruptedRunError("stop")

    options = VectorOptions(min_area_m2=1.0, block_px=8)
    for suffix in (".gpkg", ".parquet", ".shp"):
        before = set(tmp_path.rglob("*"))
        path = make_map()
        with pytest.raises(InterruptedRunError):
            out = tmp_path / f"layer{suffix}"
            vectorize_raster(path, out, options=options, listener=Stops())
        assert {p.name for p in set(tmp_path.rglob("*")) - before} <= {"map.tif", "map.tif.aux.xml"}


def test_a_picture_is_no_confidence(make_map, make_raster, tmp_path):
    picture = make_raster(np.zeros((3, 30, 40), np.uint8), "picture.tif")
    options = VectorOptions(confidence=picture)
    with pytest.raises(InputError, match="confidence raster of one band; .* has 3"):
        vectorize_raster(
            make_map(np.zeros((30, 40), np.uint8)), tmp_path / "layer.gpkg", options=options
        )
    assert not (tmp_path / "layer.gpkg").exists()


@pytest.mark.parametrize(("scale", "is_said"), [(1 / 254, False), (1.0, True)])
def test_confidences_without_their_scale_are_warned_of(
    make_map, make_raster, tmp_path, scale, is_said
):
    class Log(Listener):
        warned: list[str] = []  # noqa: RUF012  one run

        def log(self, level, message):
            if level == "warning" and "confidence" in message:
                self.warned.append(message)

    stored = np.full((30, 40), 254, np.uint8)
    stored[0, 0] = 255
    confidence = make_raster(stored, "confidence.tif", nodata=255, scales=(scale,))
    options = VectorOptions(confidence=confidence)
    class_map = make_map(np.zeros((30, 40), np.uint8))
    vectorize_raster(class_map, tmp_path / "layer.gpkg", options=options, listener=Log())
    assert bool(Log.warned) == is_said
    if is_said:
        assert "from 254 to 254" in Log.warned[0]


def test_replacing_needs_overwrite(make_map, tmp_path):
    path, out = make_map(), tmp_path / "layer.shp"
    vectorize_raster(path, out)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        vectorize_raster(path, out)
    options = VectorOptions(classes=("water",), overwrite=True)
    vectorize_raster(path, out, options=options)
    assert set(read(out)["class_name"]) == {"water"}


def test_progress_counts_rows(make_map, tmp_path):
    class Counts(Listener):
        seen: list[tuple[int, int, int]] = []  # noqa: RUF012  one run

        def start(self, plan):
            assert plan["unit"] == "rows"
            assert "specks" in plan["sentence"]

        def progress(self, done, total, pixels):
            self.seen.append((done, total, pixels))

    options = VectorOptions(min_area_m2=1.0, block_px=30)
    vectorize_raster(make_map(), tmp_path / "layer.gpkg", options=options, listener=Counts())
    rows = [done for done, _, _ in Counts.seen]
    # Outlines are followed ahead of their writing, so that several strips may be told of at once.
    assert rows[:3] == [30, 60, 90]
    assert rows == sorted(set(rows))
    assert set(rows[3:]) <= {120, 150, 180}
    assert Counts.seen[-1] == (180, 180, 90 * 110)


def test_nothing_is_warned_of(make_map, tmp_path):
    with warnings.catch_warnings(), quiet_georeference():
        warnings.simplefilter("error")
        vectorize_raster(make_map(crs=None), tmp_path / "layer.gpkg")
