"""The bound that a user sets on memory, kept while a map is read."""

from dataclasses import dataclass

from geoseg.errors import OutOfMemoryError


@dataclass(frozen=True)
class Bounds:
    """What a step may hold at a time; its result depends on neither.

    Args:
        rows: read at once; None: as many as make a strip of some size.
        max_bytes: for what is open or undecided; None: any.
    """

    rows: int | None = None
    max_bytes: int | None = None


UNBOUNDED = Bounds()


def check_memory(held_bytes: int, most_bytes: int | None, what: str) -> None:
    """Raise when what is held outgrows the bound.

    Args:
        held_bytes: by now.
        most_bytes: None: no bound.
        what: is held, for the message.

    Raises:
        OutOfMemoryError: more is held than may be.
    """
    if most_bytes is not None and held_bytes > most_bytes:
        raise OutOfMemoryError(
            f"expected the {what} to take at most {most_bytes / 1e6:.0f} MB of --max-memory; they "
            f"take {held_bytes / 1e6:.0f} MB. Raise --max-memory, or drop specks with --min-area."
        )
