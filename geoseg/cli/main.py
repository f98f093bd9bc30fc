"""The ``geoseg`` command: finds subcommands, and turns errors into sentences and exit codes."""

import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

import geoseg
from geoseg.cli.events import EXIT_INTERRUPTED, error_event, wants_json
from geoseg.errors import GeosegError, InputError, InterruptedRunError, MachineError, UsageError

COMMANDS = (
    *("demo", "predict", "assemble", "vectorize"),
    *("train", "finetune", "pretrain", "evaluate"),
    *("convert", "export", "describe", "models", "doctor"),
)

EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_MACHINE = 4


class Commands(click.Group):
    """A group that imports a subcommand only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the walk through the tool."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand, or None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"geoseg.cli.{cmd_name}")
        command: click.Command = module.command
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(geoseg.__version__, package_name="geoseg")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def cli(debug: bool) -> None:
    """Land-cover maps from imagery: semantic segmentation of GeoTIFFs of any size.

    \b
    A first map:   geoseg demo
    Your own:      geoseg predict MODEL RASTER OUT.tif
    """


def main(
    arguments: Sequence[str] | None = None, *, ready: Callable[[], None] = lambda: None
) -> NoReturn:
    """Run the command line and exit with its code: 0, 2 usage, 3 input, 4 machine, 130 stopped.

    Args:
        arguments: None: the process's own.
        ready: called first; what it raises ends in a sentence, too.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        ready()
        cli.main(args=arguments, prog_name="geoseg", standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        if wants_json(arguments):
            # Whatever click calls it: programs know geoseg's own kinds.
            message = error.format_message()
            click.echo(error_event(UsageError(message), message))
        error.show()
        sys.exit(EXIT_USAGE)
    except (GeosegError, KeyboardInterrupt, click.Abort, MemoryError) as error:
        sys.exit(_report(error, arguments, debug=debug))
    sys.exit(0)


def exit_code(error: BaseException) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, (InterruptedRunError, KeyboardInterrupt, click.Abort)):
        return EXIT_INTERRUPTED
    if isinstance(error, (MachineError, MemoryError)):
        return EXIT_MACHINE
    if isinstance(error, UsageError):
        return EXIT_USAGE
    return EXIT_INPUT if isinstance(error, InputError) else 1


def _report(error: BaseException, arguments: Sequence[str], *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    message = str(error) or "stopped. Finished parts are kept: give --resume to go on."
    if isinstance(error, MemoryError) and not isinstance(error, GeosegError):
        message = "the machine has no memory left. Close other programs, or run it on another one."
    if wants_json(arguments):
        click.echo(error_event(error, message))
    click.echo(f"geoseg: {message}", err=True)
    return exit_code(error)
