"""For kernels with bare addresses: memory that ends at a fence, and tasks in an unkind order."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from minigan_kernels.cpu import parallel

Array = np.ndarray[Any, Any]


def fenced(shape: Sequence[int]) -> Array:
    """A float32 array of NaN whose last byte is the last one that may be touched.

    Reading or writing one more kills the process: use it in one of its own.
    """
    count = int(np.prod(shape))
    pages = -(-4 * count // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = np.frombuffer(mmap.mmap(-1, pages + mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    fence = ctypes.c_void_p(memory.ctypes.data + pages)
    assert libc.mprotect(fence, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    array = memory[pages - 4 * count : pages].view(np.float32).reshape(shape)
    array[...] = np.nan
    return array


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may import from tests/."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)


THREADS = 11  # what `threads` says while `last_thread_first_task_last` runs the kernels


def last_thread_first_task_last(kernel: parallel.Kernel, tasks: int, *args: Any) -> None:
    """`parallel.run`, with all tasks on the last thread and in falling order.

    The working memory of the other threads (the first rows of arrays with a row per thread) must
    not change: then threads cannot disturb each other.
    """
    shared = [a for a in args if isinstance(a, np.ndarray) and len(a) == THREADS and a.ndim == 2]
    for work in shared:
        work[...] = 7
    block = np.array([parallel.cell(a) for a in args], np.int64)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(kernel.address)
    for task in reversed(range(tasks)):
        call(block.ctypes.data, task, THREADS - 1)
    for work in shared:
        assert (work[:-1] == 7).all(), kernel.__name__
