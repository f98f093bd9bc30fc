"""A tap hears of every blended logit that becomes a pixel of the map, once."""

import numpy as np
import pytest
import rasterio

from geoseg.predict import PredictOptions, predict_raster
from geoseg.segmenter import Segmenter
from geoseg.spec import TileSpec
from tests.conftest import make_spec, small_conv


@pytest.mark.parametrize(
    "options",
    [
        PredictOptions(),
        PredictOptions(gsd=0.2),
        PredictOptions(tta="flips", bounds=(500003.0, 4999980.0, 500030.0, 4999994.0)),
    ],
    ids=["plain", "resampled", "views of a crop"],
)
def test_what_is_tapped_is_what_is_mapped(make_raster, tmp_path, options):
    values = np.random.default_rng(0).integers(0, 255, (3, 90, 120)).astype(np.uint8)
    values[:, 40:60, 30:70] = 0
    raster = make_raster(values, nodata=0)
    spec = make_spec(3, 4, mean=127, std=60, tile=TileSpec(64, 16, min_px=1), gsd_m=(0.1, 0.5))
    model = Segmenter(small_conv(), spec).eval()
    seen = []

    def tap(window, logits, valid):
        views = logits.view(-1, 4, window.height, window.width)
        index = views.softmax(dim=1).mean(dim=0).argmax(dim=0).numpy()
        everywhere = np.ones(index.shape, dtype=bool)
        seen.append((window, index.copy(), everywhere if valid is None else valid.copy()))

    predict_raster(model, raster, tmp_path / "map.tif", options=options, tap=tap)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        expected = dataset.read(1)
    heard = np.full(expected.shape, 255, np.uint8)
    times = np.zeros(expected.shape, int)
    for window, index, valid in seen:
        part = slice(window.row, window.row_end), slice(window.col, window.col_end)
        times[part] += 1
        heard[part] = np.where(valid, index, 255)
    assert times.max() == 1
    assert (times[expected != 255] == 1).all()
    assert (heard == expected).all()
