"""Advisory file locks that the system drops when their process dies, however it dies."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoseg.errors import OutputExistsError

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, *, shared: bool) -> None:
        # Windows locks bytes exclusively; sharers take a byte each, an owner takes them all.
        byte, count = (os.getpid() % 1023, 1) if shared else (0, 1024)
        os.lseek(handle, byte, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, count)

else:
    import fcntl

    def _lock(handle: int, *, shared: bool) -> None:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path, *, shared: bool, busy: str) -> Iterator[None]:
    """Hold a lock on ``path``, which is created and stays.

    Raises:
        OutputExistsError: another process holds it; the message is ``busy``.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _lock(handle, shared=shared)
            # The holder before may have removed the file between our open and our lock.
            same = os.path.samestat(os.fstat(handle), path.stat())
        except OSError as error:
            raise OutputExistsError(busy) from error
        if not same:
            raise OutputExistsError(busy)
        yield
    finally:
        os.close(handle)
