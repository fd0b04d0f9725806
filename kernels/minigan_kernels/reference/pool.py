"""Definitions of pooling: averages and maxima of windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pooled_length(n: int, k: int, s: int, p: int, d: int = 1, ceil_mode: bool = False) -> int:
    """Number of windows of length k along n elements, padded by p on both sides.

    With `ceil_mode` a last window may hang over the end, if it starts inside the input or the
    padding before it.
    """
    span = n + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return span // s + 1
    out = -(-span // s) + 1
    return out - 1 if (out - 1) * s >= n + p else out


def avg_pool(
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """y = sum of a window / number of its elements; zeros of the padding count or do not."""
    spatial = x.shape[2:]
    options = list(zip(spatial, kernel_size, stride, padding, strict=True))
    out = [pooled_length(n, k, s, p, 1, ceil_mode) for n, k, s, p in options]
    y = np.empty((*x.shape[:2], *out), x.dtype)
    for place in np.ndindex(*out):
        window: list[Any] = [...]
        count = 1
        for i, (n, k, s, p) in zip(place, options, strict=True):
            start = i * s - p
            end = min(start + k, n + p)
            inside = slice(max(start, 0), min(end, n))
            window.append(inside)
            count *= end - start if count_include_pad else inside.stop - inside.start
        axes = tuple(range(2, x.ndim))
        y[(..., *place)] = x[tuple(window)].sum(axis=axes, dtype=x.dtype) / count
    return y


def adaptive_avg_pool(x: Array, size: Sequence[int]) -> Array:
    """y_i = mean of x from floor(i n / out) up to ceil((i+1) n / out), along each spatial axis."""
    y = np.empty((*x.shape[:2], *size), x.dtype)
    for place in np.ndindex(*size):
        window: list[Any] = [...]
        window += [
            slice(i * n // out, -(-(i + 1) * n // out))
            for i, n, out in zip(place, x.shape[2:], size, strict=True)
        ]
        y[(..., *place)] = x[tuple(window)].mean(axis=tuple(range(2, x.ndim)))
    return y


def max_pool(
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Largest element of each window, and its flat position in the spatial axes (int32).

    The first of equal elements wins, padding never does; NaN counts as larger than all. Every
    window must hold at least one element of x.
    """
    spatial = x.shape[2:]
    options = list(zip(spatial, kernel_size, stride, padding, dilation, strict=True))
    out = [pooled_length(n, k, s, p, d, ceil_mode) for n, k, s, p, d in options]
    flat = x.reshape(*x.shape[:2], -1)
    y = np.empty((*x.shape[:2], *out), x.dtype)
    index = np.empty(y.shape, np.int32)
    for place in np.ndindex(*out):
        reach = [
            [j for j in range(i * s - p, i * s - p + d * (k - 1) + 1, d) if 0 <= j < n]
            for i, (n, k, s, p, d) in zip(place, options, strict=True)
        ]
        positions = np.array([np.ravel_multi_index(j, spatial) for j in product(*reach)])
        window = flat[:, :, positions]
        y[(..., *place)] = window.max(axis=2)
        index[(..., *place)] = positions[window.argmax(axis=2)]
    return y, index
