"""Maxima of windows on the GPU: bound by memory, neighbouring windows meet in the caches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minigan_kernels.cuda.device import Array, Device, integers, type_name
from minigan_kernels.cuda.places import (
    THREADS,
    as_maps,
    blocks,
    pieces,
    place_by_place,
    vector_size,
)
from minigan_kernels.cuda.sources import Source
from minigan_kernels.reference.pool import pooled_length

KERNELS = Source(
    "pool.cu", tuple(f"max_pool<{i}>" for i in ("float, 1", "float, 4", "double, 1", "double, 2"))
)
SOURCES = (KERNELS,)


def max_pool(
    device: Device,
    x: Array,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Largest element of each window and its flat spatial position (int32).

    Runs over three spatial axes, missing ones of length 1.
    """
    options = list(zip(x.shape[2:], kernel_size, stride, padding, dilation, strict=True))
    out = [pooled_length(n, k, s, p, d, ceil_mode) for n, k, s, p, d in options]
    axes = [(1, 1, 1, 1, 0, 1)] * (3 - len(out))
    axes += [(n, o, k, s, p, d) for (n, k, s, p, d), o in zip(options, out, strict=True)]
    (n, c), places = x.shape[:2], math.prod(out)
    flat, last = place_by_place(device, x)
    outer, positions, inner = flat.shape
    y = device.empty((outer, places, inner), x.dtype)
    index = device.empty(y.shape, np.int32)
    size = vector_size(inner, x.itemsize)
    name = f"max_pool<{type_name(x.dtype)}, {size}>"
    for part in pieces(outer, max(places, positions) * inner):
        to = y[part]
        sizes = integers(outer=to.shape[0], inner=inner // size, **_named(axes))
        grid = blocks(to.size // size)
        device.launch(KERNELS, name, grid, (THREADS,), flat[part], to, index[part], sizes)
    return as_maps(y, last, n, c, out), as_maps(index, last, n, c, out)


def _named(axes: Sequence[Sequence[int]]) -> dict[str, int]:
    fields = "length", "out", "kernel", "stride", "padding", "dilation"
    return {
        f"{axis}_{field}": value
        for axis, values in zip("zyx", axes, strict=True)
        for field, value in zip(fields, values, strict=True)
    }
