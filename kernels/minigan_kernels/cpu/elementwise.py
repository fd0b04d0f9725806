"""Arithmetic element by element for large arrays: one pass over memory by all threads.

Small arrays, float64 and operands that lie in different memory orders are left to NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.flat import CHUNK, alike, chunks, is_row, least, like, put, take
from minigan_kernels.cpu.parallel import arg, kernel, real, run
from minigan_kernels.cpu.simd import LANES, fma, spread

Array = npt.NDArray[Any]

LARGE = 1 << 16  # numbers from which two threads beat NumPy's one


def add(a: Array, b: Array, factor: float = 1.0) -> Array:
    """a + factor b."""
    if not _together(a, b):
        return a + b if factor == 1 else a - b if factor == -1 else a + b * a.dtype.type(factor)
    y = like(a)
    run(_add, chunks(a.size), a, b, y, a.size, float(factor))
    return y


def add_to(a: Array, b: Array) -> None:
    """a += b, in place."""
    if _together(a, b):
        run(_add, chunks(a.size), a, b, a, a.size, 1.0)
    else:
        a += b


def multiply(a: Array, b: Array) -> Array:
    """a b."""
    if not _together(a, b):
        return a * b
    y = like(a)
    run(_multiply, chunks(a.size), a, b, y, a.size)
    return y


def affine(x: Array, factor: float, offset: float) -> Array:
    """factor x + offset."""
    if x.size < LARGE or not is_row(x):
        y: Array = x * factor + offset if offset else x * factor
        return y
    z = like(x)
    run(_affine, chunks(x.size), x, z, x.size, float(factor), float(offset))
    return z


def _together(a: Array, b: Array) -> bool:
    """Whether the kernels can take both."""
    return (
        a.size >= LARGE and a.shape == b.shape and a.dtype == b.dtype and is_row(a) and alike(a, b)
    )


@kernel
def _add(args: int, task: int, thread: int) -> None:
    a, b, y, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    factor = spread(np.float32(real(args, 4)))
    for i in range(task * CHUNK, least(n, task * CHUNK + CHUNK), LANES):
        put(y + 4 * i, fma(factor, take(b + 4 * i, n - i), take(a + 4 * i, n - i)), n - i)


@kernel
def _multiply(args: int, task: int, thread: int) -> None:
    a, b, y, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    for i in range(task * CHUNK, least(n, task * CHUNK + CHUNK), LANES):
        put(y + 4 * i, take(a + 4 * i, n - i) * take(b + 4 * i, n - i), n - i)


@kernel
def _affine(args: int, task: int, thread: int) -> None:
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    factor, offset = spread(np.float32(real(args, 3))), spread(np.float32(real(args, 4)))
    for i in range(task * CHUNK, least(n, task * CHUNK + CHUNK), LANES):
        put(y + 4 * i, take(x + 4 * i, n - i) * factor + offset, n - i)
