"""Four real chips can be learned by heart: gradients of every part point the right way."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F

from geoseg.models import create_model
from tests.conftest import ROOT

CHIPS = ROOT / "tests" / "data" / "dubai"
IGNORE = 255
STEPS = 120


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", ["segman_t", "segnext_t"])
def test_four_chips_are_learned_by_heart(name):
    torch.manual_seed(0)
    images = torch.from_numpy(np.stack([read(CHIPS / f"{i}.jpg") for i in range(4)])).float()
    images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std()
    targets = torch.from_numpy(np.concatenate([read(CHIPS / f"{i}.png") for i in range(4)])).long()
    network = create_model(name, num_classes=5, drop_path=0.0, dropout=0.0).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    losses = []
    for _ in range(STEPS):
        loss = F.cross_entropy(network(images), targets, ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    with torch.inference_mode():
        found = network(images).argmax(1)  # batch statistics, as in the steps above
    valid = targets != IGNORE
    accuracy = (found == targets)[valid].float().mean().item()
    assert accuracy > 0.9, (accuracy, losses[::20])
