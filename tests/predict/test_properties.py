"""What every map promises, whatever the raster, the tiling and the machine."""

import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from geoseg.errors import InputError, ModelFileError
from geoseg.predict import PredictOptions, predict_raster, strips
from geoseg.predict import plan as plan_module
from geoseg.predict.blend import blend_weights
from geoseg.raster.grid import plan_axis
from geoseg.segmenter import Segmenter
from geoseg.spec import TileSpec
from tests.conftest import NORTH_UP, ROTATED, SOUTH_UP, levels_model, make_spec, small_conv


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def digest(*paths):
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()


class Constant(nn.Module):
    def forward(self, x):
        answer = torch.tensor([0.3, -1.0, 2.0, 1.9]).view(1, 4, 1, 1)
        return answer.expand(x.shape[0], 4, *x.shape[-2:])


@pytest.mark.parametrize("overlap", [0, 16, 40])
@pytest.mark.parametrize("size", [(7, 9), (64, 64), (65, 200), (300, 131)])
def test_a_constant_network_gives_a_constant_raster_border_included(
    make_raster, tmp_path, size, overlap
):
    raster = make_raster(np.zeros((3, *size), np.uint8))
    model = Segmenter(Constant(), make_spec(3, tile=TileSpec(64, overlap, min_px=1)))
    options = PredictOptions(
        confidence=tmp_path / "c.tif", probabilities=tmp_path / "p.tif", overlap_px=overlap
    )
    predict_raster(model, raster, tmp_path / "out.tif", options=options)
    assert np.unique(read(tmp_path / "out.tif")).tolist() == [2]
    probs = torch.tensor([0.3, -1.0, 2.0, 1.9]).softmax(0)
    stored = (probs * 254).round().int()
    assert np.unique(read(tmp_path / "c.tif")).tolist() == [int(stored.max())]
    for band, value in zip(read(tmp_path / "p.tif"), stored, strict=True):
        assert np.unique(band).tolist() == [int(value)]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.integers(8, 100),
    share=st.floats(0, 0.7),
    seed=st.integers(0, 99),
)
def test_an_identity_network_reproduces_the_raster(
    make_raster, tmp_path, height, width, tile, share, seed
):
    values = np.random.default_rng(seed).integers(0, 5, (1, height, width)).astype(np.uint8)
    options = PredictOptions(tile_size_px=tile, overlap_px=int(tile * share), overwrite=True)
    predict_raster(levels_model(5), make_raster(values), tmp_path / "o.tif", options=options)
    assert np.array_equal(read(tmp_path / "o.tif"), values)


@given(
    length=st.integers(1, 2000),
    tile=st.integers(1, 300),
    share=st.floats(0, 0.9),
    halo_share=st.floats(0, 0.5),
)
def test_weights_sum_to_one_and_are_never_zero_where_a_tile_counts(length, tile, share, halo_share):
    overlap = min(int(tile * share), tile - 1)
    axis = plan_axis(length, tile, overlap, halo_px=int(overlap * halo_share))
    total = np.zeros(length)
    for i, weights in enumerate(blend_weights(axis)):
        start, stop = axis.span(i)
        total[start:stop] += weights[: stop - start]
        first, last = axis.core(i)
        assert (weights[first - start : last - start] > 0).all()
        assert (weights[: first - start] == 0).all()
        assert (weights[last - start :] == 0).all()
    assert np.allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("overlap", [8, 24])
def test_a_small_convolution_with_enough_halo_equals_the_whole_image(
    make_raster, tmp_path, overlap
):
    values = np.random.default_rng(0).integers(0, 255, (3, 200, 333)).astype(np.uint8)
    network = small_conv()
    spec = make_spec(3, mean=127, std=60, tile=TileSpec(64, overlap, halo_px=4, min_px=1))
    model = Segmenter(network, spec).eval()
    with torch.inference_mode():
        whole = model(torch.from_numpy(values)[None])[0].softmax(0).numpy()
    predict_raster(
        model,
        make_raster(values),
        tmp_path / "o.tif",
        options=PredictOptions(probabilities=tmp_path / "p.tif"),
    )
    assert np.abs(read(tmp_path / "p.tif") - whole * 254).max() <= 0.51
    margin = np.sort(whole, axis=0)
    clear = margin[-1] - margin[-2] > 1e-5
    assert np.array_equal(read(tmp_path / "o.tif")[0][clear], whole.argmax(0)[clear])


