"""The process's memory: how much it has used at most, and how its allocator behaves."""

import ctypes
import sys

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


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next tile; does nothing with another C library.

    By default it gives large blocks back to the system after each layer and takes them again for
    the next one, page by page: at 512 px that took up to 40 % of SegNeXt-T's time on a CPU. Threads
    share one heap, so that what one has freed serves another: blocks are few and large here. The
    setting is the process's own and stays.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
    libc.mallopt(M_ARENA_MAX, 1)
