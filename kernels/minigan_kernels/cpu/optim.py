"""Update rules of optimizers on the CPU: one loop per parameter that touches every array once.

On two cores of a small server the Adam loop takes 1.3 ms for 3 million float32 parameters; NumPy
over cache-sized blocks takes 5.5 ms. The formulas stand in `reference.optim`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.layout import dense, memory_order

Array = npt.NDArray[Any]
Arrays = Sequence[Array]

_jit = numba.njit(cache=True, nogil=True, error_model="numpy")


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
    for i, w in enumerate(p):
        if buffer is None:
            _update(_sgd, [w], g[i], lr, weight_decay)
            continue
        keep, take = (0.0, 1.0) if steps[i] == 1 else (momentum, 1 - dampening)
        # The step is along  straight * g + along * buffer.
        straight, along = (1.0, momentum) if nesterov else (0.0, 1.0)
        _update(_momentum, [w, buffer[i]], g[i], lr, keep, take, straight, along, weight_decay)


@_jit
def _sgd(p: Array, g: Array, lr: Any, decay: Any) -> None:
    for i in range(p.size):
        p[i] -= lr * (g[i] + decay * p[i])


@_jit
def _momentum(
    p: Array,
    b: Array,
    g: Array,
    lr: Any,
    keep: Any,
    take: Any,
    straight: Any,
    along: Any,
    decay: Any,
) -> None:
    for i in range(p.size):
        d = g[i] + decay * p[i]
        b[i] = keep * b[i] + take * d
        p[i] -= lr * (straight * d + along * b[i])


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
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    decay = 0.0 if decoupled else weight_decay
    for i, w in enumerate(p):
        # p <- p - size m / (root sqrt(v) + eps), the corrections for starting at 0 worked in
        size = lr / (1 - beta1 ** steps[i])
        root = (1 - beta2 ** steps[i]) ** -0.5
        options = (size, root, 1 - beta1, beta2, 1 - beta2, eps, shrink, decay)
        if vmax is None:
            _update(_adam, [w, m[i], v[i]], g[i], *options)
        else:
            _update(_amsgrad, [w, m[i], v[i], vmax[i]], g[i], *options)


@_jit
def _adam(
    p: Array,
    m: Array,
    v: Array,
    g: Array,
    size: Any,
    root: Any,
    take1: Any,
    beta2: Any,
    take2: Any,
    eps: Any,
    shrink: Any,
    decay: Any,
) -> None:
    for i in range(p.size):
        w = p[i] * shrink
        d = g[i] + decay * w
        mi = m[i] + take1 * (d - m[i])
        vi = beta2 * v[i] + take2 * (d * d)
        m[i] = mi
        v[i] = vi
        p[i] = w - size * mi / (root * np.sqrt(vi) + eps)


@_jit
def _amsgrad(
    p: Array,
    m: Array,
    v: Array,
    vmax: Array,
    g: Array,
    size: Any,
    root: Any,
    take1: Any,
    beta2: Any,
    take2: Any,
    eps: Any,
    shrink: Any,
    decay: Any,
) -> None:
    for i in range(p.size):
        w = p[i] * shrink
        d = g[i] + decay * w
        m[i] += take1 * (d - m[i])
        v[i] = beta2 * v[i] + take2 * (d * d)
        vmax[i] = max(vmax[i], v[i])
        p[i] = w - size * m[i] / (root * np.sqrt(vmax[i]) + eps)


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
    for i, w in enumerate(p):
        size = lr / (1 - beta1 ** steps[i])
        _update(_adamax, [w, m[i], u[i]], g[i], size, 1 - beta1, beta2, eps, weight_decay)


@_jit
def _adamax(
    p: Array, m: Array, u: Array, g: Array, size: Any, take1: Any, beta2: Any, eps: Any, decay: Any
) -> None:
    for i in range(p.size):
        d = g[i] + decay * p[i]
        m[i] += take1 * (d - m[i])
        u[i] = max(beta2 * u[i], abs(d) + eps)
        p[i] -= size * m[i] / u[i]


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
    take = 1 - alpha
    for i, w in enumerate(p):
        if mean is None and buffer is None:
            _update(_rmsprop, [w, square[i]], g[i], lr, alpha, take, eps, weight_decay)
            continue
        a = np.zeros_like(w) if mean is None else mean[i]  # stays 0: its share `centre` is 0
        b = np.zeros_like(w) if buffer is None else buffer[i]
        centre = 0.0 if mean is None else take
        options = (lr, alpha, take, centre, eps, momentum, weight_decay)
        _update(_rmsprop_full, [w, square[i], a, b], g[i], *options)


@_jit
def _rmsprop(
    p: Array, s: Array, g: Array, lr: Any, alpha: Any, take: Any, eps: Any, decay: Any
) -> None:
    for i in range(p.size):
        d = g[i] + decay * p[i]
        s[i] = alpha * s[i] + take * (d * d)
        p[i] -= lr * d / (np.sqrt(s[i]) + eps)


@_jit
def _rmsprop_full(
    p: Array,
    s: Array,
    a: Array,
    b: Array,
    g: Array,
    lr: Any,
    alpha: Any,
    take: Any,
    centre: Any,
    eps: Any,
    momentum: Any,
    decay: Any,
) -> None:
    zero = decay - decay  # of the dtype; rounding can make the spread negative
    for i in range(p.size):
        d = g[i] + decay * p[i]
        s[i] = alpha * s[i] + take * (d * d)
        a[i] += centre * (d - a[i])
        b[i] = momentum * b[i] + d / (np.sqrt(max(s[i] - a[i] * a[i], zero)) + eps)
        p[i] -= lr * b[i]


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
    for i, w in enumerate(p):
        size = lr / (1 + (steps[i] - 1) * lr_decay)
        _update(_adagrad, [w, total[i]], g[i], size, eps, weight_decay)


@_jit
def _adagrad(p: Array, s: Array, g: Array, size: Any, eps: Any, decay: Any) -> None:
    for i in range(p.size):
        d = g[i] + decay * p[i]
        s[i] += d * d
        p[i] -= size * d / (np.sqrt(s[i]) + eps)


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
    for i, w in enumerate(p):
        _update(_adadelta, [w, square[i], delta[i]], g[i], lr, rho, 1 - rho, eps, weight_decay)


@_jit
def _adadelta(
    p: Array, s: Array, a: Array, g: Array, lr: Any, rho: Any, take: Any, eps: Any, decay: Any
) -> None:
    for i in range(p.size):
        d = g[i] + decay * p[i]
        s[i] = rho * s[i] + take * (d * d)
        d *= np.sqrt(a[i] + eps) / np.sqrt(s[i] + eps)
        a[i] = rho * a[i] + take * (d * d)
        p[i] -= lr * d


def lerp_step(p: Arrays, target: Arrays, weight: float) -> None:
    """See `reference.lerp_step`."""
    for w, t in zip(p, target, strict=True):
        _update(_lerp, [w], t, weight)


@_jit
def _lerp(p: Array, target: Array, weight: Any) -> None:
    for i in range(p.size):
        p[i] += weight * (target[i] - p[i])


def _update(rule: Callable[..., None], written: list[Array], g: Array, *options: float) -> None:
    """Run rule(*written, g, *options) over flat views in the memory order of the parameter.

    The options become numbers of the parameter's dtype, so that float32 stays float32. An array
    whose memory lies otherwise is copied there and (if written) back.
    """
    order = memory_order(written[0])
    flat = [dense(a, order).reshape(-1) for a in written]
    number = written[0].dtype.type
    rule(*flat, dense(g, order).reshape(-1), *[number(option) for option in options])
    for a, line in zip(written, flat, strict=True):
        if not np.may_share_memory(a, line):
            moved = a.transpose(order)
            moved[...] = line.reshape(moved.shape)
