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


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep what is freed, for this process, from now on.

    Returns whether that was done: on Linux with glibc, before threads have made arenas of their own. The price is
    that memory once used stays with the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEEP))
