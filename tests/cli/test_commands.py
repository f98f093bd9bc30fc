"""The other commands: what they print and how they refuse."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
import torch

import geoseg as package
from geoseg.checkpoint import read_spec
from geoseg.cli.main import COMMANDS, cli
from geoseg.cli.options import parse_size
from tests.conftest import ROOT

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import rule


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_complete(geoseg, command):
    done = geoseg(command, "--help")
    assert done.code == 0
    context = click.Context(cli)
    found = cli.get_command(context, command)
    for option in found.params:
        if isinstance(option, click.Option) and not option.is_flag and option.name != "progress":
            assert option.help or option.opts[0] in {"--precision"}, option.name
    assert found.help.strip().endswith(".") or "\b" in found.help


def test_help_and_version(geoseg):
    done = geoseg("--help")
    assert all(f"  {command} " in done.out for command in COMMANDS)
    assert package.__version__ in geoseg("--version").out
    assert geoseg("no-such-command").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "--help"],
        ["models"],
        ["describe", "demo-buildings-banepa"],
        ["describe", str(ROOT / "geoseg" / "assets" / "banepa_scene.tif")],
    ],
    ids=["help", "models", "model", "raster"],
)
def test_what_needs_no_torch_does_not_wait_for_it(arguments):
    code = (
        "import sys\n"
        "from geoseg.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_no_memory_is_a_sentence(geoseg, monkeypatch):
    def hungry(*_):
        raise MemoryError

    monkeypatch.setattr("geoseg.model_files.shipped_models", hungry)
    done = geoseg("models")
    assert done.code == 4
    assert done.err.startswith("geoseg: the machine has no memory left. ")
    assert done.err.count("\n") == 1


def test_describe_a_model(geoseg, model):
    done = geoseg("describe", model)
    assert done.code == 0
    for text in ("eats      3 band(s) (red, green, blue), uint8", "unknown: never resampled"):
        assert text in done.out
    record = json.loads(geoseg("describe", model, "--json").out)
    assert (record["kind"], record["name"], len(record["classes"])) == ("model", "small", 3)


def test_describe_the_shipped_model(geoseg):
    done = geoseg("describe", "demo-buildings-banepa")
    for text in (
        "0.13 m drone RGB",
        "OpenStreetMap contributors, ODbL",
        "val_iou_building",
        "CC-BY",
    ):
        assert text in done.out


def test_describe_a_raster(geoseg, scene):
    done = geoseg("describe", scene)
    assert "size      130 x 150 px" in done.out
    assert "CRS       EPSG:32633" in done.out
    record = json.loads(geoseg("describe", scene, "--json").out)
    assert record["gsd_m"] == pytest.approx([0.3, 0.3], rel=1e-3)
    assert [b["name"] for b in record["bands"]] == ["band 1", "band 2", "band 3"] or record["bands"]


def test_describe_says_whether_a_model_can_take_it(geoseg, scene, model, make_raster):
    done = geoseg("describe", scene, "--model", model)
    assert (done.code, done.lines[-1]) == (0, f"fits {model}: yes")
    grey = make_raster(np.zeros((1, 20, 20), np.uint8), "grey.tif")
    done = geoseg("describe", grey, "--model", model, "--json")
    assert done.code == 3
    assert json.loads(done.out)["fits"]["ok"] is False
    assert "expects 3 band(s)" in done.err


def test_describe_odd_rasters(geoseg, make_raster):
    values = np.full((1, 5, 5), np.nan, np.float32)
    bare = make_raster(values, "bare.tif", crs=None, transform=None, nodata=float("nan"))
    done = geoseg("describe", bare, "--json")
    record = json.loads(done.out)
    assert (record["crs"], record["gsd_m"], record["bands"][0]["nodata"]) == (None, None, "nan")
    assert "CRS       none" in geoseg("describe", bare).out
    assert geoseg("describe", "nothing.tif").code == 3
    assert geoseg("describe", "nothing.safetensors").code == 3


def test_models(geoseg):
    record = json.loads(geoseg("models", "--json").out)
    names = {m["name"] for m in record["shipped"]}
    assert {"demo-buildings-banepa", "demo-buildings-banepa-segnext_t"} <= names
    assert {n["name"] for n in record["networks"]} >= {"segnext_t", "segnext_l"}
    assert "Demonstration model" in geoseg("models").out


def test_doctor(geoseg):
    done = geoseg("doctor")
    assert done.code == 0
    for word in ("geoseg ", "packages ", "GDAL ", "cpu ", "cuda ", "kernels ", "channels_last"):
        assert word in done.out
    record = json.loads(geoseg("doctor", "--json").out)
    assert record["protocol"] == 1
    assert record["devices"]["cpu"]["usable"]
    kernels = record["kernels"]["cpu"]
    assert kernels["usable"] == (kernels["reason"] is None)


def test_doctor_seams(geoseg, model, make_raster):
    rng = np.random.default_rng(0)
    raster = make_raster(
        rng.integers(0, 255, (3, 30, 30)).repeat(5, 1).repeat(5, 2).astype(np.uint8)
    )
    done = geoseg("doctor", "--seams", model, raster)
    assert done.code == 0
    assert len(done.lines) == 8
    assert re.match(r"overlap \d+ px (meets both|is the best)", done.lines[-1])
    record = json.loads(geoseg("doctor", "--seams", model, raster, "--json").out)
    assert record["best_overlap_px"] in {m["overlap_px"] for m in record["curve"]}
    assert geoseg("doctor", "--tile-size", "64").code == 2


def test_convert(geoseg, tmp_path):
    torch.save(rule.state_dict("segnext_t_ade20k", num_classes=2), tmp_path / "o.pth")
    (tmp_path / "names.txt").write_text("ground\nhouse\n")
    out = tmp_path / "m.safetensors"
    done = geoseg("convert", tmp_path / "o.pth", out, "--classes", tmp_path / "names.txt")
    assert (done.code, done.lines) == (0, [str(out)])
    assert [c.name for c in read_spec(out).classes] == ["ground", "house"]
    assert geoseg("convert", tmp_path / "o.pth", out).code == 2
    colours = [
        {"id": 3, "name": "a", "color": "#010203"},
        {"id": 9, "name": "b", "color": "#ffffff"},
    ]
    (tmp_path / "c.json").write_text(json.dumps(colours))
    done = geoseg(
        "convert",
        tmp_path / "o.pth",
        out,
        "--classes",
        tmp_path / "c.json",
        "--overwrite",
        "--half",
    )
    assert [c.id for c in read_spec(out).classes] == [3, 9]
    (tmp_path / "bad.json").write_text("[1]")
    done = geoseg(
        "convert",
        tmp_path / "o.pth",
        tmp_path / "x.safetensors",
        "--classes",
        tmp_path / "bad.json",
    )
    assert (done.code, "expected JSON" in done.err) == (3, True)
    done = geoseg("convert", tmp_path / "none.pth", tmp_path / "x.safetensors")
    assert (done.code, "does not exist" in done.err) == (3, True)


def test_demo(geoseg, tmp_path):
    done = geoseg("demo", tmp_path, "--progress", "json")
    result = json.loads(done.lines[-1])
    assert done.code == 0
    made = [Path(p) for p in result["outputs"].values() if p]
    names = {"buildings.tif", "confidence.tif", "buildings.gpkg", "buildings.png"}
    assert {p.name for p in made} == names
    with rasterio.open(tmp_path / "buildings.tif") as dataset:
        ids = dataset.read(1)
    buildings = (ids == 1).sum() / (ids != 255).sum()
    assert 0.15 < buildings < 0.6  # a town: about a third of it is roofs
    assert 0.05 < (ids == 255).mean() < 0.12  # where the imagery is empty
    assert geoseg("demo", tmp_path, "--progress=none").code == 0  # again, over the first


def test_rio_segment(model, scene, tmp_path):
    from click.testing import CliRunner

    from geoseg.cli.rio import segment

    out = tmp_path / "o.tif"
    done = CliRunner().invoke(segment, ["-m", str(model), str(scene), str(out)])
    assert (done.exit_code, done.output.strip()) == (0, str(out))
    done = CliRunner().invoke(segment, ["-m", str(model), str(scene), str(out)])
    assert done.exit_code == 2
    done = CliRunner().invoke(
        segment, ["-m", str(model), str(scene), str(out), "--overwrite", "-b", "1"]
    )
    assert done.exit_code == 3
    assert CliRunner().invoke(segment, ["-m", str(model), str(scene)]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4e9), ("512 MiB", 512 * 2**20), ("1.5g", 1.5e9), ("2e9", 2e9), ("100", 100)],
)
def test_sizes(text, size):
    assert parse_size(text) == size
