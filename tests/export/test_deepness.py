"""A file in the hands of Deepness and GeoDeep: their keys, and their loops over tiles.

The loops are written from what the two programs do, which was read in their sources (see
`geoseg.export.deepness`): values / 255, standardisation by the keys in Deepness alone, a threshold,
the largest probability, and inner parts of overlapping tiles beside each other.
"""

import json

import numpy as np
import pytest
import rasterio
import torch

from geoseg.export.deepness import deepness_keys, refusal, remarks
from geoseg.export.network import exported_spec
from geoseg.spec import SPEC_KEY
from geoseg.stac_mlm import spec_from_deepness
from tests.conftest import make_spec
from tests.export.conftest import SCENE

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def image():
    """Return a part of a real scene, 130 x 100 px, no multiple of a tile."""
    with rasterio.open(SCENE) as scene:
        return scene.read(window=((300, 430), (600, 700)))  # (3, H, W) uint8


def open_file(path):
    session = onnxruntime.InferenceSession(str(path))
    keys = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    return session, keys


def tile_starts(length, tile, stride):
    """Return first pixels of tiles that cover a length and more, and the length that they cover."""
    count = max(-(-(length - tile) // stride), 0) + 1
    return [i * stride for i in range(count)], tile + (count - 1) * stride


def run_tiles(image, tile, overlap_percent, classify):
    """Return the classes of an image whose tiles are cut in the middle of their overlaps."""
    stride = tile - int(tile * overlap_percent / 100)
    margin = (tile - stride) // 2
    (rows, height), (columns, width) = (tile_starts(n, tile, stride) for n in image.shape[1:])
    canvas = np.zeros((image.shape[0], height, width), image.dtype)
    canvas[:, : image.shape[1], : image.shape[2]] = image
    classes = np.zeros((height, width), np.int64)
    for row in rows:
        for column in columns:
            found = classify(canvas[:, row : row + tile, column : column + tile])
            top, left = margin * (row > 0), margin * (column > 0)
            inner = classes[row + top : row + tile, column + left : column + tile]
            inner[:] = found[top:, left:]
    return classes[: image.shape[1], : image.shape[2]]


@pytest.mark.parametrize("standardises", [True, False], ids=["Deepness", "GeoDeep"])
@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_other_tools_show_what_the_model_answers(family, standardises, image, request):
    done = request.getfixturevalue(family)
    session, keys = open_file(done.report.path)
    assert (keys["model_type"], keys["seg_small_segment"]) == ("Segmentor", 0)
    tile = session.get_inputs()[0].shape[-1]
    assert keys["tiles_size"] == keys["tile_size"] == tile

    def theirs(part):
        fed = (part / 255.0).astype(np.float32)
        if standardises:
            mean, std = (
                np.array(keys[f"standardization_{k}"], np.float32) for k in ("mean", "std")
            )
            fed = (fed - mean[:, None, None]) / std[:, None, None]
        answer = session.run(None, {session.get_inputs()[0].name: fed[None]})[0]
        answer[answer < keys["seg_thresh"]] = 0.0
        return answer.argmax(1)[0]

    def ours(part):
        with torch.inference_mode():
            return done.segmenter(torch.from_numpy(part[None])).argmax(1)[0].numpy()

    made = run_tiles(image, tile, keys["tiles_overlap"], theirs)
    wanted = run_tiles(image, tile, keys["tiles_overlap"], ours)
    assert len(np.unique(wanted)) == 4
    assert (made == wanted).mean() >= 0.9999


def test_geoseg_reads_the_keys_back(segnext):
    session, _ = open_file(segnext.report.path)
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    assert metadata[SPEC_KEY] == segnext.report.spec.to_json()
    read = spec_from_deepness(metadata, "m", [None, 3, 64, 64], 4, output="probabilities")
    spec = segnext.report.spec
    assert [(c.id, c.name) for c in read.classes] == [(c.id, c.name) for c in spec.classes]
    assert (read.tile.size_px, read.tile.overlap_px, read.tile.fixed) == (64, 16, True)
    assert read.gsd_m[0] < 0.1414 < read.gsd_m[1]
    assert (read.dtype, read.output) == (spec.dtype, spec.output)
    # The graph standardises: what is left to its reader is the division by 255.
    assert {(b.mean, b.std, b.scale) for b in read.bands} == {(0.0, 1.0, 1 / 255)}


def test_class_names_are_numbered_without_gaps():
    keys = deepness_keys(exported_spec(make_spec(3, ids=(3, 7, 20, 1)), None))
    names = json.loads(keys["class_names"])
    assert list(names) == ["0", "1", "2", "3"]
    assert names["1"] == "class 7"


def test_the_resolution_is_the_middle_in_centimetres():
    assert json.loads(deepness_keys(make_spec(gsd_m=(0.2, 0.8)))["resolution"]) == 40.0
    assert "resolution" not in deepness_keys(make_spec())


def test_models_that_are_not_of_8_bit_have_no_keys_and_are_said_to():
    spec = make_spec(dtype="uint16")
    assert deepness_keys(spec) == {}
    assert "this model is for uint16 values" in refusal(spec)
    assert remarks(spec) == [refusal(spec)]


def test_what_users_of_other_tools_must_know_is_said():
    assert remarks(make_spec(gsd_m=(0.1, 0.2))) == []
    assert "does not know its ground sample distance" in remarks(make_spec())[0]
    told = remarks(make_spec(4, ids=(1, 2, 3, 4), gsd_m=(0.1, 0.2)))
    assert "this model has 4: use Deepness" in told[0]
    assert "number classes from 0" in told[1]
