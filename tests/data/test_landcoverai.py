"""LandCover.ai: official chips, the same chips cut from scenes, and division by scene."""

import numpy as np
import pytest

from geoseg.config.run import DataConfig, SplitConfig
from geoseg.data import landcoverai
from geoseg.data.build import build_split, raster_config
from geoseg.errors import InputError
from tests.data.chip_files import PLAIN, picture

SIZE = (520, 1100)  # one whole row of chips: numbers 0 and 1 are written, 2 and the row below not


@pytest.fixture
def scenes(make_raster, tmp_path):
    """Write two scenes with masks and the authors' lists; return the values."""
    values = {}
    for k, name in enumerate(("N-33-60-D-c-4-2", "M-34-5")):
        image = picture(k, SIZE)
        mask = np.random.default_rng(k).integers(0, 5, SIZE, dtype=np.uint8)
        make_raster(image, f"images/{name}.tif", crs="EPSG:2180")
        make_raster(mask, f"masks/{name}.tif", crs="EPSG:2180")
        values[name] = image, mask
    (tmp_path / "train.txt").write_text("N-33-60-D-c-4-2_0\nM-34-5_0\n")
    (tmp_path / "val.txt").write_text("N-33-60-D-c-4-2_1\n")
    (tmp_path / "test.txt").write_text("M-34-5_1\n")
    return values


def write_chips(make_raster, scenes, root):
    """Cut the scenes as the authors' script does: masks get three equal bands."""
    for name, (image, mask) in scenes.items():
        for k in (0, 1):
            part = np.s_[..., :512, 512 * k : 512 * (k + 1)]
            make_raster(image[part], f"output/{name}_{k}.jpg", driver="JPEG", **PLAIN)
            repeated = np.repeat(mask[part][None], 3, axis=0)
            make_raster(repeated, f"output/{name}_{k}_m.png", driver="PNG", **PLAIN)


def test_chips_and_windows_are_the_same_places(make_raster, scenes, tmp_path):
    write_chips(make_raster, scenes, tmp_path)
    chips = DataConfig("landcoverai", root=str(tmp_path))
    windows = DataConfig("landcoverai_scenes", root=str(tmp_path))
    for name in ("train", "val", "test"):
        by_chip, by_window = build_split(chips, name), build_split(windows, name)
        assert by_chip.names == by_window.names
        for k in range(len(by_chip.names)):
            one, other = by_chip.dataset[k], by_window.dataset[k]
            assert (one["mask"] == other["mask"]).all()
            assert one["image"].shape == other["image"].shape == (3, 512, 512)
    second = build_split(windows, "val").dataset[0]
    image, mask = scenes["N-33-60-D-c-4-2"]
    assert (second["image"].numpy() == image[:, :512, 512:1024]).all()
    assert (second["mask"].numpy() == mask[:512, 512:1024]).all()


def test_the_official_split_says_that_it_leaks(make_raster, scenes, tmp_path):
    write_chips(make_raster, scenes, tmp_path)
    data = DataConfig("landcoverai", root=str(tmp_path))
    assert build_split(data, "train").notes == ()
    note = build_split(data, "val").notes[0]
    assert "1 of 1 scenes of this split also have chips in the training split" in note
    assert "data.official_split: false keeps scenes together" in note


def test_by_scene_no_scene_is_on_both_sides(make_raster, scenes, tmp_path):
    write_chips(make_raster, scenes, tmp_path)
    by_scene = SplitConfig(by="scene", val_share=0.5)
    data = DataConfig("landcoverai", root=str(tmp_path), official_split=False, split=by_scene)
    found = [
        {landcoverai.scene_of(n) for n in build_split(data, name).names}
        for name in ("train", "val")
    ]
    assert [len(f) for f in found] == [1, 1]
    assert found[0] != found[1]
    assert build_split(data, "val").notes == ()


def test_whole_scenes_become_rasters(scenes, tmp_path):
    data = DataConfig(
        "landcoverai_scenes", root=str(tmp_path), official_split=False, gsd_m=(0.25, 0.5)
    )
    rasters = raster_config(data)
    assert rasters.kind == "raster"
    assert rasters.train.images == str(tmp_path / "images/*.tif")
    assert rasters.train.labels == str(tmp_path / "masks/*.tif")
    assert [c.name for c in rasters.classes] == [
        "background",
        "building",
        "woodland",
        "water",
        "road",
    ]
    assert rasters.split == data.split
    assert rasters.gsd_m == (0.25, 0.5)
    assert raster_config(DataConfig("landcoverai", root=str(tmp_path))) is None


def test_lists_that_do_not_fit_the_scenes_are_refused(scenes, tmp_path):
    data = DataConfig("landcoverai_scenes", root=str(tmp_path))
    (tmp_path / "train.txt").write_text("M-34-5_2\n")
    with pytest.raises(InputError, match=r"chip 'M-34-5_2' lies outside .* 1100 x 520 px"):
        build_split(data, "train")
    (tmp_path / "train.txt").write_text("M-34-5_x\n")
    with pytest.raises(InputError, match=r"a scene and a number, .*; got 'M-34-5_x'"):
        build_split(data, "train")
    (tmp_path / "train.txt").write_text("M-34-6_0\n")
    with pytest.raises(InputError, match=r"2 of 2 files are not there, first '.*M-34-6.tif'"):
        build_split(data, "train")


def test_the_real_mask_is_cut_where_the_script_cuts(shared_data, make_raster, tmp_path):
    name = "N-33-60-D-c-4-2"
    source = shared_data / f"landcoverai-masks/{name}.tif"
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.tif").symlink_to(source)
    # 4136 px wide: nine chips a row, the ninth too narrow to be written.
    (tmp_path / "val.txt").write_text(f"{name}_10\n")
    split = build_split(DataConfig("landcoverai_scenes", root=str(tmp_path), bands=(1,)), "val")
    window = split.dataset.chips[0].window
    assert (window.row, window.col) == (512, 512)
    sample = split.dataset[0]
    assert (sample["image"][0] == sample["mask"]).all()
