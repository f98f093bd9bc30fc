"""Real class maps, large for a test: nothing changes unless it is asked for."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize

from geoseg.vector import VectorOptions, vectorize_raster

MAPS = {
    "LandCover.ai": ("landcoverai-masks", "*.tif"),
    "zoo": ("geotiff-zoo", "cog_cmap.tif"),
}
FILL = 2**15


@pytest.fixture(params=MAPS)
def real_map(request, shared_data):
    folder, pattern = MAPS[request.param]
    return sorted((shared_data / folder).glob(pattern))[0]


def polygons(path, out, **options):
    """Return the layer of a map, and what was said of its areas."""
    result = vectorize_raster(path, out, options=VectorOptions(overwrite=True, **options))
    return geopandas.read_parquet(out), result


def test_areas_and_pixels_are_the_maps_for_any_blocks(real_map, tmp_path):
    with rasterio.open(real_map) as dataset:
        ids, transform, nodata = dataset.read(1), dataset.transform, dataset.nodata
    layer, _ = polygons(real_map, tmp_path / "layer.parquet")
    pixel = abs(transform.determinant)
    areas = layer.area.groupby(layer["class_id"]).sum()
    found = dict(zip(*np.unique(ids, return_counts=True), strict=True))
    found.pop(nodata, None)
    assert set(areas.index) == set(found)
    for class_id, count in found.items():
        assert areas[class_id] == pytest.approx(count * pixel, rel=1e-9)
    shapes = zip(layer.geometry, layer["class_id"], strict=True)
    again = rasterize(shapes, ids.shape, transform=transform, fill=FILL, dtype=np.int32)
    if nodata is not None:
        again[again == FILL] = int(nodata)
    assert np.array_equal(again, ids)
    reference = sorted(shapely.to_wkb(shapely.normalize(layer.geometry.values)))
    for block_px in (256, 2048, ids.shape[0]):
        other, _ = polygons(real_map, tmp_path / "other.parquet", block_px=block_px)
        assert sorted(shapely.to_wkb(shapely.normalize(other.geometry.values))) == reference


def test_simpler_outlines_keep_each_classs_area(real_map, tmp_path):
    """Within 1 % up to half a pixel's width; the README says what a whole one does."""
    with rasterio.open(real_map) as dataset:
        half_m = 0.5 * abs(dataset.transform.a)
    for options in ({"simplify_m": half_m}, {"smooth_m": half_m}):
        layer, result = polygons(real_map, tmp_path / "layer.parquet", **options)
        assert layer.is_valid.all()
        for c in result.classes:
            assert c.after == pytest.approx(c.before, rel=0.01), (options, c)
