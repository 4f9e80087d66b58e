"""Keeping freed memory in the process.

glibc gives buffers above a threshold straight back to the system when they are freed. A training step frees and
asks again for the same hundreds of megabytes, and each time the system zeroes and maps the pages anew.
"""

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
KEEP = 2**31 - 1
"""Bytes; the largest value that mallopt takes."""


MMAP_MAX = 65536
TRIM_THRESHOLD = 128 * 1024
"""glibc's own values."""


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep what is freed, for this process, from now on.

    Returns whether that was done: on Linux with glibc, before threads have made arenas of their own. The price is
    that memory once used stays with the process; on a GPU, where the host holds little, it is small.
    """
    return _set(M_MMAP_MAX, 0) and _set(M_TRIM_THRESHOLD, KEEP)


def give_back_freed_memory() -> bool:
    """Return to glibc's own ways, which a worker process does not inherit from its parent."""
    return _set(M_MMAP_MAX, MMAP_MAX) and _set(M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def _set(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(option, value))