def test_without_halo_the_same_network_shows_seams(make_raster, tmp_path):
    """The check above can fail: its halo is what makes it pass."""
    values = np.random.default_rng(0).integers(0, 255, (3, 200, 333)).astype(np.uint8)
    model = Segmenter(small_conv(), make_spec(3, mean=127, std=60)).eval()
    with torch.inference_mode():
        whole = model(torch.from_numpy(values)[None])[0].softmax(0).numpy()
    options = PredictOptions(probabilities=tmp_path / "p.tif", overlap_px=8)
    predict_raster(model, make_raster(values), tmp_path / "o.tif", options=options)
    assert np.abs(read(tmp_path / "p.tif") - whole * 254).max() > 2


@pytest.fixture
def scene(make_raster):
    """Return a raster with a hole, blocks of texture, and an odd size."""
    rng = np.random.default_rng(3)
    values = rng.integers(0, 255, (3, 60, 80)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    values[:, 100:140, 30:190] = 0
    return make_raster(values, nodata=0)


VARIANTS = {
    "plain": {},
    "coarser": {"gsd": 0.45},
    "finer": {"gsd": 0.21},
    "views": {"tta": "flips"},
    "batches": {"batch_size": 3},
    "wide overlap": {"overlap_px": 40},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_bytes_for_any_panels_strips_readers_and_shards(scene, tmp_path, variant, monkeypatch):
    from geoseg.predict import assemble

    model = Segmenter(small_conv(), make_spec(3, mean=127, std=60)).eval()
    options = PredictOptions(confidence=tmp_path / "c.tif", overwrite=True, **VARIANTS[variant])

    def run(strip_tiles, panel_px, readers):
        monkeypatch.setattr(strips, "LEAST_STRIP_TILES", strip_tiles)
        monkeypatch.setattr(strips, "STRIP_BYTES", 0)
        monkeypatch.setitem(plan_module.PANEL_PX, "cpu", panel_px)
        chosen = replace(options, readers=readers)
        predict_raster(model, scene, tmp_path / "o.tif", options=chosen)
        return digest(tmp_path / "o.tif", tmp_path / "c.tif")

    reference = run(100, 10**9, 1)
    for strip_tiles, panel_px, readers in ((100, 1, 3), (2, 10**9, 2), (3, 10000, 4), (1, 1, 2)):
        assert run(strip_tiles, panel_px, readers) == reference
    for index in (3, 1, 2):
        shard = replace(options, shard=(index, 3), overwrite=False, confidence=tmp_path / "s.tif")
        predict_raster(model, scene, tmp_path / "s-map.tif", options=shard)
    made = assemble(
        tmp_path / "s-map.tif.parts", tmp_path / "s-map.tif", overwrite=False, partial=False
    )
    assert digest(made.class_map, made.confidence) == reference


def test_what_lies_under_nodata_never_changes_a_valid_pixel(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, (3, 150, 170)).astype(np.uint8)
    mask = np.full((150, 170), 255, np.uint8)
    mask[40:110, 60:120] = 0
    maps = []
    for i, under in enumerate((0, 255, rng.integers(0, 255, (3, 70, 60)))):
        values[:, 40:110, 60:120] = under
        raster = make_raster(values, f"{i}.tif", mask=mask)
        model = Segmenter(small_conv(), make_spec(3, mean=127, std=60)).eval()
        predict_raster(model, raster, tmp_path / f"o{i}.tif")
        maps.append(read(tmp_path / f"o{i}.tif"))
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])
    assert np.array_equal(maps[0][0] == 255, mask == 0)


@pytest.mark.parametrize("gsd", ["native", 0.2, 0.5])
def test_nan_is_nodata_and_spreads_nowhere(make_raster, tmp_path, gsd):
    values = np.full((1, 100, 100), 2.0, np.float32)
    values[0, 30:50, 20:80] = np.nan
    model = levels_model(4, dtype="float32")
    predict_raster(model, make_raster(values), tmp_path / "o.tif", options=PredictOptions(gsd=gsd))
    expected = np.where(np.isnan(values), 255, 2)
    assert np.array_equal(read(tmp_path / "o.tif"), expected)


