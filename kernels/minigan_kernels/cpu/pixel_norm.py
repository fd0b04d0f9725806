"""Pixel norm: every pixel's channels divided by their root mean square, in one visit.

y = r x,   dx = r (g - x r^2 mean(g x)),   r = 1 / sqrt(mean(x^2) + eps)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import rows_plain as plain
from minigan_kernels.cpu.flat import in_order_of, like, put, take
from minigan_kernels.cpu.parallel import arg, kernel, real
from minigan_kernels.cpu.rows import (
    bring,
    buffer_of,
    deliver,
    dot,
    rows_and_plan,
    rows_of_task,
    run_rows,
    takes,
)
from minigan_kernels.cpu.simd import LANES, fma, spread

Array = npt.NDArray[Any]


def pixel_norm(x: Array, eps: float) -> Array:
    """x / sqrt(mean over axis 1 of x^2 + eps). See the reference."""
    if not takes(x):
        return plain.pixel_norm(x, eps)
    x, rows = rows_and_plan(x, 1)
    y = like(x)
    run_rows(_normalise, rows, 1, x, y, eps)
    return y


def pixel_norm_backward(g: Array, x: Array, eps: float) -> Array:
    """The gradient of x. See the reference."""
    if not takes(x):
        return plain.pixel_norm_backward(g, x, eps)
    x, rows = rows_and_plan(x, 1)
    dx = like(x)
    run_rows(_differentiate, rows, 2, in_order_of(x, g), x, dx, eps)
    return dx


@kernel
def _normalise(args: int, task: int, thread: int) -> None:
    length, inner, x, y = arg(args, 2), arg(args, 3), arg(args, 5), arg(args, 6)
    offset, _, count = rows_of_task(args, task)
    buffer = buffer_of(args, thread, 1, 0)
    source = bring(x + 4 * offset, count, length, inner, buffer)
    target = y + 4 * offset if inner == 1 else buffer
    for i in range(count):
        p, q = source + 4 * i * length, target + 4 * i * length
        r = spread(np.float32(1 / np.sqrt(dot(p, p, length) / length + real(args, 7))))
        for j in range(0, length, LANES):
            put(q + 4 * j, take(p + 4 * j, length - j) * r, length - j)
    deliver(buffer, y + 4 * offset, count, length, inner)


@kernel
def _differentiate(args: int, task: int, thread: int) -> None:
    length, inner, g = arg(args, 2), arg(args, 3), arg(args, 5)
    x, dx = arg(args, 6), arg(args, 7)
    offset, _, count = rows_of_task(args, task)
    buffer = buffer_of(args, thread, 2, 0)
    gs = bring(g + 4 * offset, count, length, inner, buffer)
    xs = bring(x + 4 * offset, count, length, inner, buffer_of(args, thread, 2, 1))
    target = dx + 4 * offset if inner == 1 else buffer
    for i in range(count):
        p, q, to = gs + 4 * i * length, xs + 4 * i * length, target + 4 * i * length
        square = 1 / (dot(q, q, length) / length + real(args, 8))
        r, back = np.sqrt(square), dot(p, q, length) / length * square
        by, less = spread(np.float32(r)), spread(np.float32(-r * back))
        for j in range(0, length, LANES):
            t = fma(less, take(q + 4 * j, length - j), by * take(p + 4 * j, length - j))
            put(to + 4 * j, t, length - j)
    deliver(buffer, dx + 4 * offset, count, length, inner)
