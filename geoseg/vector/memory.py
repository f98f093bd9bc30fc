"""The bound that a user sets on memory, kept while a map is read."""

from geoseg.errors import OutOfMemoryError


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
