"""The process's memory: how much it has used at most, and how its allocator behaves."""

import ctypes
import sys
import time

if sys.platform == "win32":
    from ctypes import wintypes

    class _Counters(ctypes.Structure):
        _fields_ = [
            ("size", wintypes.DWORD),
            ("page_faults", wintypes.DWORD),
            ("peak_working_set", ctypes.c_size_t),
            ("rest", ctypes.c_size_t * 7),
        ]

    def peak_rss_bytes() -> int:
        """Return the largest resident size of this process so far."""
        counters = _Counters(size=ctypes.sizeof(_Counters))
        process = ctypes.windll.kernel32.GetCurrentProcess()
        ctypes.windll.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
        return int(counters.peak_working_set)

else:
    import resource

    def peak_rss_bytes() -> int:
        """Return the largest resident size of this process so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak) if sys.platform == "darwin" else int(peak) * 1024


# glibc's parameters of mallopt(3), and the largest threshold that it takes.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
LARGEST_MMAP_THRESHOLD_BYTES = 32 * 2**20
TRIM_THRESHOLD_BYTES = 2**30
GIVE_BACK_EVERY_S = 4.0


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next tile; does nothing with another C library.

    By default it gives large blocks back to the system after each layer and takes them again for
    the next one, page by page: at 512 px that took up to 40 % of SegNeXt-T's time on a CPU. Threads
    share one heap, so that what one has freed serves another: blocks are few and large here. The
    setting is the process's own and stays.
    """
    libc = _glibc()
    if libc is None:
        return
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    libc.mallopt(M_ARENA_MAX, 1)


class FreedMemory:
    """Gives what glibc keeps back to the system now and then.

    Blocks of readers and writers that stay a while between the network's tear the heap, so that it
    grows by some 50 MB over a long run. Pages that are free between two panels go back to the
    system; the network takes those that it needs again within a tenth of a second.
    """

    def __init__(self) -> None:
        self._at = time.monotonic()

    def give_back(self, *, now: bool = False) -> None:
        """Return all free pages, if ``now`` or when it has not been done for some seconds."""
        libc = _glibc()
        if libc is None or (not now and time.monotonic() - self._at < GIVE_BACK_EVERY_S):
            return
        self._at = time.monotonic()
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
