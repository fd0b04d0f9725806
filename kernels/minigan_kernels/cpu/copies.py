"""Copies of lines and parts of lines: borders, nearest neighbours, concatenation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.flat import dense_order, is_row, least, put
from minigan_kernels.cpu.parallel import HEADER, arg, kernel, part, run
from minigan_kernels.cpu.scratch import aligned
from minigan_kernels.cpu.simd import (
    BYTES,
    LANES,
    load,
    load_f32,
    load_i64,
    load_part,
    spread,
    store,
    store_f32,
    store_part,
)

Array = npt.NDArray[Any]

Table = tuple[Array, Array]  # index (int64 or int32) and weight (float64), both (out, taps)

LARGE = 1 << 15  # numbers of a result from which threads beat NumPy's one
BLOCK = 1 << 13  # numbers that a task copies, about


@part
def copy(x: int, y: int, count: int) -> None:
    """y[:count] = x[:count]."""
    done = 0
    while count - done >= 4 * LANES:
        p, to = x + 4 * done, y + 4 * done
        a, b = load(p), load(p + BYTES)
        c, d = load(p + 2 * BYTES), load(p + 3 * BYTES)
        store(to, a)
        store(to + BYTES, b)
        store(to + 2 * BYTES, c)
        store(to + 3 * BYTES, d)
        done += 4 * LANES
    while count - done >= LANES:
        store(y + 4 * done, load(x + 4 * done))
        done += LANES
    if done < count:
        if count >= LANES:  # once more what is there already, rather than a part of a vector
            store(y + 4 * count - BYTES, load(x + 4 * count - BYTES))
        elif count == 1:
            store_f32(y, load_f32(x))
        else:
            store_part(y, load_part(x, count), count)


@part
def clear(y: int, count: int) -> None:
    """y[:count] = 0."""
    if count == 1:
        store_f32(y, np.float32(0))
    else:
        for i in range(0, count, LANES):
            put(y + 4 * i, spread(np.float32(0)), count - i)


def choose_lines(x: Array, rows: Table, columns: Table | None) -> Array | None:
    """The map of x (planes, H, W, inner) by two tables, if each only chooses lines or columns.

    None also where the pieces to copy are so short that the usual way is faster.
    """
    planes, height, width, inner = x.shape
    chosen = _chosen(*(a.tobytes() for a in rows), rows[0].shape[1], rows[0].dtype.str)
    if chosen is None:
        return None
    if columns is None:
        wide, runs = width, np.array([[0, 0, width]])
    else:
        of = _chosen(*(a.tobytes() for a in columns), columns[0].shape[1], columns[0].dtype.str)
        if of is None:
            return None
        wide, runs = len(columns[0]), of[1]
    if wide * inner < len(runs) * LANES // 2:
        return None
    height_out = len(rows[0])
    y = aligned((planes, height_out, wide, inner))
    lines, each = planes * height_out, max(1, BLOCK // max(wide * inner, 1))
    sizes = (lines, height, width, inner, height_out, wide)
    run(_choose_lines, -(-lines // each), x, y, *sizes, chosen[0], runs, len(runs), each)
    return y


@lru_cache(maxsize=256)
def _chosen(index: bytes, weight: bytes, taps: int, kind: str) -> tuple[Array, Array] | None:
    """What each place is a copy of (-1: of nothing), if that is all; also as `_runs`."""
    source = np.frombuffer(index, kind).astype(np.int64)
    if taps != 1 or not np.all((np.frombuffer(weight) == 1) | (source < 0)):
        return None
    return source, _runs(source)


def _runs(source: Array) -> Array:
    """Places that follow each other: (first of the result, first of x or -1, how many) of each."""
    before, after = source[:-1], source[1:]
    goes_on = np.where(before < 0, after < 0, after == before + 1)
    start = np.concatenate([[0], np.flatnonzero(~goes_on) + 1])[: len(source)]
    return np.stack([start, source[start], np.diff(start, append=len(source))], axis=1)


@kernel
def _choose_lines(args: int, task: int, thread: int) -> None:
    x, y, height, inner = arg(args, 0), arg(args, 1), arg(args, 3), arg(args, 5)
    rows_out, rows, runs, each = arg(args, 6), arg(args, 8), arg(args, 9), arg(args, 11)
    length, length_out = 4 * arg(args, 4) * inner, 4 * arg(args, 7) * inner  # bytes of a line
    plane, place_of_row = task * each // rows_out, task * each % rows_out
    for line in range(task * each, least(arg(args, 2), (task + 1) * each)):
        to, row = y + line * length_out, load_i64(rows + 8 * place_of_row)
        source = x + (plane * height + row) * length
        place_of_row += 1
        if place_of_row == rows_out:
            plane, place_of_row = plane + 1, 0
        if row < 0:
            clear(to, length_out // 4)
            continue
        for r in range(arg(args, 10)):
            piece = runs + 24 * r
            target, place = load_i64(piece), load_i64(piece + 8)
            count = load_i64(piece + 16) * inner
            if place < 0:
                clear(to + 4 * target * inner, count)
            else:
                copy(source + 4 * place * inner, to + 4 * target * inner, count)


def concat(xs: Sequence[Array], axis: int) -> Array:
    """Arrays one after another along an axis, in the memory order that they share."""
    size = sum(x.size for x in xs)
    order = dense_order(xs[0].shape, xs[0].strides)
    if size < LARGE or order is None or not all(_fits(x, order) for x in xs):
        return np.concatenate(xs, axis=axis)
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    y = aligned([shape[i] for i in order])
    lines = math.prod(y.shape[: order.index(axis)])  # each holds a piece of every array
    pieces = np.array([(id(x), x.size // lines) for x in xs], np.int64)
    run(_concat, -(-size // BLOCK), y, size, size // lines, pieces, len(xs), HEADER)
    return y.transpose([order.index(i) for i in range(len(order))])


def _fits(x: Array, order: tuple[int, ...]) -> bool:
    return x.size > 0 and is_row(x) and dense_order(x.shape, x.strides) == order


@kernel
def _concat(args: int, task: int, thread: int) -> None:
    y, length, pieces, many = arg(args, 0), arg(args, 2), arg(args, 3), arg(args, 4)
    at, end = task * BLOCK, least(arg(args, 1), task * BLOCK + BLOCK)
    line, within, k = at // length, at % length, 0
    while within >= load_i64(pieces + 16 * k + 8):
        within -= load_i64(pieces + 16 * k + 8)
        k += 1
    while at < end:  # the next number is number `within` of this line's piece of array k
        whole = load_i64(pieces + 16 * k + 8)
        count = least(whole - within, end - at)
        x = load_i64(load_i64(pieces + 16 * k) + arg(args, 5))
        copy(x + 4 * (line * whole + within), y + 4 * at, count)
        at, within, k = at + count, 0, k + 1
        if k == many:
            line, k = line + 1, 0
