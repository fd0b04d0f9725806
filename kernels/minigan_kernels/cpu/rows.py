"""Rows of numbers along one axis, whatever the memory order: softmax, cross entropy, pixel norm.

In memory an array without gaps is (outer, length, inner) around the axis. If it is the innermost
one, its rows lie there as they are. Otherwise `inner` rows lie beside each other, number by number;
a kernel then turns a few of them around into a buffer, works there, and turns the results back:

    offset, first, count = rows_of_task(task, ...)
    p = bring(x + 4 * offset, count, length, inner, buffer)
    ...                                                       # rows p + 4 i length
    deliver(buffer, y + 4 * offset, count, length, inner)

so each kernel is written for rows only.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.flat import CHUNK, dense_order, least, put, take
from minigan_kernels.cpu.parallel import Kernel, arg, part, run
from minigan_kernels.cpu.scratch import scratch
from minigan_kernels.cpu.simd import (
    LANES,
    first_lanes,
    largest,
    load_f64,
    spread,
    store_f64,
    total,
    where,
    widen,
)
from minigan_kernels.cpu.threads import threads
from minigan_kernels.cpu.turn import turn
from minigan_kernels.cpu.vectormath import decay

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

GROUP = 64  # vectors that are added up in float32
NEAR, MOST_ROWS = 4096, 256  # numbers, and rows, that a kernel takes at a time
_SINGLE = np.dtype(np.float32)


class Rows(NamedTuple):
    """The rows of an array along one axis, `each` of them a task."""

    outer: int
    length: int
    inner: int
    each: int
    tasks: int
    in_order: bool  # whether rows follow each other like the other axes


@lru_cache(maxsize=4096)
def rows_of(shape: Shape, strides: Shape, axis: int) -> Rows | None:
    """None if the array (of float32) has gaps."""
    order = dense_order(shape, strides)
    if order is None:
        return None
    place, length = order.index(axis), shape[axis]
    outer, inner = (prod(shape[i] for i in part) for part in (order[:place], order[place + 1 :]))
    each = max(1, CHUNK // length)
    if inner > 1:
        each = min(inner, max(each // LANES * LANES, LANES))
    tasks = -(-outer // each) if inner == 1 else outer * -(-inner // each)
    others = [i for i in order if i != axis and shape[i] > 1]
    return Rows(outer, length, inner, each, tasks, others == sorted(others))


def rows_and_plan(x: Array, axis: int) -> tuple[Array, Rows]:
    """x, or a copy without gaps, and its rows."""
    plan = rows_of(x.shape, x.strides, axis)
    if plan is None:
        x = np.ascontiguousarray(x)
        plan = rows_of(x.shape, x.strides, axis)
    assert plan is not None
    return x, plan


def takes(x: Array) -> bool:
    """Whether the kernels can work on x: all else is left to plain NumPy."""
    return x.dtype == _SINGLE and x.size > 0


def run_rows(kernel: Kernel, rows: Rows, buffers: int, *args: Any) -> None:
    """Run a kernel whose arguments begin with the memory for `buffers` tasks' rows and the plan."""
    sizes = rows.outer, rows.length, rows.inner, rows.each
    if rows.inner == 1:
        run(kernel, rows.tasks, 0, *sizes, *args)
        return
    with scratch() as space:
        work = space.array((threads(), buffers, rows.each * rows.length))
        run(kernel, rows.tasks, work, *sizes, *args)


# Inside of kernels -------------------------------------------------------------------------------


@part
def rows_of_task(args: int, task: int) -> Any:
    """(numbers before its first row, number of its first row, count)."""
    outer, length, inner, each = arg(args, 1), arg(args, 2), arg(args, 3), arg(args, 4)
    if inner == 1:
        first = task * each
        return first * length, first, least(each, outer - first)
    across = (inner + each - 1) // each
    begin, o = task % across * each, task // across
    return o * length * inner + begin, o * inner + begin, least(each, inner - begin)


@part
def buffer_of(args: int, thread: int, buffers: int, which: int) -> Any:
    """Memory of this thread for a task's rows."""
    return arg(args, 0) + 4 * (thread * buffers + which) * arg(args, 4) * arg(args, 2)


