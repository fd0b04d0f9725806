"""Linear maps along axes by a table: resizing, average pooling, blurs, reflected borders.

`axis_map` mixes rows of `inner` numbers: channels-last these are the channels (or whole lines of
pixels), and sixteen of them are mixed at a time. Along the last axis of channels-first memory
`inner` is 1, and the numbers to mix lie side by side. There sixteen lines are transposed first, so
that they lie side by side, and back afterwards: shuffles within registers, cheaper than picking
single numbers.

Where every place of the result is a copy of one of x, or zero, lines are copied (`copies.py`).

`plane_map` maps the rows and then the columns of images, one line of the result after another. The
intermediate lines stay in the first-level cache, so memory is read and written once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.copies import Table, choose_lines
from minigan_kernels.cpu.flat import SMALL, least, put, take
from minigan_kernels.cpu.layout import dense, memory_order, restore
from minigan_kernels.cpu.parallel import arg, kernel, part, run
from minigan_kernels.cpu.scratch import aligned, scratch
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    fma,
    load,
    load_f64,
    load_i64,
    spread,
    store,
    transpose,
)
from minigan_kernels.cpu.threads import threads

Array = npt.NDArray[Any]

BLOCK = 1 << 14  # numbers of the result that a task makes, about


def axis_map(x: Array, axis: int, index: Array, weight: Array) -> Array:
    """y[.., i, ..] = sum over k of weight[i, k] x[.., index[i, k], ..]; index -1: no tap."""
    order = memory_order(x)
    source = dense(x, order)
    axis = order.index(axis)
    before, after = source.shape[:axis], source.shape[axis + 1 :]
    n, planes, inner = source.shape[axis], math.prod(before), math.prod(after)
    table = index, weight
    if x.dtype != np.float32 or planes * inner * max(n, len(index)) < SMALL:
        y = _rows_of_numpy(source.reshape(planes, n, inner), index, weight)
    elif inner == 1:
        y = _map_lines(source.reshape(planes, 1, n, 1), _SAME, table)
    else:
        y = _map_lines(source.reshape(planes, n, 1, inner), table, None)
    return restore(y.reshape(*before, len(index), *after), order)


def plane_map(
    x: Array, row_index: Array, row_weight: Array, column_index: Array, column_weight: Array
) -> Array:
    """axis_map of axis 2 by the first table, then of axis 3 by the second; x is (N,C,H,W)."""
    rows, columns = (row_index, row_weight), (column_index, column_weight)
    n, c = x.shape[:2]
    out = len(row_index), len(column_index)
    if x.dtype != np.float32 or max(x.size, n * c * math.prod(out)) < SMALL:
        return axis_map(axis_map(x, 2, *rows), 3, *columns)
    if x.strides[1] == 4 and c > 1:
        source = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        return _map_lines(source, rows, columns).transpose(0, 3, 1, 2)
    source = np.ascontiguousarray(x).reshape(n * c, *x.shape[2:], 1)
    return _map_lines(source, rows, columns).reshape(n, c, *out)


_SAME = np.zeros((1, 1), np.int64), np.ones((1, 1))  # of one line: itself


def _rows_of_numpy(x: Array, index: Array, weight: Array) -> Array:
    """The map of x (planes, n, inner) along n: small arrays, float64 and whole numbers."""
    y = np.zeros((x.shape[0], len(index), x.shape[2]), x.dtype)
    for taps, factors in zip(index.T, weight.T, strict=True):
        to = np.flatnonzero(taps >= 0)
        y[:, to] += factors[to].astype(x.dtype)[:, None] * x[:, taps[to]]
    return y


def _map_lines(x: Array, rows: Table, columns: Table | None) -> Array:
    """x (planes, H, W, inner), contiguous: its rows mapped, then its columns unless None."""
    planes, height, width, inner = x.shape
    copied = choose_lines(x, rows, columns)
    if copied is not None:
        return copied
    row_index, row_weight = _for_kernels(rows)
    column_index, column_weight = (0, 0) if columns is None else _for_kernels(columns)
    out = (len(rows[0]), width if columns is None else len(columns[0]))
    y = aligned((planes, *out, inner))
    lines = planes * out[0]
    sizes = (lines, height, width, inner, *out)
    tables = row_index, row_weight, rows[0].shape[1], column_index, column_weight
    taps = 0 if columns is None else columns[0].shape[1]
    with scratch() as space:
        if columns is not None and inner == 1:
            room = LANES * (2 * width + out[1] + 4 * LANES)  # each part in whole tiles
            work = space.array((threads(), room))
            tasks = -(-lines // LANES)
            run(_map_sixteen_lines, tasks, x, y, *sizes, *tables, taps, work, room)
        else:
            room = -(-width * inner // LANES) * LANES
            work = space.array((threads(), room))
            each = max(1, BLOCK // max(out[1] * inner, 1))
            run(_map_line, -(-lines // each), x, y, *sizes, *tables, taps, work, room, each)
    return y


def _for_kernels(table: Table) -> Table:
    return np.ascontiguousarray(table[0], np.int64), np.ascontiguousarray(table[1], np.float64)


@part
def _mix(x: int, step: int, index: int, weight: int, taps: int, y: int, count: int) -> None:
    """y[:count] = sum over taps of weight * the numbers at x + index * step."""
    done = 0
    while count - done >= 4 * LANES:
        m0 = m1 = m2 = m3 = spread(np.float32(0))
        for k in range(taps):
            place = load_i64(index + 8 * k)
            if place >= 0:
                p, w = x + place * step + 4 * done, spread(np.float32(load_f64(weight + 8 * k)))
                m0, m1 = fma(w, load(p), m0), fma(w, load(p + BYTES), m1)
                m2, m3 = fma(w, load(p + 2 * BYTES), m2), fma(w, load(p + 3 * BYTES), m3)
        to = y + 4 * done
        store(to, m0)
        store(to + BYTES, m1)
        store(to + 2 * BYTES, m2)
        store(to + 3 * BYTES, m3)
        done += 4 * LANES
    for i in range(done, count, LANES):
        mixed = spread(np.float32(0))
        for k in range(taps):
            place = load_i64(index + 8 * k)
            if place >= 0:
                v = take(x + place * step + 4 * i, count - i)
                mixed = fma(spread(np.float32(load_f64(weight + 8 * k))), v, mixed)
        put(y + 4 * i, mixed, count - i)


@kernel
def _map_line(args: int, task: int, thread: int) -> None:
    x, y, height, inner = arg(args, 0), arg(args, 1), arg(args, 3), arg(args, 5)
    rows_out, columns_out, taps = arg(args, 6), arg(args, 7), arg(args, 10)
    length = 4 * arg(args, 4) * inner  # of a line of x, in bytes
    work, each = arg(args, 14) + 4 * thread * arg(args, 15), arg(args, 16)
    for line in range(task * each, least(arg(args, 2), (task + 1) * each)):
        image, row = x + line // rows_out * height * length, line % rows_out
        index, weight = arg(args, 8) + 8 * taps * row, arg(args, 9) + 8 * taps * row
        to = y + 4 * line * columns_out * inner
        column_taps = arg(args, 13)
        if column_taps == 0:
            _mix(image, length, index, weight, taps, to, length // 4)
            continue
        mixed = work
        if taps == 1 and load_f64(weight) == 1 and load_i64(index) >= 0:
            mixed = image + load_i64(index) * length
        else:
            _mix(image, length, index, weight, taps, work, length // 4)
        for j in range(columns_out):
            index, weight = arg(args, 11) + 8 * column_taps * j, arg(args, 12) + 8 * column_taps * j
            _mix(mixed, 4 * inner, index, weight, column_taps, to + 4 * j * inner, inner)


@kernel
def _map_sixteen_lines(args: int, task: int, thread: int) -> None:
    x, y, lines, height, width = (
        arg(args, 0),
        arg(args, 1),
        arg(args, 2),
        arg(args, 3),
        arg(args, 4),
    )
    rows_out, columns_out, taps, column_taps = (
        arg(args, 6),
        arg(args, 7),
        arg(args, 10),
        arg(args, 13),
    )
    whole = (width + LANES - 1) // LANES * LANES
    mixed = arg(args, 14) + 4 * thread * arg(args, 15)  # 16 lines
    lanes = mixed + 4 * LANES * whole  # the same transposed: 16 numbers of each column
    result = lanes + 4 * LANES * whole
    first = LANES * task
    count = least(LANES, lines - first)
    for r in range(count):
        image, row = x + 4 * ((first + r) // rows_out * height * width), (first + r) % rows_out
        index, weight = arg(args, 8) + 8 * taps * row, arg(args, 9) + 8 * taps * row
        _mix(image, 4 * width, index, weight, taps, mixed + 4 * whole * r, width)
    for j in range(0, width, LANES):
        transpose(mixed + 4 * j, 4 * whole, lanes + 4 * LANES * j, 4 * LANES)
    for j in range(columns_out):
        index, weight = arg(args, 11) + 8 * column_taps * j, arg(args, 12) + 8 * column_taps * j
        _mix(lanes, 4 * LANES, index, weight, column_taps, result + 4 * LANES * j, LANES)
    tile = mixed  # no longer needed
    for j in range(0, columns_out, LANES):
        to = y + 4 * (first * columns_out + j)
        transpose(result + 4 * LANES * j, 4 * LANES, tile, 4 * LANES)
        for r in range(count):
            put(to + 4 * columns_out * r, load(tile + 4 * LANES * r), columns_out - j)
