"""A run's metrics file becomes series of steps and values."""

import math

import pytest

from geoseg.errors import InputError
from geoseg.evaluate.curves import best_step, collect_curves, read_curves
from geoseg.evaluate.plots import group_curves, save_learning_curves


def test_empty_cells_are_no_points(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train_loss,miou\n0,10,1.5,\n0,20,,0.25\n1,30,nan,\n")
    curves = read_curves(path)
    assert set(curves) == {"train_loss", "miou"}
    assert curves["miou"] == ((20.0, 0.25),)
    assert curves["train_loss"][0] == (10.0, 1.5)
    assert math.isnan(curves["train_loss"][1][1])


def test_of_a_step_run_twice_the_later_counts():
    rows = [
        {"step": "5", "miou": "0.1"},
        {"step": "9", "miou": "0.3"},
        {"step": "5", "miou": "0.2"},
    ]
    assert collect_curves(rows)["miou"] == ((5.0, 0.2), (9.0, 0.3))


def test_a_file_without_steps_gives_a_sentence(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss\n1,2\n")
    with pytest.raises(InputError, match="a column 'step'; got the columns epoch, loss. Give"):
        read_curves(path)


def test_a_word_among_the_numbers_gives_a_sentence(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,two\n")
    with pytest.raises(InputError, match="expected numbers in every cell; .*'two'"):
        read_curves(path)


def test_the_best_step_skips_what_is_no_number():
    curves = {"miou": ((1, 0.2), (2, math.nan), (3, 0.4), (4, 0.4))}
    assert best_step(curves) == 3
    assert best_step(curves, "accuracy") is None
    assert best_step({**curves, "val_miou": ((7, 0.1),)}) == 7


def test_curves_are_grouped_into_charts_in_the_classes_colours():
    point = ((1.0, 0.5),)
    names = [
        *("lr", "val_iou_road", "val_accuracy_road", "val_miou", "val_accuracy", "loss"),
        *("val_mean_dice", "val_iou_roof"),
    ]
    charts = group_curves(dict.fromkeys(names, point), {"road": "#123456"})
    assert [(label, [line.name for line in lines]) for label, lines in charts] == [
        ("Loss", ["loss"]),
        ("Score", ["val_miou", "val_accuracy"]),
        ("IoU of the classes", ["road", "roof"]),
        ("lr", ["lr"]),
    ]
    assert charts[2][1][0].color == "#123456"


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_learning_curves_of_several_runs_make_a_picture(tmp_path, suffix):
    runs = {"segnext_t $a$": {"miou": ((1.0, 0.1), (2.0, 0.2))}, "unet": {"loss": ((1.0, 0.1),)}}
    path = save_learning_curves(tmp_path / f"curves.{suffix}", runs, "miou")
    head = path.read_bytes()
    assert head[:4] == b"\x89PNG" if suffix == "png" else b"segnext_t $a$" in head
    assert b"unet" not in head
