"""Update rules of optimizers on the CPU: all parameters of a call in one pass over memory.

The arrays of a call form a table: one row per parameter with its length and the addresses of its
arrays. Every rule is one kernel, and a task is a slice of `CHUNK` numbers of one parameter, so
that many small parameters and a few large ones are shared out alike. An update of a number reads
and writes nothing but the numbers at its place, whatever they belong to: the order of the axes
does not matter as long as gradient and memory have that of the parameter, and where they have not,
copies do. The formulas stand in `reference.optim`, which also serves float64.

Parameters that come as a `Group`, as those of an optimizer do, keep their table for the next step.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.flat import CHUNK, alike, in_order_of, is_row, least, put, take
from minigan_kernels.cpu.parallel import HEADER, Kernel, arg, kernel, part, real, run
from minigan_kernels.cpu.simd import LANES, fma, load_i64, spread, sqrt, where
from minigan_kernels.cpu.vectormath import absolute
from minigan_kernels.group import Group
from minigan_kernels.reference import optim as reference

Array = npt.NDArray[Any]
Arrays = Sequence[Array]


def sgd_step(
    p: Arrays,
    g: Arrays,
    buffer: Arrays | None,
    steps: Sequence[int],
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """See `reference.sgd_step`."""
    if p[0].dtype != np.float32:
        options = (lr, momentum, dampening, nesterov, weight_decay)
        return reference.sgd_step(p, g, buffer, steps, *options)
    # The step is along  straight * g + along * buffer.
    straight, along = (1.0, momentum) if nesterov else (0.0, 1.0)
    started = [min(step, 2) for step in steps]
    for step, which in _equal(started):
        keep, take = (0.0, 1.0) if step == 1 else (momentum, 1 - dampening)
        _update(_sgd, which, [p, g, buffer], lr, keep, take, straight, along, weight_decay)


@kernel
def _sgd(args: int, task: int, thread: int) -> None:
    row, start, count = _slice(args, task)
    p, g, b = _array(args, row, 0, start), _array(args, row, 1, start), _array(args, row, 2, start)
    lr, keep, take_in = _option(args, 0), _option(args, 1), _option(args, 2)
    straight, along, decay = _option(args, 3), _option(args, 4), _option(args, 5)
    for i in range(0, count, LANES):
        at, left = 4 * i, count - i
        w = take(p + at, left)
        d = fma(decay, w, take(g + at, left))
        if b:
            mean = fma(keep, take(b + at, left), take_in * d)
            put(b + at, mean, left)
            d = fma(straight, d, along * mean)
        put(p + at, w - lr * d, left)


def adam_step(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    v: Arrays,
    vmax: Arrays | None,
    steps: Sequence[int],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """See `reference.adam_step`."""
    if p[0].dtype != np.float32:
        options = (lr, beta1, beta2, eps, weight_decay, decoupled)
        return reference.adam_step(p, g, m, v, vmax, steps, *options)
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    decay = 0.0 if decoupled else weight_decay
    for step, which in _equal(steps):
        # p <- p - size m / (root sqrt(v) + eps), the corrections for starting at 0 worked in
        size = lr / (1 - beta1**step)
        root = (1 - beta2**step) ** -0.5
        averages = (1 - beta1, beta2, 1 - beta2)
        _update(_adam, which, [p, g, m, v, vmax], size, root, *averages, eps, shrink, decay)


@kernel
def _adam(args: int, task: int, thread: int) -> None:
    row, start, count = _slice(args, task)
    p, g = _array(args, row, 0, start), _array(args, row, 1, start)
    m, v, vmax = (
        _array(args, row, 2, start),
        _array(args, row, 3, start),
        _array(args, row, 4, start),
    )
    size, root, take1 = _option(args, 0), _option(args, 1), _option(args, 2)
    beta2, take2, eps = _option(args, 3), _option(args, 4), _option(args, 5)
    shrink, decay = _option(args, 6), _option(args, 7)
    for i in range(0, count, LANES):
        at, left = 4 * i, count - i
        w = shrink * take(p + at, left)
        d = fma(decay, w, take(g + at, left))
        mean = take(m + at, left)
        mean = fma(take1, d - mean, mean)
        square = fma(take2, d * d, beta2 * take(v + at, left))
        put(m + at, mean, left)
        put(v + at, square, left)
        if vmax:
            square = _larger(take(vmax + at, left), square)
            put(vmax + at, square, left)
        put(p + at, w - size * mean / fma(root, sqrt(square), eps), left)


def adamax_step(
    p: Arrays,
    g: Arrays,
    m: Arrays,
    u: Arrays,
    steps: Sequence[int],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """See `reference.adamax_step`."""
    if p[0].dtype != np.float32:
        return reference.adamax_step(p, g, m, u, steps, lr, beta1, beta2, eps, weight_decay)
    for step, which in _equal(steps):
        size = lr / (1 - beta1**step)
        _update(_adamax, which, [p, g, m, u], size, 1 - beta1, beta2, eps, weight_decay)


@kernel
def _adamax(args: int, task: int, thread: int) -> None:
    row, start, count = _slice(args, task)
    p, g = _array(args, row, 0, start), _array(args, row, 1, start)
    m, u = _array(args, row, 2, start), _array(args, row, 3, start)
    size, take1, beta2 = _option(args, 0), _option(args, 1), _option(args, 2)
    eps, decay = _option(args, 3), _option(args, 4)
    for i in range(0, count, LANES):
        at, left = 4 * i, count - i
        w, mean = take(p + at, left), take(m + at, left)
        d = fma(decay, w, take(g + at, left))
        mean = fma(take1, d - mean, mean)
        top = _larger(beta2 * take(u + at, left), absolute(d) + eps)
        put(m + at, mean, left)
        put(u + at, top, left)
        put(p + at, w - size * mean / top, left)


def rmsprop_step(
    p: Arrays,
    g: Arrays,
    square: Arrays,
    mean: Arrays | None,
    buffer: Arrays | None,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """See `reference.rmsprop_step`."""
    options = (lr, alpha, eps, momentum, weight_decay)
    if p[0].dtype != np.float32:
        return reference.rmsprop_step(p, g, square, mean, buffer, *options)
    _update(_rmsprop, range(len(p)), [p, g, square, mean, buffer], *options, 1 - alpha)


@kernel
def _rmsprop(args: int, task: int, thread: int) -> None:
    row, start, count = _slice(args, task)
    p, g = _array(args, row, 0, start), _array(args, row, 1, start)
    s, a, b = _array(args, row, 2, start), _array(args, row, 3, start), _array(args, row, 4, start)
    lr, alpha, eps = _option(args, 0), _option(args, 1), _option(args, 2)
    momentum, decay, take_in = _option(args, 3), _option(args, 4), _option(args, 5)
    zero = spread(np.float32(0))
    for i in range(0, count, LANES):
        at, left = 4 * i, count - i
        w = take(p + at, left)
        d = fma(decay, w, take(g + at, left))
        square = alpha * take(s + at, left) + take_in * (d * d)
        put(s + at, square, left)
        if a:
            mean = take(a + at, left)
            mean = mean + take_in * (d - mean)
            put(a + at, mean, left)
            square = _larger(zero, square - mean * mean)  # rounding can go below 0
        d = d / (sqrt(square) + eps)
        if b:
            d = fma(momentum, take(b + at, left), d)
            put(b + at, d, left)
        put(p + at, w - lr * d, left)


def adagrad_step(
    p: Arrays,
    g: Arrays,
    total: Arrays,
    steps: Sequence[int],
    lr: float,
    lr_decay: float,
    eps: float,
    weight_decay: float,
) -> None:
    """See `reference.adagrad_step`."""
    if p[0].dtype != np.float32:
        return reference.adagrad_step(p, g, total, steps, lr, lr_decay, eps, weight_decay)
    for step, which in _equal(steps):
        size = lr / (1 + (step - 1) * lr_decay)
        _update(_adagrad, which, [p, g, total], size, eps, weight_decay)


@kernel
def _adagrad(args: int, task: int, thread: int) -> None:
    row, start, count = _slice(args, task)
    p, g, s = _array(args, row, 0, start), _array(args, row, 1, start), _array(args, row, 2, start)
    size, eps, decay = _option(args, 0), _option(args, 1), _option(args, 2)
    for i in range(0, count, LANES):
        at, left = 4 * i, count - i
        w = take(p + at, left)
        d = fma(decay, w, take(g + at, left))
        total = fma(d, d, take(s + at, left))
        put(s + at, total, left)
        put(p + at, w - size * d / (sqrt(total) + eps), left)


def adadelta_step(
    p: Arrays,
    g: Arrays,
    square: Arrays,
    delta: Arrays,
    lr: float,
    rho: float,
    eps: float,
    weight_decay: float,
) -> None:
    """See `reference.adadelta_step`."""
    if p[0].dtype != np.float32:
        return reference.adadelta_step(p, g, square, delta, lr, rho, eps, weight_decay)
    options = (lr, rho, 1 - rho, eps, weight_decay)
    _update(_adadelta, range(len(p)), [p, g, square, delta], *options)


@kernel
def _adadelta(args: int, task: int, thread: int) -> None:
    row, start, count = _slice(args, task)
    p, g = _array(args, row, 0, start), _array(args, row, 1, start)
    s, a = _array(args, row, 2, start), _array(args, row, 3, start)
    lr, rho, take_in = _option(args, 0), _option(args, 1), _option(args, 2)
    eps, decay = _option(args, 3), _option(args, 4)
    for i in range(0, count, LANES):
        at, left = 4 * i, count - i
        w, size = take(p + at, left), take(a + at, left)
        d = fma(decay, w, take(g + at, left))
        square = fma(take_in, d * d, rho * take(s + at, left))
        put(s + at, square, left)
        d = d * (sqrt(size + eps) / sqrt(square + eps))
        put(a + at, fma(take_in, d * d, rho * size), left)
        put(p + at, w - lr * d, left)


def lerp_step(p: Arrays, target: Arrays, weight: float) -> None:
    """See `reference.lerp_step`."""
    if p[0].dtype != np.float32:
        return reference.lerp_step(p, target, weight)
    _update(_lerp, range(len(p)), [p, target], weight)


def square_sum(arrays: Arrays) -> Array:
    """See `reference.square_sum`."""
    total = 0.0
    for a in arrays:
        flat = a.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            square = float(np.dot(flat, flat))
        if not math.isfinite(square) and np.isfinite(flat).all():  # overflow of float32
            square = float(np.square(flat, dtype=np.float64).sum())
        total += square
    return np.asarray(total)


@kernel
def _lerp(args: int, task: int, thread: int) -> None:
    row, start, count = _slice(args, task)
    p, target, weight = _array(args, row, 0, start), _array(args, row, 1, start), _option(args, 0)
    for i in range(0, count, LANES):
        at, left = 4 * i, count - i
        w = take(p + at, left)
        put(p + at, fma(weight, take(target + at, left) - w, w), left)


# The table and its tasks -----------------------------------------------------------------------

COLUMNS = 7  # of the table: tasks before this parameter, its length, then p, g and the memory
# An array stands in the table as the address of its Python object (see `parallel.address`).


def _update(
    rule: Kernel, which: Sequence[int], lists: Sequence[Arrays | None], *options: float
) -> None:
    """Run a rule on the parameters with the numbers `which`; lists are p, g and the memory."""
    params = lists[0]
    group = params if type(params) is Group and len(which) == len(params) else None
    if group is not None and group.prepared is not None and group.prepared.serves(lists):
        table: _Table = group.prepared
        return run(rule, table.tasks, table.rows, len(which), HEADER, *options)
    rows: list[int] = []
    moved: list[tuple[Array | None, Array]] = []  # (array in another order, or None; its copy)
    tasks = 0
    no_more = (0,) * (COLUMNS - 2 - len(lists))
    for i in which:
        w = lists[0][i]  # type: ignore[index]
        if not is_row(w):
            moved.append((w, np.ascontiguousarray(w)))
            w = moved[-1][1]
        rows += (tasks, w.size, id(w))
        tasks += -(-w.size // CHUNK)
        for arrays in lists[1:]:
            a = None if arrays is None else arrays[i]
            if a is not None and (type(a) is not np.ndarray or not alike(w, a)):
                written = None if arrays is lists[1] else a  # the gradient is only read
                moved.append((written, in_order_of(w, np.asarray(a))))
                a = moved[-1][1]
            rows.append(0 if a is None else id(a))
        rows += no_more
    made = np.array(rows, np.int64)
    run(rule, tasks, made, len(which), HEADER, *options)
    for a, copy in moved:
        if a is not None:
            a[...] = copy
    if group is not None and not moved:
        group.prepared = _Table(lists, made, tasks)


class _Table:
    """The table of a group, kept for its next update.

    It holds for the very arrays that it was made of, and keeps them so that their places cannot
    go to others. Only gradients are new in every step, and are not kept (unless a group as well).
    """

    def __init__(self, lists: Sequence[Arrays | None], rows: Array, tasks: int) -> None:
        self.lists = [None if a is None else tuple(a) for a in lists]
        self.rows, self.tasks = rows, tasks
        self.strides = [w.strides for w in lists[0] or ()]
        self.gradients = rows[3::COLUMNS]  # a column
        self.fixed = type(lists[1]) is Group
        if not self.fixed:
            self.lists[1] = None

    def serves(self, lists: Sequence[Arrays | None]) -> bool:
        """Whether these are the arrays of the table; new gradients are put into it."""
        for kept, given in zip(self.lists, lists, strict=True):
            if (kept is not None or given is not lists[1]) and not _same(kept, given):
                return False
        return self.fixed or self._take(lists[1])

    def _take(self, gradients: Any) -> bool:
        places = []
        for g, w, strides in zip(gradients, self.lists[0] or (), self.strides, strict=True):
            if type(g) is not np.ndarray or g.dtype != np.float32:
                return False
            if g.strides != strides and not alike(w, g):
                return False
            places.append(id(g))
        self.gradients[:] = places
        return True


def _same(kept: Arrays | None, given: Arrays | None) -> bool:
    """Whether two lists hold the same arrays: not equal ones, the same."""
    if kept is None or given is None:
        return kept is given
    return len(kept) == len(given) and all(map(operator.is_, kept, given))


@part
def _slice(args: int, task: int) -> Any:
    """The row of a task's parameter, where in it the task starts (bytes), and how many numbers."""
    table = arg(args, 0)
    low, high = 0, arg(args, 1)
    while high - low > 1:  # the last row with at most `task` tasks before it
        middle = (low + high) // 2
        if load_i64(table + 8 * COLUMNS * middle) <= task:
            low = middle
        else:
            high = middle
    row = table + 8 * COLUMNS * low
    start = (task - load_i64(row)) * CHUNK
    return row, 4 * start, least(CHUNK, load_i64(row + 8) - start)


@part
def _array(args: int, row: int, column: int, start: int) -> int:
    """Where the task's numbers of p (column 0), g (1) or memory begin; 0: no such array."""
    found = load_i64(row + 16 + 8 * column)
    return load_i64(found + arg(args, 2)) + start if found else 0


@part
def _option(args: int, index: int) -> Any:
    return spread(np.float32(real(args, 3 + index)))


@part
def _larger(a: Any, b: Any) -> Any:
    """The larger of two; b if it is NaN."""
    return where(a >= b, a, b)


def _equal(steps: Sequence[int]) -> list[tuple[int, Sequence[int]]]:
    """(step, numbers of the parameters that make this step); nearly always one entry."""
    if min(steps) == max(steps):
        return [(steps[0], range(len(steps)))]
    return [(k, [i for i, step in enumerate(steps) if step == k]) for k in sorted(set(steps))]
