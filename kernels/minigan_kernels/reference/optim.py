"""Update rules of optimizers, in place. Every kernel takes lists: one entry per parameter.

p are the parameters, g their gradients (read only), the other arrays the optimizer's memory, all of
the shape and dtype of p. `steps` says for each parameter which update of it this is, from 1.
The rules and the names of what they remember are those of torch.optim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
    """g <- g + wd p,   b <- momentum b + (1 - dampening) g  (b <- g at first),   p <- p - lr b.

    Nesterov: p <- p - lr (g + momentum b). `buffer` is None without momentum.
    """
    for i, w in enumerate(p):
        d = g[i] + weight_decay * w
        if buffer is not None:
            b = buffer[i]
            b[...] = d if steps[i] == 1 else momentum * b + (1 - dampening) * d
            d = d + momentum * b if nesterov else b
        w -= lr * d


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
    """m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2,

    p <- p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    Weight decay goes first: g <- g + wd p, or if `decoupled` p <- p (1 - lr wd). With `vmax` the
    largest v so far stands in the denominator (AMSGrad).
    """
    for i, w in enumerate(p):
        d = g[i]
        if decoupled:
            w *= 1 - lr * weight_decay
        else:
            d = d + weight_decay * w
        m[i][...] = beta1 * m[i] + (1 - beta1) * d
        v[i][...] = beta2 * v[i] + (1 - beta2) * d * d
        top = v[i]
        if vmax is not None:
            top = vmax[i]
            top[...] = np.maximum(top, v[i])
        m_hat, v_hat = m[i] / (1 - beta1 ** steps[i]), top / (1 - beta2 ** steps[i])
        w -= lr * m_hat / (np.sqrt(v_hat) + eps)


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
    """m <- beta1 m + (1 - beta1) g,   u <- max(beta2 u, |g| + eps),

    p <- p - lr / (1 - beta1^t) m / u,   with g <- g + wd p before.
    """
    for i, w in enumerate(p):
        d = g[i] + weight_decay * w
        m[i][...] = beta1 * m[i] + (1 - beta1) * d
        u[i][...] = np.maximum(beta2 * u[i], np.abs(d) + eps)
        w -= lr / (1 - beta1 ** steps[i]) * m[i] / u[i]


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
    """s <- alpha s + (1 - alpha) g^2,   d = g / (sqrt(s) + eps),   p <- p - lr d.

    With `mean` (centred) a <- alpha a + (1 - alpha) g and s - a^2 stands under the root. With
    `buffer` (momentum) b <- momentum b + d and p <- p - lr b. g <- g + wd p goes before.
    """
    for i, w in enumerate(p):
        d = g[i] + weight_decay * w
        square[i][...] = alpha * square[i] + (1 - alpha) * d * d
        spread = square[i]
        if mean is not None:
            mean[i][...] = alpha * mean[i] + (1 - alpha) * d
            spread = np.maximum(spread - mean[i] * mean[i], 0)  # rounding can go below 0
        d = d / (np.sqrt(spread) + eps)
        if buffer is not None:
            buffer[i][...] = momentum * buffer[i] + d
            d = buffer[i]
        w -= lr * d


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
    """s <- s + g^2,   p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).

    g <- g + wd p goes before.
    """
    for i, w in enumerate(p):
        d = g[i] + weight_decay * w
        total[i][...] += d * d
        w -= lr / (1 + (steps[i] - 1) * lr_decay) * d / (np.sqrt(total[i]) + eps)


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
    """s <- rho s + (1 - rho) g^2,   d = sqrt(a + eps) / sqrt(s + eps) g,

    a <- rho a + (1 - rho) d^2,   p <- p - lr d,   with g <- g + wd p before.
    """
    for i, w in enumerate(p):
        d = g[i] + weight_decay * w
        square[i][...] = rho * square[i] + (1 - rho) * d * d
        d = np.sqrt(delta[i] + eps) / np.sqrt(square[i] + eps) * d
        delta[i][...] = rho * delta[i] + (1 - rho) * d * d
        w -= lr * d


def lerp_step(p: Arrays, target: Arrays, weight: float) -> None:
    """p <- p + weight (target - p): moving averages (weight = 1 - beta), Lookahead."""
    for w, t in zip(p, target, strict=True):
        w += weight * (t - w)


def square_sum(arrays: Arrays) -> Array:
    """The sum of squares over all arrays, in float64: the squared norm of a gradient."""
    squares = [np.square(a, dtype=np.float64).sum() for a in arrays]
    return np.asarray(sum(squares), np.float64)
