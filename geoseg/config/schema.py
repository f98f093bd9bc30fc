"""JSON Schema of run files, from which editors complete and check them.

``python -m geoseg.config.schema configs`` writes the schemas that lie beside the run files.
"""

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

from geoseg.config.pretrain import MaskedConfig, PretrainConfig
from geoseg.config.run import RunConfig

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_FILES: dict[str, tuple[type[Any], ...]] = {
    "schema.json": (RunConfig,),
    "schema_pretrain.json": (PretrainConfig, MaskedConfig),
}
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
# "        name: text", and further lines of it, which stand deeper.
ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def config_schema(*kinds: type[Any]) -> Schema:
    """Return the JSON Schema (draft 2020-12) of run files.

    Args:
        kinds: dataclasses of which a file describes one; none: a training run.
    """
    parts: dict[str, Schema] = {}
    names = [_refer(kind, parts) for kind in kinds or (RunConfig,)]
    root = names[0] if len(names) == 1 else {"anyOf": names}
    return {"$schema": DIALECT, **root, "$defs": dict(sorted(parts.items()))}


def write_schemas(folder: Path) -> None:
    """Write the schemas of all kinds of run files."""
    for name, kinds in SCHEMA_FILES.items():
        text = json.dumps(config_schema(*kinds), indent=2) + "\n"
        (folder / name).write_text(text, "utf-8")


def _refer(kind: type[Any], parts: dict[str, Schema]) -> Schema:
    """Return a reference to a dataclass, which is described in ``parts``."""
    if kind.__name__ not in parts:
        parts[kind.__name__] = {}  # it may contain itself
        parts[kind.__name__] = _describe(kind, parts)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _describe(kind: type[Any], parts: dict[str, Schema]) -> Schema:
    about = inspect.getdoc(kind) or ""
    attributes = dict(ATTRIBUTE.findall(about.partition("Attributes:")[2]))
    hints = typing.get_type_hints(kind)
    properties: dict[str, Schema] = {}
    required = []
    for field in dataclasses.fields(kind):
        schema = _type_schema(hints[field.name], parts)
        if field.name in attributes:
            schema["description"] = _as_yaml(attributes[field.name])
        default = _default(field)
        if default is dataclasses.MISSING:
            required.append(field.name)
        else:
            schema["default"] = default
        properties[field.name] = schema
    return {
        "type": "object",
        "description": _as_yaml(about.partition("Attributes:")[0]),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _as_yaml(text: str) -> str:
    """Return a description in one line, in the words of the file."""
    return re.sub(r"\bNone\b", "null", " ".join(text.split()).replace("``", "`"))


def _default(field: "dataclasses.Field[Any]") -> Any:
    """Return a field's default as JSON has it, or `dataclasses.MISSING`."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return value
    return json.loads(json.dumps(value, default=dataclasses.asdict))


def _type_schema(hint: Any, parts: dict[str, Schema]) -> Schema:
    """Return the schema of an annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _refer(typing.cast(type[Any], hint), parts)
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return _tuple_schema(arguments, parts)
    if origin is dict:
        return {"type": "object"}
    assert origin in {typing.Union, types.UnionType}, hint
    return _any_of([_type_schema(argument, parts) for argument in arguments])


def _tuple_schema(arguments: tuple[Any, ...], parts: dict[str, Schema]) -> Schema:
    """Return the schema of a tuple of any length or of a given one."""
    items = [_type_schema(argument, parts) for argument in arguments if argument is not Ellipsis]
    if Ellipsis in arguments:
        return {"type": "array", "items": items[0]}
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _any_of(choices: list[Schema]) -> Schema:
    """Return the union of schemas; plain types side by side are one."""
    if all(set(choice) == {"type"} and choice["type"] != "object" for choice in choices):
        return {"type": [choice["type"] for choice in choices]}
    return {"anyOf": choices}


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
