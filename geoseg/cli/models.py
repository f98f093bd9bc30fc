"""``geoseg models``: what is shipped, and what can be built."""

import json
from typing import Any

import click


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the models that come with geoseg, the networks it builds, and published weights."""
    record = models_record()
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    click.echo("Shipped models (geoseg predict NAME ...):")
    for model in record["shipped"]:
        click.echo(f"  {model['name']}")
        click.echo(f"      {model['description']}")
        if model["warning"]:
            click.echo(f"      {model['warning']}")
    click.echo("Networks (geoseg.models.create_model, geoseg convert):")
    for network in record["networks"]:
        click.echo(f"  {network['name']:12s}{network['parameters'] / 1e6:7.1f} M parameters")
    click.echo("Published weights, to download and turn into model files with geoseg convert:")
    for file in record["official"]:
        score = f", {file['miou']:.2f} mIoU" if file["miou"] else ""
        click.echo(f"  {file['network']}, {file['trained_on']}{score}: {file['address']}")


def models_record() -> dict[str, Any]:
    """Return shipped models, buildable networks and published files as JSON values."""
    from dataclasses import asdict

    from geoseg.model_files import read_spec, shipped_models
    from geoseg.published import OFFICIAL_FILES, PARAMETERS

    shipped = []
    for name, path in shipped_models().items():
        spec = read_spec(path)
        shipped.append(
            {
                "name": name,
                "model": spec.name,
                "file": str(path),
                "description": spec.description,
                "warning": spec.warning,
                "classes": [c.name for c in spec.classes],
                "gsd_m": spec.gsd_m,
            }
        )
    networks = [{"name": name, "parameters": count} for name, count in PARAMETERS.items()]
    official = [asdict(file) for file in OFFICIAL_FILES]
    return {"shipped": shipped, "networks": networks, "official": official}
