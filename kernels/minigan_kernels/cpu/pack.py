"""Bring arrays into the order in which the inner loops want to read them.

`copy` and `zeros` write lines of float32; `transposed` writes the transpose of a matrix, sixteen by
sixteen numbers at a time inside the registers. `channels_last` uses it to turn an N,C,H,W array
around in memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.parallel import arg, kernel, part, run
from minigan_kernels.cpu.scratch import aligned
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    load,
    load_f32,
    load_part,
    spread,
    store,
    store_f32,
    transpose,
)

Array = npt.NDArray[Any]

STRIP = 64  # positions whose channels one task of `channels_last` gathers, 4 cache lines each


@part
def copy(target: int, source: int, count: int) -> int:
    """Copy `count` numbers; zeros may follow them up to a whole vector. Returns where they end."""
    whole = count // LANES
    for i in range(whole):
        store(target + BYTES * i, load(source + BYTES * i))
    if count > whole * LANES:
        last = load_part(source + BYTES * whole, count - whole * LANES)
        store(target + BYTES * whole, last)
    return target + 4 * count


@part
def zeros(target: int, count: int) -> int:
    """Write zeros, up to a whole vector. Returns where `count` of them end."""
    for i in range(-(-count // LANES)):
        store(target + BYTES * i, spread(np.float32(0)))
    return target + 4 * count


@part
def transposed(
    source: int, source_row: int, target: int, target_row: int, rows: int, columns: int
) -> None:
    """target[j, i] = source[i, j]; rows are so many bytes apart. Writes nothing beyond them."""
    high, wide = rows // LANES * LANES, columns // LANES * LANES
    for i in range(0, high, LANES):
        for j in range(0, wide, LANES):
            tile = target + j * target_row + 4 * i
            transpose(source + i * source_row + 4 * j, source_row, tile, target_row)
    for i in range(rows):  # what is left over: columns of the upper part, and the lower part
        for j in range(wide if i < high else 0, columns):
            number = load_f32(source + i * source_row + 4 * j)
            store_f32(target + j * target_row + 4 * i, number)


@kernel
def _channels_last(args: int, task: int, thread: int) -> None:
    """x (N,C,P) -> y (N,P,C); one task per image and strip of positions."""
    x, y, channels, positions = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    strips = -(-positions // STRIP)
    image, strip = task // strips, task % strips
    first = strip * STRIP
    count = min(STRIP, positions - first)
    image *= 4 * channels * positions
    source = x + image + 4 * first
    target = y + image + 4 * first * channels
    transposed(source, 4 * positions, target, 4 * channels, channels, count)


def channels_last(x: Array) -> Array:
    """x (N,C,*S) as a C-contiguous N,*S,C array: x itself seen so, or a copy."""
    n, channels, *spatial = x.shape
    view = x.transpose(0, *range(2, x.ndim), 1)
    if view.flags.c_contiguous:
        return view
    if x.dtype != np.float32 or not x.flags.c_contiguous:
        return np.ascontiguousarray(view)
    y = aligned(view.shape)
    positions = math.prod(spatial)
    run(_channels_last, n * -(-positions // STRIP), x, y, channels, positions)
    return y
