"""Sums of losses, and their gradients, in one pass each.

The losses themselves are never stored. Sums have a fixed order: float32 within groups of vectors,
then float64, and the tasks' sums in turn. Small arrays and float64: `reference.loss`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import vectormath
from minigan_kernels.cpu.flat import (
    CHUNK,
    SMALL,
    alike,
    chunks,
    in_order_of,
    is_row,
    least,
    like,
    put,
    take,
)
from minigan_kernels.cpu.parallel import arg, kernel, real, run
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
from minigan_kernels.reference import loss as reference

Array = npt.NDArray[Any]

GROUP = 64  # vectors that are added up in float32
MSE, L1, BCE, HINGE, SOFTPLUS = range(5)
KINDS = {"mse": MSE, "l1": L1, "bce": BCE, "hinge": HINGE, "softplus": SOFTPLUS}

_softplus, _sigmoid = vectormath.softplus, vectormath.sigmoid
_absolute, _negative = vectormath.absolute, vectormath.negative


def loss_sum(x: Array, target: Array | None, kind: str, sign: float) -> float:
    """Sum of the losses of all elements. See `reference.loss_sum`."""
    if x.size < SMALL or not is_row(x):
        return reference.loss_sum(x, target, kind, sign)
    y = 0 if target is None else target if alike(x, target) else in_order_of(x, target)
    with scratch() as space:
        sums = space.array((chunks(x.size),), np.float64)
        run(_loss, chunks(x.size), x, y, sums, x.size, KINDS[kind], float(sign))
        return float(sums.sum())


def loss_gradient(x: Array, target: Array | None, kind: str, sign: float, factor: float) -> Array:
    """factor times the derivative of each loss by x. See `reference.loss_gradient`."""
    if x.size < SMALL or not is_row(x):
        return reference.loss_gradient(x, target, kind, sign, factor)
    y = 0 if target is None else target if alike(x, target) else in_order_of(x, target)
    dx = like(x)
    run(_gradient, chunks(x.size), x, y, dx, x.size, KINDS[kind], float(sign), float(factor))
    return dx


@kernel
def _loss(args: int, task: int, thread: int) -> None:
    x, target, sums, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    kind, sign, zero = arg(args, 4), spread(np.float32(real(args, 5))), spread(np.float32(0))
    group, all_groups = zero, widen(zero)
    for i in range(task * CHUNK, least(n, task * CHUNK + CHUNK), LANES):
        t = take(x + 4 * i, n - i)
        y = take(target + 4 * i, n - i) if target else zero
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
        if n - i < LANES:  # lanes beyond the end count nothing
            loss = where(first_lanes(n - i), loss, zero)
        group = group + loss
        if i // LANES % GROUP == GROUP - 1:
            all_groups, group = all_groups + widen(group), zero
    store_f64(sums + 8 * task, total(all_groups + widen(group)))


@kernel
def _gradient(args: int, task: int, thread: int) -> None:
    x, target, dx, n = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)
    kind, sign, zero = arg(args, 4), spread(np.float32(real(args, 5))), spread(np.float32(0))
    factor, one = spread(np.float32(real(args, 6))), spread(np.float32(1))
    for i in range(task * CHUNK, least(n, task * CHUNK + CHUNK), LANES):
        t = take(x + 4 * i, n - i)
        y = take(target + 4 * i, n - i) if target else zero
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
        put(dx + 4 * i, factor * slope, n - i)
