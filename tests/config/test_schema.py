import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from geoseg.config.run import RunConfig
from geoseg.config.schema import DIALECT, SCHEMA_FILES, config_schema, write_schemas
from tests.conftest import ROOT


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        sides: first and second,
            in pixels.
        names: None: none.
    """

    sides: tuple[int, int]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Whole:
    """One line.

    More.

    Attributes:
        mode: ``a`` or ``b``.
        part: see there.
    """

    mode: Literal["a", "b"]
    part: Part | None
    value: float | Literal["auto"] = 0.5
    options: dict[str, Any] = field(default_factory=dict)
    given: Part = Part((1, 2))


@pytest.mark.parametrize("name", sorted(SCHEMA_FILES))
def test_the_schema_beside_the_run_files_is_current(name):
    stored = json.loads((ROOT / "configs" / name).read_text("utf-8"))
    assert stored == config_schema(*SCHEMA_FILES[name]), (
        "run: python -m geoseg.config.schema configs"
    )


def test_write_schemas_writes_them_all(tmp_path):
    write_schemas(tmp_path)
    for name in SCHEMA_FILES:
        assert (tmp_path / name).read_bytes() == (ROOT / "configs" / name).read_bytes()


def test_every_key_of_a_run_is_described():
    schema = config_schema()
    assert schema["$schema"] == DIALECT
    assert schema["$ref"] == "#/$defs/RunConfig"
    for name, part in schema["$defs"].items():
        assert part["additionalProperties"] is False
        assert part["description"]
        bare = [key for key, value in part["properties"].items() if "description" not in value]
        assert bare == [], name


def test_a_dataclass_becomes_an_object_with_its_types_texts_and_defaults():
    parts = config_schema(Whole)["$defs"]
    assert parts["Part"] == {
        "type": "object",
        "description": "A part.",
        "properties": {
            "sides": {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "integer"}],
                "minItems": 2,
                "maxItems": 2,
                "description": "first and second, in pixels.",
            },
            "names": {
                "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                "description": "null: none.",
                "default": None,
            },
        },
        "required": ["sides"],
        "additionalProperties": False,
    }
    assert parts["Whole"]["description"] == "One line. More."
    assert parts["Whole"]["required"] == ["mode", "part"]
    properties = parts["Whole"]["properties"]
    assert properties["mode"] == {"enum": ["a", "b"], "description": "`a` or `b`."}
    assert properties["part"]["anyOf"] == [{"$ref": "#/$defs/Part"}, {"type": "null"}]
    assert properties["value"] == {
        "anyOf": [{"type": "number"}, {"enum": ["auto"]}],
        "default": 0.5,
    }
    assert properties["options"] == {"type": "object", "default": {}}
    assert properties["given"]["default"] == {"sides": [1, 2], "names": None}


def test_a_file_of_several_kinds_is_one_of_them():
    assert config_schema(Whole, RunConfig)["anyOf"] == [
        {"$ref": "#/$defs/Whole"},
        {"$ref": "#/$defs/RunConfig"},
    ]
