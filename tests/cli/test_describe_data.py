"""``geoseg describe`` of data sets."""

import json

import pytest

from tests.data.chip_files import PLAIN, halves, write_pairs

SECTION = """
kind: folder
train: {{images: {0}/images, labels: {0}/masks}}
val: {{images: {0}/images, labels: {0}/masks}}
classes:
- {{id: 0, name: other}}
- {{id: 1, name: house, color: "#FF0000"}}
"""


@pytest.fixture
def root(make_raster, tmp_path):
    write_pairs(make_raster)
    return tmp_path / "set"


def test_a_data_section_is_described(geoseg, root, tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text(SECTION.format(root))
    done = geoseg("describe", file)
    assert done.code == 0, done.err
    assert "3 band(s) (red, green, blue), uint8" in done.out
    assert "1  #FF0000 house   50.00 %  50.00 %" in done.out
    assert "problem: leak: 2 images of val are also in train, first 'a' = 'a'." in done.out
    assert "  mean:     [" in done.out
    record = json.loads(geoseg("describe", file, "--json").out)
    assert record["kind"] == "data"
    assert record["splits"][0]["counts"] == [80, 80]
    assert len(record["problems"]) == 2


def test_a_run_file_is_described_by_its_data(geoseg, root, tmp_path):
    section = SECTION.format(root).strip().replace("\n", "\n  ")
    file = tmp_path / "run.yml"
    file.write_text(f"out: runs/x\nmodel: {{name: segnext_t}}\ndata:\n  {section}\n")
    assert "(folder)" in geoseg("describe", file).out
    file.write_text(f"out: runs/x\nmodel: {{name: segnext_t}}\ndata:\n  {section}\nodd: 1\n")
    done = geoseg("describe", file)
    assert done.code == 3
    assert "unknown key 'odd'" in done.err


def test_a_folder_is_described_and_its_classes_found(geoseg, root):
    done = geoseg("describe", root)
    assert done.code == 0, done.err
    assert "class 1   50.00 %" in done.out
    assert "no problems found" in done.out


def test_labels_of_single_classes_are_noted(geoseg, root, make_raster):
    make_raster(halves(1, 1), "set/masks/a.png", driver="PNG", **PLAIN)
    assert "note: train: 1 samples hold a single class" in geoseg("describe", root).out


def test_what_cannot_be_read_at_all_is_an_error(geoseg, tmp_path):
    assert geoseg("describe", tmp_path).code == 3
    assert geoseg("describe", tmp_path / "nothing.yaml").code == 3
    file = tmp_path / "data.yaml"
    file.write_text("kind: ade20k\nroot: nowhere\n")
    done = geoseg("describe", file)
    assert done.code == 3
    assert "Get it from http://sceneparsing.csail.mit.edu" in done.err
    file.write_text("kind: folder\nclases: []\n")
    assert "unknown key 'clases'. Did you mean classes" in geoseg("describe", file).err


def test_options_of_rasters_are_refused(geoseg, root):
    done = geoseg("describe", root, "--bands", "1")
    assert done.code == 2
    assert "--model and --bands need a raster" in done.err
