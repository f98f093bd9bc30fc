"""Files that say they are large: BigTIFF, and rasters of which only a part is wanted."""

from pathlib import Path

import pytest
import rasterio

from tests.cli.process import finish, is_sentence, run, start
from tests.predict.test_zoo import path_of

QUIET = ("--progress", "none")
BIGTIFF = 43


def version(path):
    return path.read_bytes()[2]


def test_a_bigtiff_gives_the_bytes_of_its_classic_twin(tiny, scene, make_raster, tmp_path):
    with rasterio.open(scene) as dataset:
        big = make_raster(dataset.read(), "big.tif", BIGTIFF="YES")
    assert (version(scene), version(big)) == (42, BIGTIFF)
    code, said, err = run("predict", tiny.path, scene, big, tmp_path / "maps", *QUIET)
    assert (code, err) == (0, "")
    classic, twin = map(Path, said.split())
    assert classic.read_bytes() == twin.read_bytes()


def test_a_part_of_a_giant_is_a_map_or_a_sentence(tiny, tmp_path):
    sparse, huge = path_of("sparse.tiff"), path_of("huge4GB.tif")
    box = ("--bounds", "2046000,5821000,2046350,5821350", *QUIET)
    words = [("predict", tiny.path, path, tmp_path / f"{path.stem}.tif") for path in (sparse, huge)]
    made, refused = map(finish, [start(*each, *box) for each in words])
    assert (made[0], made[2]) == (0, "")
    with rasterio.open(made[1].strip()) as part, rasterio.open(sparse) as given:
        assert part.crs == given.crs
        assert part.width * part.height < 1_100_000
        col, row = ~given.transform @ (part.transform @ (0, 0))
        assert (col, row) == pytest.approx((round(col), round(row)), abs=1e-6)
    assert refused[:2] == (3, "")
    assert is_sentence(refused[2])
    assert "huge4GB.tif" in refused[2]
    assert not (tmp_path / "huge4GB.tif").exists()
