"""Keep freed memory for the next array instead of giving it back to the system.

A training step makes and frees the same arrays again and again. glibc returns large blocks to the
kernel at once, and every page of the next array is then a page fault and is cleared anew: in a
small DCGAN step about 5,000 faults, which took as long as the arithmetic. Two settings of malloc
end that. The process stays at its peak size; elsewhere than on glibc nothing happens.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names and numbers from malloc.h
LARGEST_KEPT = 32 << 20  # bytes of one block; glibc takes no more
KEPT = 1 << 30  # bytes at the top of the heap


def keep_freed_memory() -> bool:
    """Tell malloc to keep freed blocks; returns whether it understood."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(M_TRIM_THRESHOLD, KEPT))
