"""``geoseg train``: a model from a run file."""

from pathlib import Path

import click

from geoseg.cli.events import ProgressKind
from geoseg.cli.run_file import carry_out, print_run, run_file_options
from geoseg.extras import TRAIN_PACKAGES, require_extra


@click.command("train")
@run_file_options
def command(
    *,
    config: Path,
    overrides: tuple[str, ...],
    resume: bool,
    overwrite: bool,
    print_config: bool,
    device: str,
    progress: ProgressKind,
    watch_stdin: bool,
) -> None:
    """Train the model that the run file CONFIG (YAML) describes.

    Single values are replaced by words such as optim.lr=1e-4. The folder `out` of the run then
    holds model.safetensors (the best weights, for `geoseg predict`), last.ckpt (for --resume),
    metrics.csv, metrics.json, curves.png and config.yaml, the run with every value written out.

    \b
    geoseg train configs/segnext_t_dubai.yaml
    geoseg train run.yaml trainer.steps=2000 out=runs/short --device cpu
    """
    require_extra("train", *TRAIN_PACKAGES, purpose="training")
    from geoseg.config.parse import parse_config

    run = parse_config(config, overrides)
    if print_config:
        print_run(run)
        return
    from geoseg.train.run import train

    carry_out(
        "train",
        lambda listener: train(
            run, resume=resume, overwrite=overwrite, device=device, listener=listener
        ),
        progress=progress,
        watch_stdin=watch_stdin,
    )