@part
def bring(p: int, count: int, length: int, inner: int, buffer: int) -> Any:
    """The address of `count` rows of the array at p, one after the other."""
    if inner == 1:
        return p
    turn(p, 4 * inner, count, length, buffer, 4 * length)
    return buffer


@part
def deliver(buffer: int, p: int, count: int, length: int, inner: int) -> None:
    """Write rows from the buffer to the array at p, if they are not there already."""
    if inner > 1:
        turn(buffer, 4 * length, length, count, p, 4 * inner)


@part
def top_of(p: int, n: int) -> Any:
    """The largest of n numbers, NaN left out; 0 if that is -infinity."""
    low = spread(np.float32(-np.inf))
    top = low
    for i in range(0, n, LANES):
        t = take(p + 4 * i, n - i)
        if n - i < LANES:
            t = where(first_lanes(n - i), t, low)
        top = where(t > top, t, top)
    found = largest(top)
    return np.float32(0) if found == np.float32(-np.inf) else found


@part
def powers(p: int, to: int, n: int, top: Any) -> Any:
    """Sum of e^(x - top), which are kept at `to` unless that is 0."""
    zero, shift = spread(np.float32(0)), spread(top)
    group, all_groups = zero, widen(zero)
    for i in range(0, n, LANES):
        e = decay(take(p + 4 * i, n - i) - shift)  # no x is above the top
        if to:
            put(to + 4 * i, e, n - i)
        if n - i < LANES:
            e = where(first_lanes(n - i), e, zero)
        group = group + e
        if i // LANES % GROUP == GROUP - 1:
            all_groups, group = all_groups + widen(group), zero
    if n < GROUP * LANES:
        return np.float64(total(group))
    return total(all_groups + widen(group))


@part
def together(length: int) -> Any:
    """How many rows a kernel takes at a time in each of its steps: they stay in the first cache.

    Row by row every step would wait for the one before: the maximum, the powers, their sum.
    """
    return least(MOST_ROWS, 1 if length > NEAR else NEAR // length)


@part
def measure(source: int, target: int, count: int, length: int, found: int) -> None:
    """Top and sum of powers of some rows, as pairs of float64 at `found`."""
    for r in range(count):
        store_f64(found + 16 * r, np.float64(top_of(source + 4 * r * length, length)))
    for r in range(count):
        p, top = source + 4 * r * length, np.float32(load_f64(found + 16 * r))
        to = target + 4 * r * length if target else 0
        store_f64(found + 16 * r + 8, powers(p, to, length, top))


@part
def scale_row(p: int, n: int, factor: Any) -> None:
    """Multiply n numbers at p by a float32."""
    by = spread(factor)
    for i in range(0, n, LANES):
        put(p + 4 * i, take(p + 4 * i, n - i) * by, n - i)


@part
def dot(a: int, b: int, n: int) -> Any:
    """Sum of a b, of float32."""
    zero = spread(np.float32(0))
    group, all_groups = zero, widen(zero)
    for i in range(0, n, LANES):
        group = group + take(a + 4 * i, n - i) * take(b + 4 * i, n - i)
        if i // LANES % GROUP == GROUP - 1:
            all_groups, group = all_groups + widen(group), zero
    return total(all_groups + widen(group))


@part
def sum_of(p: int, n: int) -> Any:
    """Sum of n numbers."""
    zero = spread(np.float32(0))
    group, all_groups = zero, widen(zero)
    for i in range(0, n, LANES):
        group = group + take(p + 4 * i, n - i)
        if i // LANES % GROUP == GROUP - 1:
            all_groups, group = all_groups + widen(group), zero
    return total(all_groups + widen(group))


@part
def clear(p: int, n: int) -> None:
    """Write n zeros."""
    for i in range(0, n, LANES):
        put(p + 4 * i, spread(np.float32(0)), n - i)


@part
def inverse(total: float) -> Any:
    """1 / total as float32; 1 where all powers are 0, so that the row stays 0."""
    return np.float32(1) if total == 0 else np.float32(1 / total)
