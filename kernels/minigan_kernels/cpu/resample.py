"""Linear maps along one axis by a table: resizing, average pooling, reflected borders."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.layout import dense, memory_order, restore

Array = npt.NDArray[Any]


def axis_map(x: Array, axis: int, index: Array, weight: Array) -> Array:
    """y[.., i, ..] = sum over k of weight[i, k] x[.., index[i, k], ..]; index -1: no tap.

    Runs over (outer, length, inner) in memory order. Channels-last, `inner` holds the channels, so
    the innermost loop is contiguous.
    """
    order = memory_order(x)
    source = dense(x, order)
    axis = order.index(axis)
    before, after = source.shape[:axis], source.shape[axis + 1 :]
    y = np.empty((*before, len(index), *after), x.dtype)
    _axis_map(
        source.reshape(math.prod(before), source.shape[axis], math.prod(after)),
        np.ascontiguousarray(index, np.int32),
        np.ascontiguousarray(weight, x.dtype),
        y.reshape(math.prod(before), len(index), math.prod(after)),
    )
    return restore(y, order)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _axis_map(x: Array, index: Array, weight: Array, y: Array) -> None:
    outer, out, inner = y.shape
    taps = index.shape[1]
    for o in range(outer):
        for i in range(out):
            filled = False
            for k in range(taps):
                j = index[i, k]
                if j < 0:
                    continue
                w = weight[i, k]
                if filled:
                    for c in range(inner):
                        y[o, i, c] += w * x[o, j, c]
                else:
                    for c in range(inner):
                        y[o, i, c] = w * x[o, j, c]
                    filled = True
            if not filled:
                y[o, i, :] = 0
