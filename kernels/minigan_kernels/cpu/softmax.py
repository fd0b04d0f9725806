"""Softmax, its logarithm, and cross entropy, in one visit of each row.

    y = e^(x - m) / sum e^(x - m)          m = max x: nothing overflows
    log y = x - m - log sum e^(x - m)
    loss = -sum q log y                    q: 1 - s at the label, and s / C everywhere

A row stays in the cache between the maximum, the sum and the result. float64: `rows_plain`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import rows_plain as plain
from minigan_kernels.cpu.flat import in_order_of, least, like, put, take
from minigan_kernels.cpu.parallel import arg, kernel, part, real
from minigan_kernels.cpu.rows import (
    MOST_ROWS,
    bring,
    buffer_of,
    clear,
    deliver,
    dot,
    inverse,
    measure,
    rows_and_plan,
    rows_of_task,
    run_rows,
    scale_row,
    sum_of,
    takes,
    together,
)
from minigan_kernels.cpu.scratch import aligned, scratch
from minigan_kernels.cpu.simd import (
    LANES,
    fma,
    load_f32,
    load_f64,
    load_i64,
    spread,
    store_f32,
)
from minigan_kernels.cpu.threads import threads
from minigan_kernels.cpu.vectormath import exp, negative

Array = npt.NDArray[Any]


def softmax(x: Array, dim: int) -> Array:
    """e^x / sum e^x along an axis. See `reference.softmax`."""
    return _forward(x, dim, 0) if takes(x) else plain.softmax(x, dim)


def log_softmax(x: Array, dim: int) -> Array:
    """x - log sum e^x along an axis. See `reference.log_softmax`."""
    return _forward(x, dim, 1) if takes(x) else plain.log_softmax(x, dim)


def softmax_backward(g: Array, y: Array, dim: int) -> Array:
    """y (g - sum g y). See `reference.softmax_backward`."""
    return _backward(g, y, dim, 0) if takes(y) else plain.softmax_backward(g, y, dim)


def log_softmax_backward(g: Array, y: Array, dim: int) -> Array:
    """g - e^y sum g. See `reference.log_softmax_backward`."""
    return _backward(g, y, dim, 1) if takes(y) else plain.log_softmax_backward(g, y, dim)


def cross_entropy(logits: Array, target: Array, ignore_index: int, label_smoothing: float) -> Array:
    """Loss of each position. See `reference.cross_entropy`."""
    if not takes(logits):
        return plain.cross_entropy(logits, target, ignore_index, label_smoothing)
    x, rows = _by_position(logits)
    loss = aligned(target.shape)
    labels = np.ascontiguousarray(target, np.int64)
    with scratch() as space:
        found = space.array((threads(), MOST_ROWS, 2), np.float64)
        run_rows(_entropy, rows, 1, x, labels, loss, ignore_index, label_smoothing, found)
    return loss


def cross_entropy_backward(
    g: Array,
    logits: Array,
    target: Array,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    """g (softmax(logits) - q), 0 where ignored. See `reference.cross_entropy_backward`."""
    if not takes(logits):
        return plain.cross_entropy_backward(g, logits, target, ignore_index, label_smoothing)
    x, rows = _by_position(logits)
    dx, g = like(x), np.ascontiguousarray(g, np.float32)
    labels = np.ascontiguousarray(target, np.int64)
    with scratch() as space:
        found = space.array((threads(), MOST_ROWS, 2), np.float64)
        options = ignore_index, label_smoothing, found
        run_rows(_entropy_gradient, rows, 1, x, labels, g, dx, *options)
    return dx


def _forward(x: Array, dim: int, log: int) -> Array:
    x, rows = rows_and_plan(x, dim)
    y = like(x)
    with scratch() as space:
        found = space.array((threads(), MOST_ROWS, 2), np.float64)
        run_rows(_softmax, rows, 1, x, y, log, found)
    return y


def _backward(g: Array, y: Array, dim: int, log: int) -> Array:
    y, rows = rows_and_plan(y, dim)
    dx = like(y)
    run_rows(_softmax_gradient, rows, 2, in_order_of(y, g), y, dx, log)
    return dx


def _by_position(logits: Array) -> tuple[Array, Any]:
    """Logits whose rows follow each other like their labels (N,*spatial)."""
    x, rows = rows_and_plan(logits, 1)
    return (x, rows) if rows.in_order else rows_and_plan(np.ascontiguousarray(x), 1)


@part
def _less(p: int, to: int, n: int, a: Any, b: Any) -> None:
    for i in range(0, n, LANES):
        put(to + 4 * i, take(p + 4 * i, n - i) - a - b, n - i)


@kernel
def _softmax(args: int, task: int, thread: int) -> None:
    length, inner, x, y, log = arg(args, 2), arg(args, 3), arg(args, 5), arg(args, 6), arg(args, 7)
    offset, _, count = rows_of_task(args, task)
    buffer = buffer_of(args, thread, 1, 0)
    source = bring(x + 4 * offset, count, length, inner, buffer)
    target = y + 4 * offset if inner == 1 else buffer
    found, some = arg(args, 8) + 16 * MOST_ROWS * thread, together(length)
    for begin in range(0, count, some):
        p, q = source + 4 * begin * length, target + 4 * begin * length
        measure(p, 0 if log else q, least(some, count - begin), length, found)
        for r in range(least(some, count - begin)):
            a, b = p + 4 * r * length, q + 4 * r * length
            top, total = load_f64(found + 16 * r), load_f64(found + 16 * r + 8)
            if log:
                _less(a, b, length, spread(np.float32(top)), spread(np.float32(np.log(total))))
            else:
                scale_row(b, length, inverse(total))
    deliver(buffer, y + 4 * offset, count, length, inner)


@kernel
def _softmax_gradient(args: int, task: int, thread: int) -> None:
    length, inner = arg(args, 2), arg(args, 3)
    g, y, dx, log = arg(args, 5), arg(args, 6), arg(args, 7), arg(args, 8)
    offset, _, count = rows_of_task(args, task)
    buffer = buffer_of(args, thread, 2, 0)
    gs = bring(g + 4 * offset, count, length, inner, buffer)
    ys = bring(y + 4 * offset, count, length, inner, buffer_of(args, thread, 2, 1))
    target = dx + 4 * offset if inner == 1 else buffer
    for r in range(count):
        p, q, to = gs + 4 * r * length, ys + 4 * r * length, target + 4 * r * length
        if log:
            less = spread(np.float32(sum_of(p, length)))
            for i in range(0, length, LANES):
                t = exp(take(q + 4 * i, length - i))
                put(to + 4 * i, fma(negative(t), less, take(p + 4 * i, length - i)), length - i)
        else:
            mean = spread(np.float32(dot(p, q, length)))
            for i in range(0, length, LANES):
                t = take(p + 4 * i, length - i) - mean
                put(to + 4 * i, take(q + 4 * i, length - i) * t, length - i)
    deliver(buffer, dx + 4 * offset, count, length, inner)


@kernel
def _entropy(args: int, task: int, thread: int) -> None:
    length, inner = arg(args, 2), arg(args, 3)
    x, labels, loss = arg(args, 5), arg(args, 6), arg(args, 7)
    ignored, smoothing = arg(args, 8), real(args, 9)
    offset, first, count = rows_of_task(args, task)
    source = bring(x + 4 * offset, count, length, inner, buffer_of(args, thread, 1, 0))
    found, some = arg(args, 10) + 16 * MOST_ROWS * thread, together(length)
    for begin in range(0, count, some):
        measure(source + 4 * begin * length, 0, least(some, count - begin), length, found)
        for r in range(begin, least(begin + some, count)):
            p, label, value = source + 4 * r * length, load_i64(labels + 8 * (first + r)), 0.0
            if label != ignored:
                top = load_f64(found + 16 * (r - begin))
                value = np.log(load_f64(found + 16 * (r - begin) + 8)) + top
                value -= (1 - smoothing) * load_f32(p + 4 * label)
                if smoothing != 0:
                    value -= smoothing * (sum_of(p, length) / length)
            store_f32(loss + 4 * (first + r), np.float32(value))


@part
def _less_labels(p, n, label, share, weight, smoothing):  # type: ignore[no-untyped-def]
    """weight (powers share - q) of one row, in place."""
    by, less = spread(weight), spread(np.float32(-smoothing / n))
    at = p + 4 * label
    value = np.float64(load_f32(at)) * share - smoothing / n - (1 - smoothing)
    for i in range(0, n, LANES):
        put(p + 4 * i, by * fma(take(p + 4 * i, n - i), spread(share), less), n - i)
    store_f32(at, np.float32(weight * value))


@kernel
def _entropy_gradient(args: int, task: int, thread: int) -> None:
    length, inner = arg(args, 2), arg(args, 3)
    x, labels, g, dx = arg(args, 5), arg(args, 6), arg(args, 7), arg(args, 8)
    ignored, smoothing = arg(args, 9), real(args, 10)
    offset, first, count = rows_of_task(args, task)
    buffer = buffer_of(args, thread, 1, 0)
    source = bring(x + 4 * offset, count, length, inner, buffer)
    target = dx + 4 * offset if inner == 1 else buffer
    found, some = arg(args, 11) + 16 * MOST_ROWS * thread, together(length)
    for begin in range(0, count, some):
        p, q = source + 4 * begin * length, target + 4 * begin * length
        measure(p, q, least(some, count - begin), length, found)
        for r in range(least(some, count - begin)):
            place, row = first + begin + r, q + 4 * r * length
            label = load_i64(labels + 8 * place)
            if label == ignored:
                clear(row, length)
            else:
                share, weight = inverse(load_f64(found + 16 * r + 8)), load_f32(g + 4 * place)
                _less_labels(row, length, label, share, weight, smoothing)
    deliver(buffer, dx + 4 * offset, count, length, inner)
