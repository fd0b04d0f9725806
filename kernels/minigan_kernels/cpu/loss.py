"""Sums of losses, and their gradients, in one pass each.

The losses themselves are never stored. Sums have a fixed order: float32 within groups of vectors,
then float64, and the tasks' sums in turn. Input and target may lie in different memory orders: see
`turn`. float64: `reference.loss`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import vectormath
from minigan_kernels.cpu.flat import in_order_of, is_row, like, put, take
from minigan_kernels.cpu.parallel import Kernel, arg, kernel, part, real, run
from minigan_kernels.cpu.scratch import scratch
from minigan_kernels.cpu.simd import (
    LANES,
    first_lanes,
    fma,
    spread,
    store_f64,
    total,
    where,
    widen,
)
from minigan_kernels.cpu.threads import threads
from minigan_kernels.cpu.turn import Tiles, tile, tiles_of, turn
from minigan_kernels.reference import loss as reference

Array = npt.NDArray[Any]
Target = npt.NDArray[Any] | float | None

_SINGLE = np.dtype(np.float32)
GROUP = 64  # vectors that are added up in float32
MSE, L1, BCE, HINGE, SOFTPLUS = range(5)
KINDS = {"mse": MSE, "l1": L1, "bce": BCE, "hinge": HINGE, "softplus": SOFTPLUS}

_softplus, _sigmoid = vectormath.softplus, vectormath.sigmoid
_absolute, _negative = vectormath.absolute, vectormath.negative


def loss_sum(x: Array, target: Target, kind: str, sign: float) -> float:
    """Sum of the losses of all elements. See `reference.loss_sum`."""
    if x.dtype != _SINGLE or x.size == 0:
        return reference.loss_sum(x, target, kind, sign)
    x, y, tiles = _cut(x, target)
    sums = np.empty(tiles.tasks)
    _run(_loss, x, y, sums, tiles, target, kind, sign, 0.0)
    return sums.item() if tiles.tasks == 1 else float(sums.sum())


def loss_gradient(x: Array, target: Target, kind: str, sign: float, factor: float) -> Array:
    """factor times the derivative of each loss by x. See `reference.loss_gradient`."""
    if x.dtype != _SINGLE or x.size == 0:
        return reference.loss_gradient(x, target, kind, sign, factor)
    x, y, tiles = _cut(x, target)
    dx = like(x)
    _run(_gradient, x, y, dx, tiles, target, kind, sign, factor)
    return dx


def _cut(x: Array, target: Target) -> tuple[Array, Array | None, Tiles]:
    """Both without gaps, and the tiles in which a kernel goes through them."""
    y = target if isinstance(target, np.ndarray) else None
    tiles = tiles_of(x.shape, x.strides, None if y is None else y.strides)
    if tiles is None or (y is not None and y.dtype != _SINGLE):
        x = x if is_row(x) else np.ascontiguousarray(x)
        y = None if y is None else in_order_of(x, y)
        tiles = tiles_of(x.shape, x.strides, None)
    assert tiles is not None
    return x, y, tiles


def _run(
    kernel: Kernel,
    x: Array,
    y: Array | None,
    out: Array,
    tiles: Tiles,
    target: Target,
    kind: str,
    sign: float,
    factor: float,
) -> None:
    number = 0.0 if target is None or y is not None else float(target)
    arguments = KINDS[kind], float(sign), number, float(factor), tiles.cells
    if not tiles.turned:
        run(kernel, tiles.tasks, x, y, out, 0, *arguments)
        return
    with scratch() as space:
        buffers = space.array((threads(), tiles.numbers))
        run(kernel, tiles.tasks, x, y, out, buffers, *arguments)


@part
def _runs(args, task, thread):  # type: ignore[no-untyped-def]
    """Where a tile's numbers are: (first, y, runs, their length, step from run to run).

    `first` counts numbers of x; y is the address of the target's, which follow each other where a
    tile was turned around.
    """
    target, cells = arg(args, 1), arg(args, 8)
    turned, b, c = arg(cells, 0), arg(cells, 1), arg(cells, 2)
    b_tile, c_tile = arg(cells, 3), arg(cells, 4)
    first, other, rows, columns = tile(task, b, c, b_tile, c_tile)
    y = target + 4 * first if target else 0
    if turned:
        y = arg(args, 3) + 4 * b_tile * c_tile * thread
        turn(target + 4 * other, 4 * b, rows, columns, y, 4 * columns)
    if columns == c:
        return first, y, 1, rows * columns, 0
    return first, y, rows, columns, c


@kernel
def _loss(args: int, task: int, thread: int) -> None:
    kind, zero = arg(args, 4), spread(np.float32(0))
    sign, number = spread(np.float32(real(args, 5))), spread(np.float32(real(args, 6)))
    first, target, runs, length, step = _runs(args, task, thread)
    x, sums = arg(args, 0) + 4 * first, arg(args, 2)
    all_groups = widen(zero)
    for r in range(runs):
        group = zero
        p, q = x + 4 * r * step, target + 4 * r * length
        for i in range(0, length, LANES):
            t = take(p + 4 * i, length - i)
            y = take(q + 4 * i, length - i) if target else number
            d = t - y
            if kind == MSE:
                loss = d * d
            elif kind == L1:
                loss = _absolute(d)
            elif kind == BCE:
                loss = fma(_negative(t), y, _softplus(t))
            elif kind == HINGE:
                margin = spread(np.float32(1)) - sign * t
                loss = where(margin < zero, zero, margin)
            else:
                loss = _softplus(_negative(sign * t))
            if length - i < LANES:  # lanes beyond the end count nothing
                loss = where(first_lanes(length - i), loss, zero)
            group = group + loss
            if i // LANES % GROUP == GROUP - 1:
                all_groups, group = all_groups + widen(group), zero
        all_groups = all_groups + widen(group)
    store_f64(sums + 8 * task, total(all_groups))


@kernel
def _gradient(args: int, task: int, thread: int) -> None:
    kind, zero = arg(args, 4), spread(np.float32(0))
    sign, number = spread(np.float32(real(args, 5))), spread(np.float32(real(args, 6)))
    factor, one = spread(np.float32(real(args, 7))), spread(np.float32(1))
    first, target, runs, length, step = _runs(args, task, thread)
    x, dx = arg(args, 0) + 4 * first, arg(args, 2) + 4 * first
    for r in range(runs):
        p, q, to = x + 4 * r * step, target + 4 * r * length, dx + 4 * r * step
        for i in range(0, length, LANES):
            t = take(p + 4 * i, length - i)
            y = take(q + 4 * i, length - i) if target else number
            d = t - y
            if kind == MSE:
                slope = d + d
            elif kind == L1:
                slope = where(d > zero, one, where(d < zero, _negative(one), d))
            elif kind == BCE:
                slope = _sigmoid(t) - y
            elif kind == HINGE:
                slope = where(one - sign * t <= zero, zero, _negative(sign))
            else:
                slope = _negative(sign) * _sigmoid(_negative(sign * t))
            put(to + 4 * i, factor * slope, length - i)
