"""Evaluation records made by hand, for the tests of the report."""

import math

import numpy as np

from geoseg.evaluate.metrics import class_scores, scores
from geoseg.evaluate.record import (
    AreaRow,
    AreaTable,
    Calibration,
    CellSummary,
    ClassRow,
    EvaluationRecord,
    Picture,
    ReliabilityBin,
)

NAMES = ("background", "building", "water")
COLORS = ("#101010", "#e34a33", "#2b8cbe")
COUNTS = ((900, 60, 0), (40, 250, 0), (0, 0, 0))


def make_record(names=NAMES, counts=COUNTS, **fields):
    """Return a record of a data set; what ``fields`` name is put in place of the defaults."""
    matrix = np.array(counts)
    by_class = class_scores(matrix)
    colors = [COLORS[k] if k < 3 else f"#{k * 7919 % 2**24:06x}" for k in range(len(names))]
    classes = tuple(
        ClassRow(
            k + 1,
            name,
            colors[k],
            *(float(by_class[key][k]) for key in ("iou", "accuracy", "precision", "dice")),
            boundary_iou=math.nan,
            pixels=int(matrix[k].sum()),
            predicted_pixels=int(matrix[:, k].sum()),
        )
        for k, name in enumerate(names)
    )
    values = {
        "kind": "dataset",
        "model": "small-segnext_t",
        "data": "four chips",
        "scores": scores(matrix, names),
        "classes": classes,
        "confusion": tuple(tuple(int(n) for n in row) for row in matrix),
        "samples": 4,
        "pixels": int(matrix.sum()),
        "ignored_pixels": 50,
        "settings": {"in_sample": False, "gsd_m": 0.3, "protocol": {"mode": "whole"}},
        "versions": {"geoseg": "0.1.0"},
    }
    return EvaluationRecord(**{**values, **fields})


def make_picture(name="chip 1", kind="worst", *, side=32, seed=0):
    generator = np.random.default_rng(seed)
    target = generator.integers(0, 2, (side, side), np.uint8)
    target[:4] = 255
    predicted = np.where(generator.random((side, side)) < 0.1, 1 - target % 2, target % 2)
    image = generator.integers(0, 256, (side, side, 3), np.uint8)
    return Picture(name, kind, 0.7, image, target, predicted.astype(np.uint8))


def make_calibration():
    def bins(shift):
        empty = ReliabilityBin(0.0, 0.5, 0, math.nan, math.nan)
        return (empty, ReliabilityBin(0.5, 1.0, 1250, 0.9, 0.9 - shift))

    return Calibration(0.08, bins(0.08), 0.5, 1.0, 1.4, 0.02, 0.45, bins(0.02), 1250)


def make_cells():
    grid = ((0.9, 0.5), (math.nan, 1.0))
    return CellSummary(100.0, 2, 2, 3, 0.8, 0.5, (0.5, 0.9, 1.0), 0.7, grid)


def make_area(kind="estimated"):
    if kind == "descriptive":
        return AreaTable(
            "descriptive",
            "counted in the map, without interval",
            (AreaRow(2, "building", 31_400.0),),
        )
    row = AreaRow(2, "building", 31_400.0, 80, 33_000.0, 900.0, 31_200.0, 34_800.0, 0.9, 0.02, 0.8)
    return AreaTable("estimated", "From a sample.", (row,), "stratified", 200, 0.93, 0.02)


def full_record(**fields):
    """Return a record of a raster that fills every section."""
    values = {
        "kind": "raster",
        "calibration": make_calibration(),
        "cells": make_cells(),
        "area": make_area(),
        "pictures": (
            make_picture("scene", "overview"),
            make_picture("chip 1", "worst", seed=1),
            make_picture("chip 2", "best", seed=2),
        ),
        "curves": {
            "train_loss": tuple((s, 1 / (1 + s)) for s in range(120)),
            "miou": ((10, 0.3), (20, 0.6), (30, 0.5)),
            "iou_building": ((10, 0.2), (20, 0.5), (30, 0.6)),
        },
        "notes": ("Only labelled ground counts.",),
        "files": {"json": "evaluation.json", "model": "elsewhere/model.safetensors"},
    }
    return make_record(**{**values, **fields})
