"""Update rules of optimizers on the GPU: one launch for all parameters of a call.

The bytes bound them: Adam reads p, g, m, v and writes p, m, v, 28 bytes for each number. What a
launch needs to know lies in device memory: a table of the arrays (`Row`, `Chunk` in optim.cu),
which depends on their addresses alone and is kept, and the options, which are written only when
they change. So a captured graph of launches can be replayed with a new learning rate or step. The
formulas stand in `reference.optim`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import REAL, Array, Device, type_name
from minigan_kernels.cuda.memory_order import dense, in_order_of, same_order
from minigan_kernels.cuda.sources import Source
from minigan_kernels.group import Group

Arrays = Sequence[Array]
Lists = Sequence[Arrays | None]  # parameters, gradients, and the memory of a rule
Addresses = tuple[tuple[int, ...], ...]  # of each list

RULES = ("Sgd", "Adam", "Adamax", "Rmsprop", "Adagrad", "Adadelta", "Lerp")
KERNELS = Source("optim.cu", (*[f"update<{t}, {r}>" for r in RULES for t in REAL], "set_options"))
SOURCES = (KERNELS,)

THREADS = 256
CHUNK = THREADS * 4 * 16  # bytes of each array that a block serves
POINTERS = 5  # of a row: p, g and up to three arrays of memory
OPTIONS = np.dtype([("v", np.float64, 9)])


def sgd_step(
    device: Device,
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
    # The step is along  straight * g + along * buffer.
    straight, along = (1.0, momentum) if nesterov else (0.0, 1.0)
    for step, which in _alike(p, [min(step, 2) for step in steps]):
        keep, take = (0.0, 1.0) if step == 1 else (momentum, 1 - dampening)
        options = (lr, keep, take, straight, along, weight_decay)
        _update(device, "Sgd", which, (p, g, buffer), options)


def adam_step(
    device: Device,
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
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    decay = 0.0 if decoupled else weight_decay
    for step, which in _alike(p, steps):
        # p <- p - size m / (root sqrt(v) + eps), the corrections for starting at 0 worked in
        size, root = lr / (1 - beta1**step), (1 - beta2**step) ** -0.5
        options = (size, root, beta1, 1 - beta1, beta2, 1 - beta2, eps, shrink, decay)
        _update(device, "Adam", which, (p, g, m, v, vmax), options)


def adamax_step(
    device: Device,
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
    for step, which in _alike(p, steps):
        options = (lr / (1 - beta1**step), beta1, 1 - beta1, beta2, eps, weight_decay)
        _update(device, "Adamax", which, (p, g, m, u), options)


def rmsprop_step(
    device: Device,
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
    options = (lr, alpha, 1 - alpha, eps, momentum, weight_decay)
    for _, which in _alike(p):
        _update(device, "Rmsprop", which, (p, g, square, mean, buffer), options)


def adagrad_step(
    device: Device,
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
    for step, which in _alike(p, steps):
        options = (lr / (1 + (step - 1) * lr_decay), eps, weight_decay)
        _update(device, "Adagrad", which, (p, g, total), options)


def adadelta_step(
    device: Device,
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
    for _, which in _alike(p):
        options = (lr, rho, 1 - rho, eps, weight_decay)
        _update(device, "Adadelta", which, (p, g, square, delta), options)


def lerp_step(device: Device, p: Arrays, target: Arrays, weight: float) -> None:
    """See `reference.lerp_step`."""
    for _, which in _alike(p):
        _update(device, "Lerp", which, (p, target), (weight,))


# The table of arrays ----------------------------------------------------------------------------


class _Table:
    """The arrays of a call in device memory, and the options of its rule."""

    def __init__(self, device: Device, item: int, sizes: tuple[int, ...], addresses: Addresses):
        rows = np.zeros((len(sizes), 1 + POINTERS), np.int64)
        rows[:, 0] = sizes
        rows[:, 1 : 1 + len(addresses)] = np.array(addresses, np.int64).T
        counts = -(-np.array(sizes, np.int64) * item // CHUNK)
        ends = np.cumsum(counts)
        chunks = np.empty((ends[-1], 2), np.int32)  # row, number of the chunk within it
        chunks[:, 0] = np.repeat(np.arange(len(sizes)), counts)
        chunks[:, 1] = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        self.rows, self.chunks = device.upload(rows), device.upload(chunks)
        self.count = len(chunks)
        self.options = device.empty((9,), np.float64)
        self.values: tuple[float, ...] | None = None  # what the options are now

    def set(self, device: Device, values: tuple[float, ...]) -> None:
        """Make the options these."""
        if values != self.values:
            whole = np.zeros((), OPTIONS)
            whole["v"][: len(values)] = values
            device.launch(KERNELS, "set_options", (1,), (1,), self.options, whole)
            self.values = values


@lru_cache(maxsize=128)
def _table(
    device: Device, rule: str, item: int, sizes: tuple[int, ...], addresses: Addresses
) -> _Table:
    """It names places, not arrays: whatever lies there later is served as well."""
    return _Table(device, item, sizes, addresses)


def _update(
    device: Device, rule: str, which: Sequence[int], lists: Lists, values: tuple[float, ...]
) -> None:
    """Apply a rule to the parameters with the numbers `which`."""
    moved: list[tuple[Array | None, Array]] = []
    params = lists[0]
    assert params is not None
    group = params if type(params) is Group and len(which) == len(params) else None
    found = None if group is None else _prepared(group, lists)
    if found is None:
        found = _places(device, which, lists, moved)
        if group is not None and not moved:
            group.prepared = _Prepared(lists, *found)
    dtype = params[which[0]].dtype
    table = _table(device, rule, dtype.itemsize, *found)
    table.set(device, tuple(map(float, values)))
    arguments = table.rows, table.chunks, table.options
    name = f"update<{type_name(dtype)}, {rule}>"
    device.launch(KERNELS, name, (table.count,), (THREADS,), *arguments)
    for original, copy in moved:
        if original is not None:
            original[...] = copy


def _places(
    device: Device,
    which: Sequence[int],
    lists: Lists,
    moved: list[tuple[Array | None, Array]],
) -> tuple[tuple[int, ...], Addresses]:
    """Sizes of the parameters and addresses of all arrays.

    An array whose memory order is not its parameter's is served by a copy: it is put into `moved`
    with the array to copy back to, None for a gradient.
    """
    sizes, columns = [], []
    for i in which:
        original: Array = lists[0][i]  # type: ignore[index]
        w = dense(original)
        places = []
        for arrays in lists:
            a = None if arrays is None else arrays[i]
            if a is None or not original.size:
                places.append(0)
                continue
            fitting = w if arrays is lists[0] else _in_order_of(device, w, a)
            if fitting is not a:
                moved.append((None if arrays is lists[1] else a, fitting))
            places.append(_address(fitting))
        sizes.append(w.size)
        columns.append(places)
    return tuple(sizes), tuple(zip(*columns, strict=True))


def _in_order_of(device: Device, w: Array, a: Array) -> Array:
    """a with the dtype and memory order of w: itself or a copy."""
    return in_order_of(device, w, a if a.dtype == w.dtype else a.astype(w.dtype))


class _Prepared:
    """What a group keeps for its next update: where its arrays are.

    It keeps the arrays too, so that their places cannot go to others; but not gradients, which are
    new in every step (unless they are a group as well).
    """

    def __init__(self, lists: Lists, sizes: tuple[int, ...], addresses: Addresses) -> None:
        kept = [None if a is None else tuple(a) for a in lists]
        if type(lists[1]) is not Group:
            kept[1] = None
        self.lists, self.sizes, self.addresses = kept, sizes, addresses


def _prepared(group: Group, lists: Lists) -> tuple[tuple[int, ...], Addresses] | None:
    """What `_places` would say, if the group was prepared for these lists."""
    known = group.prepared
    if not isinstance(known, _Prepared) or len(known.lists) != len(lists):
        return None
    for i, (kept, given) in enumerate(zip(known.lists, lists, strict=True)):
        if i != 1 and not _same(kept, given):
            return None
    gradients: Any = lists[1]
    if _same(known.lists[1], gradients):
        return known.sizes, known.addresses
    for w, g in zip(group, gradients, strict=True):
        if g.dtype != w.dtype or not (g.strides == w.strides or same_order(w, g)):
            return None
    places = tuple(map(_address, gradients))
    return known.sizes, (known.addresses[0], places, *known.addresses[2:])


def _same(kept: Arrays | None, given: Arrays | None) -> bool:
    """Whether two lists hold the same arrays: not equal ones, the same."""
    if kept is None or given is None:
        return kept is given
    return len(kept) == len(given) and all(map(operator.is_, kept, given))


def _address(a: Array) -> int:
    return int(a.data.ptr)


def _alike(p: Arrays, steps: Sequence[int] | None = None) -> Iterable[tuple[int, Sequence[int]]]:
    """(step, numbers of the parameters of one dtype that make this step): nearly always one."""
    each = [0] * len(p) if steps is None else [int(step) for step in steps]
    kinds: dict[tuple[Any, int], list[int]] = {}
    for i, (w, step) in enumerate(zip(p, each, strict=True)):
        kinds.setdefault((w.dtype, step), []).append(i)
    return [(step, which) for (_, step), which in kinds.items()]
