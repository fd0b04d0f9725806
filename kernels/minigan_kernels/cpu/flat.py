"""Arrays as one long row of numbers: the frame of kernels that go element by element.

Element by element, the order of the axes does not matter as long as it is the same for all arrays.
So a kernel sees `n` numbers from an address on and cuts them into tasks of `CHUNK`:

    for i in range(task * CHUNK, least(n, task * CHUNK + CHUNK), LANES):
        put(y + 4 * i, f(take(x + 4 * i, n - i)), n - i)

`dense_order` tells whether an array is such a row without gaps, whatever the order of its axes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.parallel import part
from minigan_kernels.cpu.scratch import aligned
from minigan_kernels.cpu.simd import LANES, load, load_part, store, store_part

Array = npt.NDArray[Any]

CHUNK = 1 << 14  # numbers of a task: 64 KiB of each array
SMALL = 1 << 12  # numbers below which NumPy is done before a kernel has started


def chunks(n: int) -> int:
    """Tasks for n numbers."""
    return -(-n // CHUNK)


@part
def least(a: int, b: int) -> int:
    """The smaller of two."""
    return a if a < b else b


@part
def take(p: Any, count: Any) -> Any:
    """Sixteen numbers at p, or the `count` that are left and zeros."""
    if count >= LANES:
        return load(p)
    return load_part(p, count)


@part
def put(p: Any, value: Any, count: Any) -> None:
    """Write sixteen numbers to p, or the first `count`."""
    if count >= LANES:
        store(p, value)
    else:
        store_part(p, value, count)


@lru_cache(maxsize=4096)
def dense_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """Axes from the outermost in memory to the innermost, None if there are gaps (float32)."""
    order = sorted(range(len(shape)), key=lambda i: -strides[i])
    step = 4
    for i in reversed(order):
        if shape[i] != 1:
            if strides[i] != step:
                return None
            step *= shape[i]
    return tuple(order)


@lru_cache(maxsize=4096)
def _plan(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[Any, Any] | None:
    """Lengths in memory order, and the permutation that brings the axes back."""
    order = dense_order(shape, strides)
    if order is None:
        return None
    back = tuple(order.index(i) for i in range(len(order)))
    return tuple(shape[i] for i in order), None if back == tuple(range(len(back))) else back


@lru_cache(maxsize=4096)
def _steps(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, with 0 where an axis has one place and its stride says nothing."""
    return tuple(0 if n == 1 else step for n, step in zip(shape, strides, strict=True))


def is_row(x: Array) -> bool:
    """Whether x is float32 without gaps, in any order of its axes."""
    return x.dtype == np.float32 and _plan(x.shape, x.strides) is not None


def like(x: Array) -> Array:
    """An uninitialised array of x's shape and memory order; x has no gaps."""
    plan = _plan(x.shape, x.strides)
    assert plan is not None
    y = aligned(plan[0])
    return y if plan[1] is None else y.transpose(plan[1])


def alike(x: Array, y: Array) -> bool:
    """Whether equal places of two arrays of one shape lie equally far from their beginnings."""
    return x.strides == y.strides or _steps(x.shape, x.strides) == _steps(y.shape, y.strides)


def in_order_of(x: Array, y: Array) -> Array:
    """y in the memory order of x: itself, or a copy."""
    if y.dtype == np.float32 and alike(x, y):
        return y
    moved = like(x)
    moved[...] = y
    return moved
