"""Maxima of windows. (Averages are one-axis maps: see `axis_map`.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from minigan_kernels.reference.pool import pooled_length

Array = npt.NDArray[Any]


def max_pool(
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Largest element of each window and its flat spatial position (int32).

    Works and answers channels-last, so that the innermost loop compares whole rows of channels.
    Runs over three spatial axes, missing ones of length 1.
    """
    options = list(zip(x.shape[2:], kernel_size, stride, padding, dilation, strict=True))
    out = tuple(pooled_length(n, k, s, p, d, ceil_mode) for n, k, s, p, d in options)
    options = [(1, 1, 1, 0, 1)] * (3 - len(options)) + options
    n, c = x.shape[:2]
    source = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = np.empty((n, *out, c), x.dtype)
    index = np.empty(y.shape, np.int32)
    wide = (n, *(1,) * (3 - len(out)), *out, c)
    _max_pool(
        source.reshape(n, *[option[0] for option in options], c),
        np.array(options),
        y.reshape(wide),
        index.reshape(wide),
    )
    return np.moveaxis(y, -1, 1), np.moveaxis(index, -1, 1)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _max_pool(x: Array, options: Array, y: Array, index: Array) -> None:
    (depth, kd, sd, pd, dd), (height, kh, sh, ph, dh), (width, kw, sw, pw, dw) = options
    outer, od, oh, ow, inner = y.shape
    for place in range(outer * od * oh * ow):
        a, oz, oy, ox = (
            place // (od * oh * ow),
            place // (oh * ow) % od,
            place // ow % oh,
            place % ow,
        )
        best, where = y[a, oz, oy, ox], index[a, oz, oy, ox]
        first = True
        for tap in range(kd * kh * kw):
            z = oz * sd - pd + tap // (kh * kw) * dd
            i = oy * sh - ph + tap // kw % kh * dh
            j = ox * sw - pw + tap % kw * dw
            if not (0 <= z < depth and 0 <= i < height and 0 <= j < width):
                continue
            position = (z * height + i) * width + j
            for b in range(inner):
                value = x[a, z, i, j, b]
                # a later NaN does not replace an earlier one: best != best holds only for NaN
                if first or value > best[b] or (value != value and best[b] == best[b]):
                    best[b], where[b] = value, position
            first = False
