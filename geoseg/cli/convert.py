"""``geoseg convert``: a published checkpoint to a geoseg model."""

import json
import operator
from pathlib import Path

import click

from geoseg.errors import InputError, OutputExistsError
from geoseg.spec import ClassSpec


@click.command("convert")
@click.argument("official", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--classes",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Text file with one class name a line, or JSON [{id, name, color}, ...].",
)
@click.option("--half", is_flag=True, help="Store weights in half precision.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
def command(official: Path, out: Path, classes: Path | None, half: bool, overwrite: bool) -> None:
    """Turn OFFICIAL, a published SegMAN or SegNeXt checkpoint, into the geoseg model OUT.

    Takes segmentors and ImageNet encoders, in every published naming; OUT ends with
    .safetensors. The loader is proven on the published key lists, not on the published files.
    """
    from geoseg.convert import convert_official

    if out.exists() and not overwrite:
        raise OutputExistsError(f"{str(out)!r} exists. Give --overwrite, or another name.")
    spec = convert_official(
        official, out, classes=read_classes(classes) if classes else None, half=half
    )
    click.echo(out)
    click.echo(f"{spec.architecture.name}, {spec.num_classes} classes, {spec.task}", err=True)


def read_classes(path: Path) -> list[ClassSpec]:
    """Return classes from a list of names or a JSON file.

    Raises:
        InputError: unreadable, or not in one of the two forms.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"class file {str(path)!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"class file {str(path)!r}: expected UTF-8 text; got {error.reason} at byte "
            f"{error.start}. Save it as UTF-8."
        ) from error
    try:
        if path.suffix.lower() == ".json":
            return [
                ClassSpec(operator.index(c["id"]), str(c["name"]), str(c["color"]))
                for c in json.loads(text)
            ]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"class file {str(path)!r}: expected JSON [{{id, name, color}}, ...]; got {error!r}."
        ) from error
    from geoseg.convert import class_color

    names = [line.strip() for line in text.splitlines() if line.strip()]
    return [ClassSpec(i, name, class_color(i)) for i, name in enumerate(names)]
