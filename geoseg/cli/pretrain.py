"""``geoseg pretrain``: an encoder to start segmentation from."""

from pathlib import Path

import click

from geoseg.cli.events import ProgressKind
from geoseg.cli.run_file import carry_out, print_run, run_file_options
from geoseg.extras import TRAIN_PACKAGES, require_extra


@click.command("pretrain")
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
    """Pre-train the encoder that the run file CONFIG (YAML) describes.

    Its task is `classification`, to name images in class folders such as ImageNet's, or `masked`,
    to fill in hidden squares of any imagery without labels. A training run starts from the result
    with model.encoder_weights=OUT/model.safetensors. Options are those of `geoseg train`.

    \b
    geoseg pretrain configs/segman_t_imagenet.yaml data.root=imagenet
    geoseg pretrain configs/segnext_t_masked.yaml "data.images=scenes/*.tif"
    """
    require_extra("train", *TRAIN_PACKAGES, purpose="pre-training")
    from geoseg.config.parse import parse_pretrain

    run = parse_pretrain(config, overrides)
    if print_config:
        print_run(run)
        return
    from geoseg.train.pretrain import pretrain

    carry_out(
        "pretrain",
        lambda listener: pretrain(
            run, resume=resume, overwrite=overwrite, device=device, listener=listener
        ),
        progress=progress,
        watch_stdin=watch_stdin,
    )
