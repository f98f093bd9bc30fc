"""What the commands that carry out a run file share: their options, and how they report."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from geoseg.cli.events import CommandListener, ProgressKind, listening, one_voice
from geoseg.cli.options import FILE

if TYPE_CHECKING:
    from geoseg.train.run import TrainResult

OPTIONS = (
    click.argument("config", type=FILE),
    click.argument("overrides", metavar="[KEY.SUB=VALUE]...", nargs=-1),
    click.option("--resume", is_flag=True, help="Go on from the last checkpoint."),
    click.option("--overwrite", is_flag=True, help="Discard an earlier run in the same folder."),
    click.option(
        "--print-config", is_flag=True, help="Print the run with every value; train nothing."
    ),
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N, mps."
    ),
    click.option(
        "--progress",
        type=click.Choice(["auto", "json", "none"]),
        default="auto",
        show_default=True,
        help="json: one object a line on stdout, for programs.",
    ),
    click.option("--watch-stdin", is_flag=True, help="Stop cleanly when stdin is closed."),
)


def run_file_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command its run file and the options of a run."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def print_run(config: Any) -> None:
    """Print a run with every value written out."""
    from geoseg.config.parse import dump_config

    click.echo(dump_config(config), nl=False)


def carry_out(
    command: str,
    work: Callable[[CommandListener], "TrainResult"],
    *,
    progress: ProgressKind,
    watch_stdin: bool,
) -> None:
    """Do the work of a command; of several processes, the first alone speaks."""
    from geoseg.train.folder import is_first_process

    first = is_first_process()
    if not first:
        progress, watch_stdin = "none", False
    began = time.monotonic()
    with (
        one_voice(first=first),
        listening(command, progress, watch_stdin=watch_stdin) as listener,
    ):
        result = work(listener)
        if first:
            listener.result(
                {
                    "outputs": {"model": str(result.model)},
                    "metrics": result.metrics,
                    "seconds": round(time.monotonic() - began, 3),
                }
            )
