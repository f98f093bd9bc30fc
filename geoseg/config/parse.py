"""Run files: YAML plus ``key.sub=value`` words, parsed strictly."""

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from geoseg.config.pretrain import MaskedConfig, PretrainConfig
from geoseg.config.run import RunConfig
from geoseg.errors import InputError, UsageError


@overload
def parse_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig: ...
@overload
def parse_config[Config](
    path: str | Path, overrides: Sequence[str] = (), kind: type[Config] = ...
) -> Config: ...
def parse_config(
    path: str | Path, overrides: Sequence[str] = (), kind: type[Any] = RunConfig
) -> Any:
    """Return the run of a YAML file.

    Args:
        path: of the file.
        overrides: ``key.sub=value`` words that replace single values; the value is YAML.
        kind: dataclass that the file describes.

    Raises:
        InputError: no such file, no YAML, or a key or value that does not belong there.
        UsageError: an override that is not ``key.sub=value``, or does not fit.
    """
    values = _read_yaml(path)
    # So that the file's own mistakes are said to be its own.
    built = _build(values, kind, InputError, str(path))
    if not overrides:
        return built
    for override in overrides:
        _override(values, override)
    return _build(values, kind, UsageError, " ".join(overrides))


def parse_pretrain(
    path: str | Path, overrides: Sequence[str] = ()
) -> PretrainConfig | MaskedConfig:
    """Return the pre-training run of a YAML file; its ``task`` says which kind it is.

    Args:
        path: of the file.
        overrides: as for `parse_config`.

    Raises:
        InputError: as for `parse_config`.
        UsageError: likewise.
    """
    if _read_yaml(path).get("task") == "masked":
        return parse_config(path, overrides, MaskedConfig)
    return parse_config(path, overrides, PretrainConfig)


def _read_yaml(path: str | Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"expected a run file (YAML); {str(path)!r} cannot be read: {error.strerror}. "
            "Start from one of the files in configs/."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r}: expected YAML; {_in_one_line(error)}") from error
    if not isinstance(values, dict):
        raise InputError(
            f"{str(path)!r}: expected keys such as out, model and data; got "
            f"{type(values).__name__}. Start from one of the files in configs/."
        )
    return values


def _override(values: dict[str, Any], override: str) -> None:
    import yaml

    key, found, text = override.partition("=")
    if not found or not key:
        raise UsageError(f"expected key.sub=value; got {override!r}.")
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise UsageError(f"{override!r}: {name!r} is a single value, without parts.")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{override!r}: {_in_one_line(error)}") from error


def _build[Config](
    values: dict[str, Any], kind: type[Config], failure: type[InputError | UsageError], said: str
) -> Config:
    import jsonargparse

    _check_keys(values, kind, failure, said, "")
    # Read as YAML once more, a colour #RRGGBB would be a comment, that is, nothing.
    parser = jsonargparse.ArgumentParser(exit_on_error=False, parser_mode="json")
    parser.add_class_arguments(kind)
    try:
        parsed = parser.instantiate(parser.parse_object(values))
    except (jsonargparse.ArgumentError, TypeError) as error:
        raise failure(f"{said}: {_in_one_line(error)}") from error
    built = kind(**vars(parsed))
    _check_ranges(built, failure, said)
    return built


# The least that makes sense; beyond it, libraries end in errors of their own, or never.
LEAST = {
    **{f"trainer.{name}": 1 for name in ("steps", "epochs", "batch_size", "accumulate", "nodes")},
    **{f"trainer.{name}": 1 for name in ("val_every_steps", "val_every_epochs", "patience")},
    "trainer.log_every_steps": 1,
    "trainer.workers": 0,
    "trainer.ema_decay": 0,
    "seed": 0,
    **{f"optim.{name}": 0 for name in ("weight_decay", "warmup_steps", "min_lr", "clip_norm")},
    **{f"evaluation.{name}": 1 for name in ("crop_px", "stride_px", "multiple_px")},
    "augment.crop_px": 1,
}
# What they have to be above or below of.
ABOVE, BELOW = {"optim.lr": 0}, {"trainer.ema_decay": 1}


def _check_ranges(built: object, failure: type[InputError | UsageError], said: str) -> None:
    """Raise for the first number that cannot be meant."""
    for key in dict.fromkeys((*LEAST, *ABOVE, *BELOW)):
        value: Any = built
        for name in key.split("."):
            value = getattr(value, name, None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        wanted = [f"at least {LEAST[key]}"] if key in LEAST else []
        wanted += [f"above {ABOVE[key]}"] if key in ABOVE else []
        wanted += [f"below {BELOW[key]}"] if key in BELOW else []
        if not (
            math.isfinite(value)
            and value >= LEAST.get(key, -math.inf)
            and value > ABOVE.get(key, -math.inf)
            and value < BELOW.get(key, math.inf)
        ):
            raise failure(f"{said}: expected {key} to be {' and '.join(wanted)}; got {value}.")


def _check_keys(
    values: Mapping[str, Any],
    kind: type[Any],
    failure: type[InputError | UsageError],
    said: str,
    where: str,
) -> None:
    """Raise for the first key that no field has, with the close matches."""
    fields = typing.get_type_hints(kind)
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=3, cutoff=0.5) or fields
            raise failure(f"{said}: unknown key '{where}{key}'. Did you mean {' or '.join(close)}?")
        choices = typing.get_args(fields[key]) or (fields[key],)
        part = next((c for c in choices if dataclasses.is_dataclass(c)), None)
        if part is not None and isinstance(value, Mapping):
            _check_keys(value, typing.cast(type[Any], part), failure, said, f"{where}{key}.")


def dump_config(config: Any) -> str:
    """Return a run as YAML, every value written out, in the order of its description."""
    import yaml

    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True, width=100)


def _plain(value: Any) -> Any:
    """Return dataclasses as dicts and tuples as lists."""
    return json.loads(json.dumps(dataclasses.asdict(value)))


def _in_one_line(error: Exception) -> str:
    """Return a library's message without its line breaks."""
    return " ".join(str(error).split())
