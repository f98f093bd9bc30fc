"""The command line: one file per command, which parses, calls and prints."""

from geoseg.cli.main import main

__all__ = ["main"]
