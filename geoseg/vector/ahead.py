"""An iterator that works on a thread of its own, a little before its items are asked for."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self

WAIT_S = 0.1


class Ahead[Item]:
    """Passes on the items of an iterator that runs beside its user; use as a context manager.

    Args:
        items: run on the thread; what they raise comes out of the iteration.
        ahead: so many items may wait to be asked for, besides the one that is being made.
        on_wait: called in the user's thread before each item, and ten times a second while there is
            none; what it raises comes out of the iteration.
    """

    def __init__(
        self, items: Iterator[Item], *, ahead: int = 1, on_wait: Callable[[], None] | None = None
    ) -> None:
        self._items = items
        self._on_wait = on_wait or (lambda: None)
        self._made: queue.Queue[Item] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="geoseg-ahead")
        self._work: Future[None]

    def __enter__(self) -> Self:
        """Begin."""
        self._work = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread after the item it is at."""
        self._stopped.set()
        self._pool.shutdown(wait=True)

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in their order."""
        while True:
            # Asked before looking: what was made until then is in the queue.
            at_end = self._work.done()
            self._on_wait()
            try:
                yield self._made.get(timeout=0 if at_end else WAIT_S)
            except queue.Empty:
                if at_end:
                    break
        self._work.result()

    def _run(self) -> None:
        for item in self._items:
            while not self._stopped.is_set():
                with suppress(queue.Full):
                    self._made.put(item, timeout=WAIT_S)
                    break
            else:
                break
