"""The STAC item is valid by the published schemas, and geoseg reads it back."""

import dataclasses
import json
from pathlib import Path

import pytest

from geoseg.export.network import exported_spec
from geoseg.export.stac import MLM_SCHEMA, stac_item
from geoseg.spec import ClassSpec
from geoseg.stac_mlm import spec_from_mlm
from tests.conftest import make_spec

SCHEMAS = Path(__file__).parent / "schemas"
NAMES = ("image", "probabilities")


@pytest.fixture(scope="module")
def registry():
    """Return all schemas by their addresses: those here, and those that come with pystac."""
    pytest.importorskip("jsonschema")
    pystac = pytest.importorskip("pystac")
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT7

    files = {}
    for path in SCHEMAS.glob("*.json"):
        name, version = path.stem.split("-")
        files[f"https://stac-extensions.github.io/{name}/v{version}/schema.json"] = path
    for path in (Path(pystac.__file__).parent / "validation" / "jsonschemas").rglob("*.json"):
        files[json.loads(path.read_text("utf-8"))["$id"].rstrip("#")] = path
        # STAC's own schemas know each other by file name.
        files[f"https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/{path.name}"] = path
    resources = [
        (address, Resource.from_contents(json.loads(path.read_text("utf-8")), DRAFT7))
        for address, path in files.items()
    ]
    return Registry().with_resources(resources)


def problems(item, address, registry):
    from jsonschema import Draft7Validator

    validator = Draft7Validator({"$ref": address}, registry=registry)
    return [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(item)]


def make_item(spec, folder):
    path = folder / "m.onnx"
    path.write_bytes(b"weights")
    return stac_item(spec, path, href="./m.onnx", parameters=7, names=NAMES)


ITEM_SCHEMA = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"


@pytest.mark.parametrize("schema", [MLM_SCHEMA, ITEM_SCHEMA])
def test_an_item_is_valid(segnext, registry, schema):
    item = json.loads(segnext.report.item.read_text("utf-8"))
    assert problems(item, schema, registry) == []


@pytest.mark.parametrize("schema", [MLM_SCHEMA, ITEM_SCHEMA])
def test_odd_names_give_a_valid_item(tmp_path, registry, schema):
    classes = (ClassSpec(0, "Forêt, dense", "#00ff00"), ClassSpec(4, "eau", "#0000FF"))
    spec = make_spec(2, name="7 Wälder!", dtype="uint16", licence="ask me (twice)")
    spec = dataclasses.replace(spec, classes=classes)
    assert problems(make_item(exported_spec(spec, None), tmp_path), schema, registry) == []


def test_the_schemas_find_faults(tmp_path, registry):
    item = make_item(make_spec(), tmp_path)
    del item["properties"]["mlm:input"]
    item["assets"]["model"]["roles"] = ["data"]
    assert len(problems(item, MLM_SCHEMA, registry)) >= 2


def test_geoseg_reads_an_item_back(segnext):
    item = json.loads(segnext.report.item.read_text("utf-8"))
    read, spec = spec_from_mlm(item["properties"], "m", output="probabilities"), segnext.report.spec
    assert (read.name, read.architecture.name) == (spec.name, "segnext_t")
    assert read.classes == spec.classes
    assert [b.name for b in read.bands] == [b.name for b in spec.bands]
    assert {(b.mean, b.std) for b in read.bands} == {(0.0, 255.0)}
    assert (read.tile.size_px, read.tile.fixed) == (64, True)
    assert read.gsd_m[0] < 0.1414 < read.gsd_m[1]
    assert read.licence == spec.licence


def test_class_names_of_any_kind_are_read_back(tmp_path):
    classes = (ClassSpec(0, "Forêt, dense", "#00ff00"), ClassSpec(4, "eau", "#0000ff"))
    item = make_item(dataclasses.replace(make_spec(), classes=classes), tmp_path)
    assert spec_from_mlm(item["properties"], "m").classes == classes
    named = item["properties"]["mlm:output"][0]["classification:classes"]
    assert [c["name"] for c in named] == ["For-t-dense", "eau"]


def test_models_that_are_not_of_8_bit_are_fed_as_they_are(tmp_path):
    item = make_item(make_spec(dtype="uint16"), tmp_path)
    assert item["properties"]["mlm:input"][0]["value_scaling"] is None
    assert {(b.mean, b.std) for b in spec_from_mlm(item["properties"], "m").bands} == {(0.0, 1.0)}


def test_words_that_are_no_licence_name_go_into_the_description(tmp_path):
    spec = make_spec(licence="free, but ask", credits=("Somebody",), warning="A demonstration.")
    properties = make_item(spec, tmp_path)["properties"]
    assert properties["license"] == "other"
    for said in ("Licence: free, but ask", "Somebody", "A demonstration."):
        assert said in properties["description"]
