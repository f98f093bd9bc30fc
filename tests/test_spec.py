"""The record that travels in a model file."""

import dataclasses
import json
import subprocess
import sys

import pytest

from geoseg.errors import ModelFileError
from geoseg.spec import BandSpec, ClassSpec, ModelSpec, PrecisionRecord, TileSpec
from tests.conftest import make_spec


def full_spec():
    return make_spec(
        3,
        2,
        gsd_m=(0.1, 0.2),
        tile=TileSpec(1024, 128, halo_px=4, multiple_px=32, min_px=224, fixed=True),
        precision={"bf16": PrecisionRecord(0.9995, -0.02, "cpu")},
        credits=("A", "B"),
        metrics={"val_miou": 0.8},
        versions={"torch": "2"},
        temperature=1.3,
        nodata_rule="any_band",
        warning='says "careful" <é>',
    )


def test_json_round_trip():
    spec = full_spec()
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_numbers_that_lost_their_point_stay_floats():
    record = json.loads(full_spec().to_json())
    record["gsd_m"] = [1, 2]
    spec = ModelSpec.from_json(json.dumps(record))
    assert spec.gsd_m == (1.0, 2.0)
    assert isinstance(spec.gsd_m[0], float)


def changed(**fields):
    record = json.loads(full_spec().to_json())
    for key, value in fields.items():
        if value is None:
            del record[key]
        else:
            record[key] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON model record"),
        ("[]", "expected a JSON object; got list"),
        (changed(schema_version=99), "record version 1; got 99. Update geoseg"),
        (changed(bands=None), "model: expected the fields .*; got \"no \\['bands'\\]\""),
        (changed(colour="red"), r"no other fields than .*; got \['colour'\]"),
        (changed(dtype=8), "model.dtype: expected str; got 8"),
        (changed(task="detection"), "model.task: expected 'semantic-segmentation' or"),
        (changed(gsd_m=[1, 2, 3]), "model.gsd_m: expected 2 values"),
        (changed(metrics=[1]), "model.metrics: expected an object"),
        (changed(ignore_index=True), "model.ignore_index: expected int; got True"),
    ],
)
def test_malformed_records_are_refused_with_the_place(text, message):
    with pytest.raises(ModelFileError, match=message):
        ModelSpec.from_json(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ()}, "at least one class"),
        ({"bands": ()}, "at least one input band"),
        ({"ids": (1, 1, 2, 3)}, "class ids that differ"),
        ({"ids": (0, 1, 2, 65535)}, "class ids from 0 to 65534"),
        ({"classes": (ClassSpec(0, "a", "red"),)}, "a colour #RRGGBB for class 'a'"),
        ({"bands": (BandSpec("a", std=0),)}, "a positive std for band 'a'"),
        ({"gsd_m": (2.0, 1.0)}, "finest, coarsest"),
        ({"tile": TileSpec(64, 64)}, "0 <= overlap < tile size"),
        ({"temperature": 0.0}, "a positive temperature"),
    ],
)
def test_records_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises(ModelFileError, match=message):
        make_spec(3, 4, **fields) if "ids" in fields else dataclasses.replace(full_spec(), **fields)


def test_map_type_and_nodata():
    assert (make_spec(1, 2).map_dtype, make_spec(1, 2).map_nodata) == ("uint8", 255)
    wide = make_spec(1, 2, ids=(0, 300))
    assert (wide.map_dtype, wide.map_nodata) == ("uint16", 65535)
    # 255 is a class only where the map is wider than a byte.
    assert make_spec(1, 2, ids=(255, 300)).map_nodata == 65535


def test_the_record_needs_the_standard_library_only():
    code = (
        "import sys, geoseg.spec; "
        "print(sorted(m for m in ('numpy', 'torch', 'rasterio') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
