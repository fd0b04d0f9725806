"""The order of an array's numbers in memory: kernels that go number by number do not care which.

On the device images lie N,H,W,C in memory while their shape says N,C,H,W, as on the CPU. What
matters to a kernel is whether an array has no gaps, and whether two arrays have the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from minigan_kernels.cuda.device import Array, Device


@lru_cache(maxsize=4096)
def _order(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> tuple[int, ...] | None:
    if 0 in shape:
        return tuple(range(len(shape)))  # whatever its strides are: no numbers, no gaps
    order = sorted(range(len(shape)), key=lambda i: (-strides[i], i))
    step = item
    for i in reversed(order):
        if shape[i] != 1:
            if strides[i] != step:
                return None
            step *= shape[i]
    return tuple(order)


def order_of(x: Array) -> tuple[int, ...] | None:
    """Axes from the outermost in memory to the innermost; None if there are gaps."""
    return _order(x.shape, x.strides, x.itemsize)


def dense(x: Array) -> Array:
    """x, or a copy of it without gaps."""
    return x if order_of(x) is not None else x.copy()


def like(device: Device, x: Array, dtype: Any = None, shape: Sequence[int] | None = None) -> Array:
    """An uninitialised array of x's memory order (without gaps), and its shape unless given."""
    order = order_of(x)
    assert order is not None
    shape = x.shape if shape is None else shape
    y = device.empty([shape[i] for i in order], dtype or x.dtype)
    return y.transpose(_back(order))


def in_order_of(device: Device, x: Array, y: Array) -> Array:
    """y in the memory order of x (of the same shape, without gaps): itself, or a copy."""
    if same_order(x, y):
        return y
    moved = like(device, x, y.dtype)
    moved[...] = y
    return moved


def same_order(x: Array, y: Array) -> bool:
    """Whether equal places of two arrays of one shape lie equally far from their beginnings."""
    return _order(x.shape, x.strides, x.itemsize) == _order(y.shape, y.strides, y.itemsize)


def to_last(x: Array) -> Array:
    """N,C,*S -> the view N,*S,C."""
    return x.transpose(0, *range(2, x.ndim), 1)


def to_second(y: Array) -> Array:
    """N,*S,C -> the view N,C,*S."""
    return y.transpose(0, y.ndim - 1, *range(1, y.ndim - 1))


def is_channels_last(x: Array) -> bool:
    """Whether the memory of an N,C,*S array is N,*S,C."""
    return bool(to_last(x).flags.c_contiguous)


def channels_last(device: Device, x: Array) -> Array:
    """An N,C,*S array whose memory is N,*S,C: x itself or a copy."""
    if is_channels_last(x):
        return x
    moved = to_last(x)
    y = device.empty(moved.shape, x.dtype)
    y[...] = moved
    return to_second(y)


@lru_cache(maxsize=256)
def _back(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(i) for i in range(len(order)))
