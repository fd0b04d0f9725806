"""Memory that ends at a fence: reading or writing one byte beyond it kills the process.

Kernels with bare addresses are tested with it, in a process of their own.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def fenced(shape: Sequence[int]) -> Array:
    """A float32 array of NaN whose last byte is the last one that may be touched."""
    count = int(np.prod(shape))
    pages = -(-4 * count // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, pages + mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    fence = ctypes.c_void_p(memory.ctypes.data + pages)
    assert libc.mprotect(fence, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    array = memory[pages - 4 * count : pages].view(np.float32).reshape(shape)
    array[...] = np.nan
    return array
