"""A thread that does its jobs in order and never falls far behind."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self


class OrderedThread:
    """Runs jobs one after another beside the caller; use as a context manager.

    An error in a job comes out of a later `submit` or of `wait`, and the jobs after it are not run.

    Args:
        name: of the thread.
        ahead: `submit` waits while more jobs than this are unfinished.
    """

    def __init__(self, name: str, *, ahead: int) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._ahead = ahead
        self._jobs: deque[Future[None]] = deque()
        self._failed = False

    def __enter__(self) -> Self:
        """Return the thread itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread after the job it is at."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, job: Callable[..., None], *args: Any) -> None:
        """Add a job; wait while too many are unfinished."""
        while len(self._jobs) > self._ahead:
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(self._run, job, *args))

    def wait(self) -> None:
        """Return once all jobs are done."""
        while self._jobs:
            self._jobs.popleft().result()

    def drop(self) -> None:
        """Forget what has not begun, and wait for the job that has; errors are not raised."""
        for job in self._jobs:
            job.cancel()
        while self._jobs:
            job = self._jobs.popleft()
            if not job.cancelled():
                job.exception()

    def _run(self, job: Callable[..., None], *args: Any) -> None:
        if self._failed:
            return
        try:
            job(*args)
        except BaseException:
            self._failed = True
            raise
