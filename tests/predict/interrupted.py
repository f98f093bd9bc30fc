"""A run in a process of its own that can be killed; its progress goes to a file."""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from geoseg.listener import Listener
from geoseg.predict import PredictOptions, predict_raster
from geoseg.predict import plan as plan_module
from geoseg.segmenter import Segmenter
from tests.conftest import make_spec, small_conv


class Slow(nn.Module):
    """A small convolution that takes a few milliseconds more."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_conv()

    def forward(self, x):
        import time

        time.sleep(0.004)
        return self.network(x)


class Note(Listener):
    """Writes the number of tiles done, so that it survives the process."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def progress(self, done, total, pixels):
        os.pwrite(self.handle, f"{done:8d} {total:8d}".encode(), 0)


def run(raster: Path, out: Path, note: Path, resume: bool, panel_px: int) -> None:
    """Predict ``raster`` with small panels."""
    torch.set_num_threads(1)
    plan_module.PANEL_PX["cpu"] = panel_px
    model = Segmenter(Slow(), make_spec(3, mean=127, std=60)).eval()
    options = PredictOptions(resume=resume, confidence=out.with_suffix(".confidence.tif"))
    predict_raster(model, raster, out, options=options, listener=Note(note))


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:4]), resume=True, panel_px=20000)
