"""``python -m geoseg`` is the command line."""

import signal


def main() -> None:
    """Run the command line.

    Loading it takes a tenth of a second. A Ctrl-C in that time waits for the end of it, where there
    is somebody to make a sentence of it.
    """
    early: list[int] = []
    by_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if by_python:  # else it is ignored, or somebody else's
        signal.signal(signal.SIGINT, lambda number, _frame: early.append(number))

    from geoseg.cli.main import main as run

    def hear() -> None:
        if by_python:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if early:
            raise KeyboardInterrupt

    run(ready=hear)


if __name__ == "__main__":
    main()
