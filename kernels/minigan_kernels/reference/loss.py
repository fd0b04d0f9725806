"""Losses by their definitions, one value per element; reductions are left to the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def binary_cross_entropy_with_logits(logits: Array, target: Array) -> Array:
    """-y log p - (1 - y) log(1 - p) with p = 1 / (1 + e^-t)."""
    p = 1 / (1 + np.exp(-logits))
    loss: Array = -target * np.log(p) - (1 - target) * np.log(1 - p)
    return loss


def cross_entropy(
    logits: Array, target: Array, ignore_index: int = -100, label_smoothing: float = 0.0
) -> Array:
    """-sum over classes of q log p, p = softmax(logits), at every position.

    logits (N,C,*spatial), target (N,*spatial) of integers. q is 1 at the label and 0 elsewhere;
    smoothing s mixes it with the uniform: (1 - s) q + s / C. Ignored positions give 0.
    """
    loss = np.zeros(target.shape, logits.dtype)
    for place in np.ndindex(target.shape):
        label = target[place]
        if label == ignore_index:
            continue
        row = logits[(place[0], slice(None), *place[1:])]
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        q = np.full(row.shape, label_smoothing / row.size)
        q[label] += 1 - label_smoothing
        loss[place] = -(q * np.log(p)).sum()
    return loss


def cross_entropy_backward(
    g: Array,
    logits: Array,
    target: Array,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Array:
    """d loss / d logits = p - q at every position, times g there."""
    dx = np.zeros_like(logits)
    for place in np.ndindex(target.shape):
        label = target[place]
        if label == ignore_index:
            continue
        row = (place[0], slice(None), *place[1:])
        p = np.exp(logits[row] - logits[row].max())
        q = np.full(p.shape, label_smoothing / p.size)
        q[label] += 1 - label_smoothing
        dx[row] = g[place] * (p / p.sum() - q)
    return dx


def nll_loss(log_probabilities: Array, target: Array, ignore_index: int = -100) -> Array:
    """-log p at the label."""
    loss = np.zeros(target.shape, log_probabilities.dtype)
    for place in np.ndindex(target.shape):
        if target[place] != ignore_index:
            loss[place] = -log_probabilities[(place[0], target[place], *place[1:])]
    return loss


def smooth_l1_loss(x: Array, target: Array, beta: float = 1.0) -> Array:
    """d^2 / (2 beta) where d = |x - target| < beta, else d - beta / 2."""
    d = np.abs(x - target)
    loss: Array = np.where(d < beta, d**2 / (2 * beta), d - beta / 2)
    return loss


def kl_normal(mu: Array, logvar: Array) -> Array:
    """KL(N(mu, e^logvar) || N(0, 1)) per element: -(1 + logvar - mu^2 - e^logvar) / 2."""
    loss: Array = -0.5 * (1 + logvar - mu**2 - np.exp(logvar))
    return loss


def _each(x: Array, target: Array | float | None, kind: str, sign: float) -> Array:
    """The loss of each element: see `loss_sum`."""
    y = 0 if target is None else target
    if kind == "mse":
        return (x - y) ** 2
    if kind == "l1":
        return np.abs(x - y)
    if kind == "bce":
        loss: Array = np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0) - x * y
        return loss
    return np.maximum(1 - sign * x, 0) if kind == "hinge" else np.logaddexp(0, -sign * x)


def loss_sum(x: Array, target: Array | float | None, kind: str, sign: float) -> float:
    """Sum over all elements of one of these losses, y the target (or one for all) and s the sign:

    "mse" (x - y)^2,   "l1" |x - y|,   "bce" log(1 + e^x) - x y,   "hinge" max(0, 1 - s x),
    "softplus" log(1 + e^(-s x)).
    """
    return float(_each(x, target, kind, sign).sum(dtype=np.float64))


def loss_gradient(
    x: Array, target: Array | float | None, kind: str, sign: float, factor: float
) -> Array:
    """factor times the derivatives of `loss_sum` by x."""
    y = 0 if target is None else target
    slopes: dict[str, Callable[[], Array]] = {
        "mse": lambda: 2 * (x - y),
        "l1": lambda: np.sign(x - y),
        "bce": lambda: 1 / (1 + np.exp(-x)) - y,
        "hinge": lambda: np.where(1 - sign * x > 0, -sign, 0),
        "softplus": lambda: -sign / (1 + np.exp(sign * x)),
    }
    return np.asarray(slopes[kind]() * factor, x.dtype)
