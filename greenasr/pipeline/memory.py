"""Keep freed memory for the next step of training.

A step frees some 100 MB of activations and asks for them again; by default glibc gives them back to the
system each time, and a sixth of the step goes into mapping zeroed pages.  Elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
LARGEST_MMAP_THRESHOLD = 32 << 20  # what glibc accepts
NEVER = (1 << 31) - 1


def keep_heap() -> bool:
    """Tell glibc's malloc not to return memory between steps; False where there is no such malloc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    wanted = ((M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, 64 << 20), (M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD))
    return all(mallopt(option, value) == 1 for option, value in wanted)
