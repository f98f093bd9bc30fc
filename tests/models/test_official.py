"""The published files themselves, where a network reaches them: `make verify-official`."""

import hashlib
import urllib.request
from pathlib import Path

import pytest
import torch

from geoseg.checkpoint import load_model
from geoseg.convert import convert_official
from geoseg.published import OFFICIAL_FILES


@pytest.mark.network
@pytest.mark.parametrize("file", OFFICIAL_FILES, ids=lambda f: f"{f.network}-{f.trained_on}")
def test_the_published_file_converts_whole(file, tmp_path, capsys):
    path = tmp_path / Path(file.address).name
    urllib.request.urlretrieve(file.address, path)
    with capsys.disabled():
        print(f"\n{path.name}: SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    spec = convert_official(path, tmp_path / "model.safetensors")
    assert spec.architecture.name == file.network
    if file.miou is None:
        assert (spec.task, spec.num_classes) == ("classification", 1000)
    else:
        logits = load_model(tmp_path / "model.safetensors")(torch.full((1, 3, 64, 64), 127.0))
        assert logits.shape == (1, 150, 64, 64)
        assert logits.isfinite().all()


def test_every_size_has_an_encoder_and_a_segmentor():
    found = {(f.network, f.miou is None) for f in OFFICIAL_FILES}
    assert found == {(f"segnext_{size}", encoder) for size in "tsbl" for encoder in (True, False)}
    assert all(f.address.startswith("https://") and f.licence for f in OFFICIAL_FILES)
