"""Runs as processes: stopped, killed, doubled or out of disk, they make the files of one run."""

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from geoseg.vector import vectorize_raster
from tests.cli.process import command, environment, finish, is_sentence, run, start, wait_for

pytest.importorskip("resource", reason="signals and limits are those of POSIX")

QUIET = ("--progress", "none")
# Runs a command whose files cannot grow beyond a number of bytes.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""
PLAIN_PANEL_BYTES = 200_000


def limited(size):
    return (sys.executable, "-c", LIMITED, str(size))


@pytest.fixture
def words(tiny, long_raster, tmp_path):
    """Return a command that makes a map of four panels."""
    return ("predict", tiny.path, long_raster, tmp_path / "m.tif", *QUIET)


@pytest.fixture
def parts(tmp_path):
    return tmp_path / "m.tif.parts"


def panel(index):
    return f"panel-{index:05d}.class_map.tif"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def map_files(folder):
    return {name: content for name, content in files(folder).items() if name != "m.fgb"}


def test_stopped_killed_and_killed_again_a_run_resumes_to_the_same_files(
    words, parts, whole, tmp_path
):
    words += ("--vector", tmp_path / "m.fgb")
    process = start(*words)
    wait_for(process, parts, panel(0))
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, said, err = finish(process)
    assert (code, said) == (130, "")
    assert time.monotonic() - asked < 10
    assert is_sentence(err)
    assert "Finished parts are kept: give --resume to go on" in err
    made = (parts / panel(0)).stat().st_mtime_ns

    process = start(*words, "--resume")
    wait_for(process, parts, panel(2))
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [parts.name]
    assert (parts / panel(0)).stat().st_mtime_ns == made  # what is finished is not done again

    process = start(*words, "--resume")
    wait_for(process, tmp_path, ".m.fgb.*.part")
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert not (tmp_path / "m.fgb").exists()
    made = (tmp_path / "m.tif").stat().st_mtime_ns

    code, said, err = run(*words, "--resume")
    assert (code, err) == (0, "")
    assert said.splitlines() == [str(tmp_path / "m.tif"), str(tmp_path / "m.fgb")]
    assert files(tmp_path) == files(whole)
    assert (tmp_path / "m.tif").stat().st_mtime_ns == made
    assert not parts.exists()


def test_other_runs_on_an_output_in_work_are_refused(words, parts, whole, tmp_path):
    with start(*words) as first:
        wait_for(first, parts, panel(0))
        first.send_signal(signal.SIGSTOP)  # it holds still until the others have ended
        others = [start(*words, *flag) for flag in ((), ("--overwrite",))]
        for code, said, err in map(finish, others):
            assert (code, said) == (2, "")
            assert is_sentence(err)
            assert "another run is at work on " in err
        first.send_signal(signal.SIGCONT)
        assert finish(first)[0] == 0
    assert files(tmp_path) == map_files(whole)


def test_killed_while_it_vectorises_a_layer_that_was_there_is_whole(whole, tmp_path):
    out = tmp_path / "layer.geojson"
    out.write_text("of an earlier run")
    words = ("vectorize", whole / "m.tif", out, *QUIET)
    process = start(*words, "--overwrite")
    wait_for(process, tmp_path, ".layer.geojson.*.part/layer.geojson")
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert files(tmp_path) == {"layer.geojson": b"of an earlier run"}
    out.unlink()
    process = start(*words)
    wait_for(process, tmp_path, ".layer.geojson.*.part/layer.geojson")
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert files(tmp_path) == {}


def test_a_part_that_cannot_be_written_costs_that_part(words, parts, whole, tmp_path):
    code, said, err = run(*words, before=limited(PLAIN_PANEL_BYTES))
    assert (code, said) == (4, "")
    *noise, last = err.splitlines(keepends=True)
    assert is_sentence(last)
    assert "cannot be written" in last
    assert "Finished parts are kept" in last
    assert all(line.startswith("_tiff") for line in noise)  # libtiff's own, which nobody can stop
    assert [path.name for path in tmp_path.iterdir()] == [parts.name]
    assert sorted(path.name for path in parts.glob("panel-*")) == [panel(0), panel(1)]
    assert run(*words, "--resume")[0] == 0
    assert files(tmp_path) == map_files(whole)


@pytest.mark.parametrize("share", [0.9, 0.999])
@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb", ".parquet"])
def test_a_layer_whose_end_does_not_fit_is_absent(make_raster, tmp_path, suffix, share):
    ids = np.random.default_rng(0).integers(0, 4, (60, 60)).astype(np.uint8)
    class_map = make_raster(ids.repeat(8, 0).repeat(8, 1), "in/map.tif")
    (tmp_path / "out").mkdir()
    vectorize_raster(class_map, tmp_path / f"layer{suffix}")
    size = max(path.stat().st_size for path in tmp_path.glob("layer.*"))
    words = ("vectorize", class_map, tmp_path / "out" / f"layer{suffix}", *QUIET)
    code, said, err = run(*words, before=limited(int(share * size)))
    assert (code, said) == (4, "")
    assert err.count("\n") == 1
    assert "cannot be written" in err
    assert list((tmp_path / "out").iterdir()) == []


# Run where the disk DISK is mounted for it alone; $@ is the command.
FULL_DISK = """
mount -t tmpfs -o size=64m tmpfs "$DISK" || exit 77
"$@" 2> "$DISK.said" &
while kill -0 $! && ! test -e "$DISK/m.tif.parts/panel-00000.class_map.tif"; do sleep 0.01; done
dd if=/dev/zero of="$DISK/filler" bs=64k 2> "$DISK.dd"
wait $!; echo $?
rm "$DISK/filler"
"$@" --resume && cp "$DISK"/m.* "$DISK.out"
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="full disk not run: no unshare")
def test_a_full_disk_costs_what_did_not_fit(tiny, long_raster, whole, tmp_path):
    disk, out = tmp_path / "disk", tmp_path / "disk.out"
    disk.mkdir()
    out.mkdir()
    words = ("predict", tiny.path, long_raster, disk / "m.tif", *QUIET)
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", FULL_DISK, "sh", *command(*words)],
        env={**environment(), "DISK": str(disk)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if not done.stdout:
        pytest.skip(f"full disk not run, a disk cannot be mounted here: {done.stderr.strip()}")
    assert done.stdout.splitlines()[0] == "4"
    said = (tmp_path / "disk.said").read_text().splitlines(keepends=True)
    assert is_sentence(said[-1])
    assert "is full" in said[-1]
    assert "free some space and give --resume" in said[-1]
    assert done.returncode == 0
    assert files(out) == map_files(whole)