def test_tiles_without_valid_pixels_are_not_run(make_raster, tmp_path):
    values = np.zeros((1, 640, 640), np.uint8)
    values[0, 300:310, 300:310] = 3
    runs = []

    class Counting(nn.Module):
        def forward(self, x):
            runs.append(len(x))
            return torch.zeros(len(x), 4, *x.shape[-2:])

    model = Segmenter(Counting(), make_spec(1))
    result = predict_raster(model, make_raster(values, nodata=0), tmp_path / "o.tif")
    assert result.tiles > 100
    assert 1 <= sum(runs) - 1 <= 4  # one run measures memory
    assert (read(tmp_path / "o.tif") != 255).sum() == 100


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
@pytest.mark.parametrize("gsd", [0.14, 0.23, 0.41, 0.9])
def test_resampling_does_not_move_a_mark(make_raster, tmp_path, transform, gsd):
    """The centroid of an asymmetric mark moves by less than 0.05 px."""
    rows, cols = np.indices((240, 260)) + 0.5
    mark = ((rows - 100) / 37) ** 2 + ((cols - 90) / 52) ** 2 < 1
    mark |= (np.abs(rows - 150) < 22) & (np.abs(cols - 170) < 43)
    raster = make_raster(mark.astype(np.uint8), transform=transform)
    out = tmp_path / "o.tif"
    predict_raster(levels_model(2), raster, out, options=PredictOptions(gsd=gsd))
    with rasterio.open(out) as dataset:
        made = dataset.read(1) == 1
        assert dataset.transform == transform
        assert dataset.shape == mark.shape
    for axis in (rows, cols):
        assert axis[made].mean() == pytest.approx(axis[mark].mean(), abs=0.05)
    assert (made != mark).mean() < 0.01 * max(1, gsd / 0.3) ** 2


@pytest.mark.parametrize("transform", [NORTH_UP, SOUTH_UP, ROTATED])
def test_the_map_lies_on_the_rasters_grid_to_the_bit(make_raster, tmp_path, transform):
    raster = make_raster(np.zeros((1, 50, 70), np.uint8), transform=transform, crs="EPSG:3035")
    predict_raster(levels_model(), raster, tmp_path / "o.tif")
    with rasterio.open(raster) as given_, rasterio.open(tmp_path / "o.tif") as made:
        assert (made.transform, made.crs, made.shape) == (
            given_.transform,
            given_.crs,
            given_.shape,
        )
        assert made.crs.to_wkt() == given_.crs.to_wkt()


@pytest.mark.parametrize(
    "options", [{}, {"gsd": 0.6}, {"bounds": True}], ids=["as is", "gsd", "bounds"]
)
@pytest.mark.parametrize("kind", ["Area", "Point"])
def test_whether_a_pixel_is_an_area_or_a_point_is_kept(make_raster, tmp_path, kind, options):
    raster = make_raster(np.zeros((1, 50, 70), np.uint8))
    with rasterio.open(raster, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT=kind)
    with rasterio.open(raster) as dataset:
        transform = dataset.transform
        west, _, _, north = dataset.bounds
    if "bounds" in options:
        options = {"bounds": (west, north - 20 * abs(transform.e), west + 30 * transform.a, north)}
    chosen = PredictOptions(confidence=tmp_path / "c.tif", **options)
    predict_raster(levels_model(), raster, tmp_path / "o.tif", options=chosen)
    for path in (tmp_path / "o.tif", tmp_path / "c.tif"):
        with rasterio.open(path) as made:
            assert made.tags()["AREA_OR_POINT"] == kind
            assert made.transform == transform


def test_views_are_averaged_after_blending(make_raster, tmp_path):
    """With a network that every view commutes with, views change nothing."""
    values = np.random.default_rng(0).integers(0, 4, (1, 150, 140)).astype(np.uint8)
    raster = make_raster(values)
    for tta in ("none", "flips", "d4"):
        options = PredictOptions(tta=tta, overwrite=True)
        predict_raster(levels_model(4), raster, tmp_path / "o.tif", options=options)
        assert np.array_equal(read(tmp_path / "o.tif"), values)


