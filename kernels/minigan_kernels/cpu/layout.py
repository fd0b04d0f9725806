"""Dense views of arrays in the order in which their axes lie in memory.

An N,C,H,W array may be stored channels-last (a transposed view of an N,H,W,C buffer). Kernels run
over the dense buffer and give a result of the same layout, so nothing is transposed on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def memory_order(x: Array) -> tuple[int, ...]:
    """Axes of x from the outermost in memory to the innermost."""
    if 0 in x.strides:  # a broadcast array has no order of its own
        return tuple(range(x.ndim))
    return tuple(sorted(range(x.ndim), key=lambda i: -abs(x.strides[i])))


def dense(x: Array, order: tuple[int, ...]) -> Array:
    """x with axes in `order`, C-contiguous; copied only if it is not so already."""
    return np.ascontiguousarray(x.transpose(order))


def restore(y: Array, order: tuple[int, ...]) -> Array:
    """Undo the transposition of `dense`."""
    return y.transpose([order.index(i) for i in range(y.ndim)])


def planes(x: Array) -> tuple[Array, bool]:
    """x (N,C,*spatial) as (N, C, *spatial, 1) or, if channels lie last, (N, 1, *spatial, C).

    Both are views unless x is strided oddly, and one loop nest serves both. The second result says
    whether channels lie last.
    """
    if x.flags.c_contiguous:
        return x[..., None], False
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return last[:, None], True


def from_planes(y: Array, channels_last: bool) -> Array:
    """The N,C,*spatial view of an array in the form that `planes` gives."""
    return np.moveaxis(y[:, 0], -1, 1) if channels_last else y[..., 0]
