"""Seams are found where they are, and only there."""

import numpy as np
import pytest
import torch
from torch import nn

from geoseg.errors import InputError
from geoseg.predict import PredictOptions
from geoseg.predict.seams import best, edge_ratio, measure_seams
from geoseg.raster.grid import plan_windows
from geoseg.segmenter import Segmenter
from geoseg.spec import TileSpec
from tests.conftest import levels_model, make_spec


class WholeTile(nn.Module):
    """Answers by the mean of its tile: a network that sees all of it."""

    def forward(self, x):
        return torch.cat([x - x.mean(dim=(2, 3), keepdim=True), torch.zeros_like(x)], dim=1)


@pytest.fixture
def scene(make_raster):
    """Return waves in all directions: class edges anywhere, none along tile lines."""
    rng = np.random.default_rng(0)
    rows, cols = np.indices((600, 600))
    field = np.zeros((600, 600))
    for angle, length in zip(rng.uniform(0, np.pi, 30), rng.uniform(15, 150, 30), strict=True):
        along = rows * np.sin(angle) + cols * np.cos(angle)
        field += np.sin(2 * np.pi * along / length + rng.uniform(0, 6))
    return make_raster((120 + 12 * field).clip(0, 255).astype(np.uint8))


def test_a_local_network_has_no_seams(scene):
    model = levels_model(4, mean=100, std=40)
    for m in measure_seams(model, scene, overlaps_px=[0, 16]):
        assert m.changed == 0
        assert m.edge_ratio == pytest.approx(1, abs=0.25)


def test_a_network_that_sees_its_tile_has_seams_that_overlap_heals(scene):
    model = Segmenter(WholeTile(), make_spec(1, 2, tile=TileSpec(128, 32, min_px=1)))
    hard, soft = list(measure_seams(model, scene, overlaps_px=[0, 96]))
    assert hard.edge_ratio > 1.2 * soft.edge_ratio
    assert hard.changed > 1.5 * soft.changed
    assert hard.tiles < soft.tiles
    assert best([hard, soft]) is soft


def test_the_ratio_counts_edges_on_tile_lines():
    grid = plan_windows(200, 200, 100, overlap_px=0)
    ids = np.indices((200, 200)).sum(0) // 7 % 2
    everywhere, _ = edge_ratio(ids, np.ones((200, 200), bool), grid)
    assert everywhere == pytest.approx(1, abs=0.2)
    quiet = np.zeros((200, 200), int)
    quiet[:, 100:] = 1
    quiet[50, 50] = 1
    ratio, _ = edge_ratio(quiet, np.ones((200, 200), bool), grid)
    assert ratio > 50


def test_a_raster_of_one_tile_has_no_seams_to_measure(make_raster):
    raster = make_raster(np.zeros((1, 50, 200), np.uint8))
    with pytest.raises(InputError, match="more than one tile of 64 px in both directions"):
        list(measure_seams(levels_model(), raster, options=PredictOptions()))
