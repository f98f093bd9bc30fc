"""Only what is wanted: boxes and polygons."""

import hashlib
import json
import zipfile
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.features import geometry_mask
from shapely.geometry import Point, Polygon, box

from geoseg.errors import GeoreferenceError, InputError, UsageError
from geoseg.predict import PredictOptions, predict_raster
from geoseg.predict.area import load_area
from geoseg.raster.georef import Georef
from geoseg.types import BBox, Window
from tests.conftest import NORTH_UP, ROTATED, SOUTH_UP, levels_model

VALUES = np.random.default_rng(0).integers(0, 4, (1, 200, 260)).astype(np.uint8)


def save(polygons, path, crs="EPSG:32633"):
    geopandas.GeoDataFrame(geometry=polygons, crs=crs).to_file(path)
    return path


def pixel_polygon(transform, corners):
    return Polygon([transform @ corner for corner in corners])


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_bounds_crop_to_whole_pixels(make_raster, tmp_path, transform):
    raster = make_raster(VALUES, transform=transform)
    bounds = BBox(*pixel_polygon(transform, [(50, 30), (150, 30), (150, 90), (50, 90)]).bounds)
    options = PredictOptions(bounds=bounds)
    predict_raster(levels_model(4), raster, tmp_path / "o.tif", options=options)
    with rasterio.open(tmp_path / "o.tif") as made:
        col, row = map(round, ~transform @ (made.transform @ (0, 0)))
        assert np.array_equal(
            made.read(), VALUES[:, row : row + made.height, col : col + made.width]
        )
        if transform is not ROTATED:
            assert (row, col, made.height, made.width) == (30, 50, 60, 100)


@pytest.mark.parametrize("gsd", ["native", 0.5])
@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
def test_outside_of_the_polygons_is_nodata(make_raster, tmp_path, transform, gsd):
    raster = make_raster(np.full((1, 200, 260), 2, np.uint8), transform=transform)
    first = pixel_polygon(transform, [(30.13, 20.4), (120.2, 40.71), (100.9, 130), (40, 110.3)])
    second = pixel_polygon(
        transform, [(180.2, 150.1), (240.7, 150.3), (240.1, 190.9), (180, 190.2)]
    )
    aoi = save([first, second, Point(0, 0).buffer(0.1)][:2], tmp_path / "aoi.gpkg")
    out = tmp_path / "o.tif"
    predict_raster(levels_model(4), raster, out, options=PredictOptions(aoi=aoi, gsd=gsd))
    with rasterio.open(out) as made:
        inside = ~geometry_mask([first, second], made.shape, made.transform)
        assert np.array_equal(made.read(1), np.where(inside, 2, 255))


def test_an_area_in_another_crs_is_brought_over(make_raster, tmp_path):
    raster = make_raster(VALUES)
    polygon = pixel_polygon(NORTH_UP, [(30, 20), (120, 20), (120, 130), (30, 130)])
    frame = geopandas.GeoDataFrame(geometry=[polygon], crs="EPSG:32633").to_crs("EPSG:4326")
    frame.to_file(tmp_path / "aoi.geojson")
    options = PredictOptions(aoi=tmp_path / "aoi.geojson")
    predict_raster(levels_model(4), raster, tmp_path / "o.tif", options=options)
    with rasterio.open(tmp_path / "o.tif") as made:
        valid = made.read(1) != 255
    assert valid.sum() == pytest.approx(90 * 110, rel=0.03)


