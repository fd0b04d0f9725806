"""Update rules of optimizers on the GPU: one launch for all parameters of a call.

The bytes bound them: Adam reads p, g, m, v and writes p, m, v, 28 bytes for each number. What a
launch needs to know lies in device memory: a table of the arrays and the options. So a recorded
step can be played with a new learning rate. Where `device.gate` is set, its number decides: unless
it is finite, nothing changes. The formulas stand in `reference.optim`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minigan_kernels.cuda.array_table import Arrays, Lists, table_of
from minigan_kernels.cuda.device import REAL, Array, Device, type_name
from minigan_kernels.cuda.sources import Source

RULES = ("Sgd", "Adam", "Adamax", "Rmsprop", "Adagrad", "Adadelta", "Lerp")
KERNELS = Source(
    "optim.cu",
    (
        *(f"update<{t}, {rule}>" for rule in RULES for t in REAL),
        *(f"squares<{t}>" for t in REAL),
        *("add_parts", "set_options"),
    ),
)
SOURCES = (KERNELS,)

THREADS = 256
WORK = THREADS // 32 * 8  # bytes that a sum over a block needs


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


def square_sum(device: Device, arrays: Arrays) -> Array:
    """See `reference.square_sum`; the result stays on the device."""
    total = device.empty((), np.float64)
    kinds = _alike(arrays)
    if not kinds:
        total[...] = 0
    for i, (_, which) in enumerate(kinds):
        table, _copies = table_of(device, "squares", which, (arrays,))  # kept while in use
        parts = device.empty((table.count,), np.float64)
        name = f"squares<{type_name(arrays[which[0]].dtype)}>"
        places = table.rows, table.chunks, parts
        device.launch(KERNELS, name, (table.count,), (THREADS,), *places, shared=WORK)
        last = parts, total, np.int32(table.count), np.int32(i == 0)
        device.launch(KERNELS, "add_parts", (1,), (THREADS,), *last, shared=WORK)
    return total


def _update(
    device: Device, rule: str, which: Sequence[int], lists: Lists, values: tuple[float, ...]
) -> None:
    """Apply a rule to the parameters with the numbers `which`."""
    options = None
    if device.recording is not None:
        options = device.feed(lambda: np.array(values, np.float64))
        if device.recording.is_played:
            return  # the rest is recorded
    table, moved = table_of(device, rule, which, lists)
    if options is None:
        options = table.set(device, KERNELS, values)
    params = lists[0]
    assert params is not None
    name = f"update<{type_name(params[which[0]].dtype)}, {rule}>"
    arguments = table.rows, table.chunks, options, device.gate
    device.launch(KERNELS, name, (table.count,), (THREADS,), *arguments)
    for original, copy in moved:
        if original is not None:
            original[...] = copy


def _alike(p: Arrays, steps: Sequence[int] | None = None) -> Iterable[tuple[int, Sequence[int]]]:
    """(step, numbers of the parameters of one dtype that make this step): nearly always one."""
    each = [0] * len(p) if steps is None else [int(step) for step in steps]
    kinds: dict[tuple[Any, int], list[int]] = {}
    for i, (w, step) in enumerate(zip(p, each, strict=True)):
        kinds.setdefault((w.dtype, step), []).append(i)
    return [(step, which) for (_, step), which in kinds.items()]
