"""Sums over axes of large arrays.

In memory order, neighbouring axes that are summed and neighbouring axes that are kept join into
one each, and what remains is one of two loops: sums along rows of memory, or sums of rows. A task
adds `GROUP` vectors in float32 at a time and those sums in float64; NumPy adds up what the tasks
have found. The order is fixed by the shape alone.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.flat import CHUNK, dense_order, least, take
from minigan_kernels.cpu.parallel import arg, kernel, run
from minigan_kernels.cpu.scratch import scratch
from minigan_kernels.cpu.simd import LANES, spread, store_f64, store_f64s, total, widen

Array = npt.NDArray[Any]

LARGE = 1 << 15  # numbers from which this beats NumPy
GROUP = 64  # vectors that are added up in float32


def axis_sum(x: Array, axes: tuple[int, ...]) -> Array:
    """Sum of x over `axes`, without them; a number for all of them."""
    order = dense_order(x.shape, x.strides) if x.dtype == np.float32 and x.size >= LARGE else None
    if order is None:
        return np.asarray(x.sum(axis=axes, dtype=x.dtype))
    kept = [i for i in order if i not in axes]
    in_order = x.transpose(order)
    sums = _sum(in_order, [(x.shape[i], i in axes) for i in order if x.shape[i] > 1])
    y = sums.astype(np.float32).reshape([x.shape[i] for i in kept])
    return y.transpose(np.argsort(kept))


def _sum(x: Array, axes: list[tuple[int, bool]]) -> Array:
    """Sums, float64, of x with these (length, whether summed) in memory order."""
    groups = [
        (math.prod(n for n, _ in members), gone)
        for gone, members in ((k, list(m)) for k, m in itertools.groupby(axes, lambda a: a[1]))
    ]
    if not groups or not any(gone for _, gone in groups):
        return x.astype(np.float64)
    width, gone = groups[-1]
    if gone:  # along rows of memory, then NumPy over what else goes
        lengths = [n for n, _ in groups[:-1]]
        sums = _row_sums(x, math.prod(lengths), width).reshape(lengths)
        return sums.sum(axis=tuple(i for i, (_, gone) in enumerate(groups[:-1]) if gone))
    lengths, count = [n for n, _ in groups[:-2]], groups[-2][0]
    sums = _column_sums(x, math.prod(lengths), count, width).reshape(*lengths, width)
    return sums.sum(axis=tuple(i for i, (_, gone) in enumerate(groups[:-2]) if gone))


def _row_sums(x: Array, rows: int, width: int) -> Array:
    """(rows,) sums of rows of `width` numbers; long rows are cut, short ones go together."""
    pieces, each = -(-width // CHUNK), max(1, CHUNK // width)
    with scratch() as space:
        sums = space.array((rows, pieces), np.float64)
        run(_add_along, -(-rows * pieces // each), x, sums, rows * pieces, width, pieces, each)
        return np.asarray(sums.sum(axis=1))


def _column_sums(x: Array, outer: int, count: int, width: int) -> Array:
    """(outer, width): x (outer, count, width) summed over the middle."""
    each = min(count, max(1, CHUNK // width))
    pieces = -(-count // each)
    whole = -(-width // LANES) * LANES
    with scratch() as space:
        sums = space.array((outer, pieces, whole), np.float64)
        run(_add_rows, outer * pieces, x, sums, count, width, pieces, each)
        return np.asarray(sums[:, :, :width].sum(axis=1))


@kernel
def _add_along(args: int, task: int, thread: int) -> None:
    x, sums, all_pieces = arg(args, 0), arg(args, 1), arg(args, 2)
    width, pieces, each = arg(args, 3), arg(args, 4), arg(args, 5)
    zero = spread(np.float32(0))
    for piece in range(task * each, least(all_pieces, (task + 1) * each)):
        start = piece % pieces * CHUNK
        p, count = x + 4 * (piece // pieces * width + start), least(CHUNK, width - start)
        group, all_groups = zero, widen(zero)
        for i in range(0, count, LANES):
            group = group + take(p + 4 * i, count - i)
            if i // LANES % GROUP == GROUP - 1:
                all_groups, group = all_groups + widen(group), zero
        store_f64(sums + 8 * piece, total(all_groups + widen(group)))


@kernel
def _add_rows(args: int, task: int, thread: int) -> None:
    x, sums, count, width = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    pieces, each = arg(args, 4), arg(args, 5)
    zero = spread(np.float32(0))
    first = task % pieces * each
    p = x + 4 * width * (task // pieces * count + first)
    to = sums + 8 * task * ((width + LANES - 1) // LANES * LANES)
    for i in range(0, width, LANES):
        group, all_groups = zero, widen(zero)
        for r in range(least(each, count - first)):
            group = group + take(p + 4 * (r * width + i), width - i)
            if r % GROUP == GROUP - 1:
                all_groups, group = all_groups + widen(group), zero
        store_f64s(to + 8 * i, all_groups + widen(group))