@pytest.mark.parametrize(("tta", "count"), [("flips", 4), ("d4", 8)])
def test_views_are_all_different_and_turned_back(make_raster, tmp_path, tta, count):
    """The mean over views of a ramp network is the ramp's mean over mirrored places."""
    seen = []

    class Ramp(nn.Module):
        def forward(self, x):
            seen.append(x[0, 0, :4, :4].clone())
            ramp = torch.linspace(-3, 3, x.shape[-1]).expand(x.shape[0], 1, *x.shape[-2:])
            return torch.cat([torch.zeros_like(ramp), ramp], dim=1)

    values = np.random.default_rng(0).integers(0, 255, (1, 64, 64)).astype(np.uint8)
    model = Segmenter(Ramp(), make_spec(1, 2))
    options = PredictOptions(tta=tta, probabilities=tmp_path / "p.tif")
    predict_raster(model, make_raster(values), tmp_path / "o.tif", options=options)
    views = seen[-count:]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(views, 2))
    p = torch.linspace(-3, 3, 64).sigmoid().numpy()
    across = (p + p[::-1]) / 2
    mean = np.broadcast_to(across, (64, 64))
    if tta == "d4":
        mean = (mean + mean.T) / 2
    assert np.abs(read(tmp_path / "p.tif")[1] - mean * 254).max() <= 0.51


def test_class_ids_need_not_count_up(make_raster, tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (1, 80, 90)).astype(np.uint8)
    model = levels_model(3, ids=(10, 200, 7))
    predict_raster(model, make_raster(values), tmp_path / "o.tif")
    assert np.array_equal(read(tmp_path / "o.tif"), np.array([10, 200, 7])[values])


def test_more_than_254_classes_need_uint16(make_raster, tmp_path):
    values = np.random.default_rng(0).integers(0, 300, (1, 80, 90)).astype(np.uint16)
    model = levels_model(300, dtype="uint16")
    predict_raster(model, make_raster(values), tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as dataset:
        assert (dataset.dtypes[0], dataset.nodata) == ("uint16", 65535)
        assert np.array_equal(dataset.read(), values)


def test_file_scaling_is_applied(make_raster, tmp_path):
    classes = np.random.default_rng(0).integers(0, 4, (1, 70, 80))
    stored = (classes * 10 + 30).astype(np.uint16)
    raster = make_raster(stored, scales=(0.1,), offsets=(-3.0,))
    predict_raster(levels_model(4), raster, tmp_path / "o.tif")
    assert np.array_equal(read(tmp_path / "o.tif"), classes)


def test_networks_that_answer_nonsense_are_refused(make_raster, tmp_path):
    raster = make_raster(np.zeros((1, 64, 64), np.uint8))

    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 4, *x.shape[-2:]), float("nan"))

    with pytest.raises(ModelFileError, match="answered NaN or infinity at 4096 pixels"):
        predict_raster(Segmenter(Broken(), make_spec(1)), raster, tmp_path / "o.tif")

    class Small(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 4, 16, 16)

    with pytest.raises(ModelFileError, match=r"answer \(1, 4, 64, 64\); got \(1, 4, 16, 16\)"):
        predict_raster(Segmenter(Small(), make_spec(1)), raster, tmp_path / "o2.tif")
    assert not (tmp_path / "o.tif").exists()


def test_any_module_with_a_record(make_raster, tmp_path):
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    network = smp.Unet("resnet18", encoder_weights=None, classes=3).eval()
    raster = make_raster(np.random.default_rng(0).integers(0, 255, (3, 200, 230)).astype(np.uint8))
    with pytest.raises(ModelFileError, match="module with a ModelSpec; Unet has none"):
        predict_raster(network, raster, tmp_path / "o.tif")
    spec = make_spec(3, 3, mean=127, std=60, tile=TileSpec(128, 32, multiple_px=32))
    network.spec = spec
    predict_raster(network, raster, tmp_path / "o.tif")
    tile = torch.from_numpy(rasterio.open(raster).read(window=((0, 128), (0, 128))))
    with torch.inference_mode():
        alone = network((tile[None].float() - 127) / 60)[0].argmax(0).numpy()
    # Away from the overlaps a map is what the network says of the tile.
    assert np.array_equal(read(tmp_path / "o.tif")[0, :80, :80], alone[:80, :80])


def test_a_grid_without_pixels_is_refused(make_raster, tmp_path):
    with pytest.raises(InputError, match="overlaps the raster"):
        predict_raster(
            levels_model(),
            make_raster(np.zeros((1, 9, 9), np.uint8)),
            tmp_path / "o.tif",
            options=PredictOptions(bounds=(0, 0, 1, 1)),
        )
