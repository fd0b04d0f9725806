"""Softmax, its logarithm, and cross entropy on the GPU: a team of threads serves each row.

The bytes bound them: each number is read once from memory and written once. Numbers of a row that
are neighbours in memory (channels last, classes on axis 1) go to lanes of a warp, or to a block if
the row is long; otherwise neighbouring rows go to neighbouring lanes.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import REAL, Array, Device, type_name
from minigan_kernels.cuda.memory_order import channels_last, dense, in_order_of, like, order_of
from minigan_kernels.cuda.sources import Source

NAMES = ("softmax", "softmax_gradient", "cross_entropy", "cross_entropy_gradient")
KERNELS = Source("softmax.cu", tuple(f"{name}<{t}>" for name in NAMES for t in REAL))
SOURCES = (KERNELS,)

THREADS = 256
SHARED = THREADS * 8
FULL = 2 * 132  # blocks that keep a GPU busy
LONG = 2048  # numbers of a row from which a block serves it
LANES, BLOCK, COLUMNS = range(3)
PLAN = np.dtype([(name, np.int32) for name in ("rows", "length", "inner", "kind", "size")])


def softmax(device: Device, x: Array, dim: int) -> Array:
    """e^x / sum e^x along an axis. See `reference.softmax`."""
    return _forward(device, x, dim, False)


def log_softmax(device: Device, x: Array, dim: int) -> Array:
    """x - log sum e^x along an axis. See `reference.log_softmax`."""
    return _forward(device, x, dim, True)


def softmax_backward(device: Device, g: Array, y: Array, dim: int) -> Array:
    """y (g - sum g y). See `reference.softmax_backward`."""
    return _backward(device, g, y, dim, False)


def log_softmax_backward(device: Device, g: Array, y: Array, dim: int) -> Array:
    """g - e^y sum g. See `reference.log_softmax_backward`."""
    return _backward(device, g, y, dim, True)


def cross_entropy(
    device: Device, logits: Array, target: Array, ignore_index: int, label_smoothing: float
) -> Array:
    """Loss of each position. See `reference.cross_entropy`."""
    loss = device.empty(target.shape, logits.dtype)
    if not logits.size:
        return loss
    x = _by_position(device, logits)
    options = int(ignore_index), float(label_smoothing)
    _launch(device, "cross_entropy", x, 1, x, _labels(device, target), loss, options=options)
    return loss


def cross_entropy_backward(
    device: Device,
    g: Array,
    logits: Array,
    target: Array,
    ignore_index: int,
    label_smoothing: float,
) -> Array:
    """g (softmax(logits) - q), 0 where ignored. See `reference.cross_entropy_backward`."""
    if not logits.size:
        return device.empty(logits.shape, logits.dtype)
    x = _by_position(device, logits)
    dx, g = like(device, x), device.xp.ascontiguousarray(g).astype(x.dtype, copy=False)
    arrays = g, x, _labels(device, target), dx
    options = int(ignore_index), float(label_smoothing)
    _launch(device, "cross_entropy_gradient", x, 1, *arrays, options=options)
    return dx


def _forward(device: Device, x: Array, dim: int, log: bool) -> Array:
    if not x.size:
        return device.empty(x.shape, x.dtype)
    x = dense(x)
    y = like(device, x)
    _launch(device, "softmax", x, dim, x, y, options=(np.bool_(log),))
    return y


def _backward(device: Device, g: Array, y: Array, dim: int, log: bool) -> Array:
    if not y.size:
        return device.empty(y.shape, y.dtype)
    y = dense(y)
    dx = like(device, y)
    arrays = in_order_of(device, y, g.astype(y.dtype, copy=False)), y, dx
    _launch(device, "softmax_gradient", y, dim, *arrays, options=(np.bool_(log),))
    return dx


def _launch(
    device: Device, name: str, x: Array, dim: int, *arrays: Array, options: tuple[Any, ...]
) -> None:
    """Start a kernel for the rows of x along an axis."""
    plan, blocks = _plan(x, dim)
    arguments = *arrays, plan, *options
    name = f"{name}<{type_name(x.dtype)}>"
    device.launch(KERNELS, name, (blocks,), (THREADS,), *arguments, shared=SHARED)


def _plan(x: Array, dim: int) -> tuple[Any, int]:
    """How the rows of x along an axis are shared out, and the number of blocks."""
    order = order_of(x)
    assert order is not None
    length = x.shape[dim]
    inner = prod(x.shape[i] for i in order[order.index(dim % x.ndim) + 1 :])
    rows, size = x.size // length, 1
    if inner == 1:
        busy = -(-rows * 32 // THREADS) >= FULL
        kind = BLOCK if length >= (LONG if busy else LONG // 4) else LANES
        while size < 32 and 4 * size < length:
            size *= 2
        size = THREADS if kind == BLOCK else size
    else:
        kind = COLUMNS
        while size < 32 and 8 * size < length and (size < 8 or rows * size < THREADS * FULL):
            size *= 2
    plan = np.array((rows, length, inner, kind, size), PLAN)
    return plan, -(-rows * size // THREADS)


def _by_position(device: Device, logits: Array) -> Array:
    """Logits (N,C,*S) whose rows follow each other in memory like their labels (N,*S)."""
    x = dense(logits)
    order = order_of(x)
    assert order is not None
    others = [i for i in order if i != 1 and x.shape[i] != 1]
    return x if others == sorted(others) else channels_last(device, x)


def _labels(device: Device, target: Array) -> Array:
    """Labels in a row, int64, on the device."""
    if isinstance(target, np.ndarray):
        return device.upload(np.ascontiguousarray(target, np.int64))
    return device.xp.ascontiguousarray(target).astype(np.int64, copy=False)