def test_an_area_is_the_same_in_any_window(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    corners = [(x, y) for x, y in rng.integers(0, 200, (12, 2))]  # many centres lie on edges
    stencil = load_area(
        save([pixel_polygon(ROTATED, corners).buffer(0)], tmp_path / "aoi.gpkg"),
        Georef(CRS.from_epsg(32633), ROTATED),
        "r.tif",
    ).stencil(ROTATED)
    whole = stencil.mask(Window(0, 0, 200, 200))
    assert 0.05 < whole.mean() < 0.95
    for _ in range(40):
        row, col = rng.integers(0, 150, 2)
        part = stencil.mask(Window(int(row), int(col), 50, 37))
        assert np.array_equal(part, whole[row : row + 50, col : col + 37])


def test_tiles_outside_of_the_area_are_not_run(make_raster, tmp_path):
    raster = make_raster(np.zeros((1, 900, 900), np.uint8))
    corner = pixel_polygon(NORTH_UP, [(0, 0), (20, 0), (0, 20)])
    other = pixel_polygon(NORTH_UP, [(900, 900), (880, 900), (900, 880)])
    aoi = save([corner, other], tmp_path / "aoi.gpkg")
    model = levels_model(4)
    runs = []
    model.network.register_forward_hook(lambda *_: runs.append(1))
    options = PredictOptions(aoi=aoi)
    result = predict_raster(model, raster, tmp_path / "o.tif", options=options)
    assert result.tiles > 300
    assert len(runs) <= 5


def test_the_tags_name_the_area_and_hold_no_path(make_raster, tmp_path):
    raster, folder = make_raster(VALUES), tmp_path / "areas"
    folder.mkdir()
    aoi = save([pixel_polygon(NORTH_UP, [(30, 20), (120, 20), (120, 130)])], folder / "field.gpkg")
    options = PredictOptions(aoi=aoi)
    predict_raster(levels_model(4), raster, tmp_path / "o.tif", options=options)
    with rasterio.open(tmp_path / "o.tif") as made:
        tags = made.tags()
    assert tags["GEOSEG_AOI"] == "field.gpkg"
    assert tags["GEOSEG_AOI_SHA256"] == hashlib.sha256(aoi.read_bytes()).hexdigest()
    assert not any(str(tmp_path) in value for value in tags.values())
    predict_raster(levels_model(4), raster, tmp_path / "whole.tif")
    with rasterio.open(tmp_path / "whole.tif") as made:
        assert not {key for key in made.tags() if "AOI" in key}


def test_an_area_in_an_archive_has_a_name_and_no_hash(make_raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    field = save([pixel_polygon(NORTH_UP, [(30, 20), (120, 20), (120, 130)])], Path("field.gpkg"))
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.write(field)
    options = PredictOptions(aoi=Path("/vsizip/a.zip/field.gpkg"))
    predict_raster(levels_model(4), make_raster(VALUES), tmp_path / "o.tif", options=options)
    with rasterio.open(tmp_path / "o.tif") as made:
        tags = made.tags()
    assert (tags["GEOSEG_AOI"], "GEOSEG_AOI_SHA256" in tags) == ("field.gpkg", False)


def test_refusals(make_raster, tmp_path):
    raster = make_raster(VALUES)

    def run(**options):
        out = tmp_path / "o.tif"
        predict_raster(levels_model(4), raster, out, options=PredictOptions(**options))

    with pytest.raises(InputError, match="area file .* cannot be read"):
        run(aoi=tmp_path / "none.gpkg")
    (tmp_path / "text.gpkg").write_text("no")  # GDAL's words end with a hint and a full stop
    with pytest.raises(InputError, match=r"cannot be read: .* format; .*[^.]\. Give a vector file"):
        run(aoi=tmp_path / "text.gpkg")
    points = geopandas.GeoDataFrame(geometry=[Point(500001, 4999999)], crs="EPSG:32633")
    points.to_file(tmp_path / "points.gpkg")
    with pytest.raises(InputError, match="expected polygons; got none"):
        run(aoi=tmp_path / "points.gpkg")
    with pytest.raises(InputError, match="overlaps the raster"):
        run(aoi=save([box(0, 0, 1, 1)], tmp_path / "far.gpkg"))
    square = [[500001, 4999980], [500010, 4999980], [500010, 4999990], [500001, 4999980]]
    (tmp_path / "utm.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    with pytest.raises(InputError, match="have no place in the raster's CRS"):
        run(aoi=tmp_path / "utm.geojson")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="expected polygons; got a table"):
        run(aoi=tmp_path / "table.csv")
    bare = save([box(500001, 4999980, 500010, 4999990)], tmp_path / "bare.shp")
    bare.with_suffix(".prj").unlink()
    with pytest.raises(InputError, match=r"CRS in both .*bare.shp' has none"):
        run(aoi=bare)
    near = save([box(500001, 4999980, 500010, 4999990)], tmp_path / "near.gpkg")
    with pytest.raises(UsageError, match="--bounds and --aoi to overlap"):
        run(aoi=near, bounds=BBox(500040, 4999950, 500050, 4999960))
    lost = make_raster(VALUES, "lost.tif", crs=None, transform=None)
    with pytest.raises(GeoreferenceError, match="has no CRS.* or leave --bounds away"):
        predict_raster(
            levels_model(4),
            lost,
            tmp_path / "o.tif",
            options=PredictOptions(gsd="native", bounds=BBox(0, 0, 1, 1)),
        )
