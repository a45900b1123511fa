"""Working memory of a training on the CPU: kept by the process from step to step.

The C library gives large blocks back to the system when they are freed, and a training step frees all it made: every
step then takes its memory anew, page by page, each cleared by the kernel (9,000 page faults a step at 128 px, a seventh
of the time: benchmarks/proxy_step.py).
"""

import ctypes
import sys

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_STEP = 64 * 2**20  # bytes by which the heap grows
_LARGEST = (2**30, 32 * 2**20)  # bytes of a block that comes from the heap; glibc before 2.35 takes no more than 32 MiB


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of giving it back; whether the C library could be told so.

    For the process's whole life, so for workers of a search alone. Does nothing outside of Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    kept = any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST)
    return bool(kept and mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_TOP_PAD, _STEP))
