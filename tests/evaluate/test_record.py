"""The record's JSON: stable keys, no NaN, no pixels."""

import json

import numpy as np
import pytest

from geoseg.errors import MachineError
from geoseg.evaluate.record import ClassRow, EvaluationRecord, Picture


def record():
    nan = float("nan")
    row = ClassRow(3, "Wald", "#00ff00", 0.5, nan, nan, 0.6, nan, 10, np.int64(12), None)
    empty = np.zeros((2, 2), np.uint8)
    picture = Picture("a", "best", 0.5, np.zeros((2, 2, 3), np.uint8), empty, empty)
    return EvaluationRecord(
        kind="raster",
        model="m",
        data="d.tif",
        scores={"miou": np.float64(0.5), "iou_wald": nan},
        classes=(row,),
        confusion=((10,),),
        samples=1,
        pixels=10,
        ignored_pixels=2,
        pictures=(picture,),
        curves={"miou": ((0, 0.1), (5, nan))},
    )


def test_the_keys_are_those_that_are_documented():
    found = record().to_dict()
    assert list(found) == [
        *("kind", "model", "data", "scores", "classes", "confusion", "samples", "pixels"),
        *("ignored_pixels", "calibration", "cells", "area", "pictures", "curves", "settings"),
        *("files", "notes", "versions", "seconds", "record_version"),
    ]
    assert list(found["classes"][0]) == [
        *("id", "name", "color", "iou", "accuracy", "precision", "dice", "boundary_iou"),
        *("pixels", "predicted_pixels", "area_m2"),
    ]
    assert found["pictures"] == [{"name": "a", "kind": "best", "score": 0.5}]


def test_the_text_is_strict_json(tmp_path):
    path = record().write_json(tmp_path / "deep" / "metrics.json")

    def refuse(text):
        raise AssertionError(text)

    found = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert found["scores"] == {"miou": 0.5, "iou_wald": None}
    assert found["classes"][0]["predicted_pixels"] == 12
    assert found["curves"] == {"miou": [[0, 0.1], [5, None]]}
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"metrics.json' cannot be written: "):
        record().write_json(tmp_path / "file" / "metrics.json")
