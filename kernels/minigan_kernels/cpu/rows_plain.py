"""Softmax, cross entropy and pixel norm with NumPy, all rows at once: for float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def softmax(x: Array, dim: int) -> Array:
    """e^x / sum e^x; 0 where all x are -infinity."""
    _, y = _shifted_powers(x, dim)
    total = y.sum(axis=dim, keepdims=True)
    y /= np.where(total == 0, 1, total)
    return y


def softmax_backward(g: Array, y: Array, dim: int) -> Array:
    """y (g - sum g y)."""
    weighted = g * y
    dx: Array = weighted - y * weighted.sum(axis=dim, keepdims=True)
    return dx


def log_softmax(x: Array, dim: int) -> Array:
    """x - log sum e^x."""
    top, powers = _shifted_powers(x, dim)
    y: Array = x - top - np.log(powers.sum(axis=dim, keepdims=True))
    return y


def log_softmax_backward(g: Array, y: Array, dim: int) -> Array:
    """g - e^y sum g."""
    dx: Array = g - np.exp(y) * g.sum(axis=dim, keepdims=True)
    return dx


def cross_entropy(logits: Array, target: Array, ignore_index: int, label_smoothing: float) -> Array:
    """-sum q log softmax at every position, 0 where ignored."""
    labels, valid = _labels(target, ignore_index)
    shifted = logits - logits.max(axis=1, keepdims=True)  # <= 0: nothing overflows
    picked = (1 - label_smoothing) * np.take_along_axis(shifted, labels, axis=1)[:, 0]
    if label_smoothing:
        picked = picked + label_smoothing * shifted.mean(axis=1)
    loss = np.log(np.exp(shifted).sum(axis=1)) - picked
    return np.where(valid, loss, 0).astype(logits.dtype, copy=False)


def cross_entropy_backward(
    g: Array, logits: Array, target: Array, ignore_index: int, label_smoothing: float
) -> Array:
    """g (softmax - q), 0 where ignored."""
    labels, valid = _labels(target, ignore_index)
    classes = logits.shape[1]
    d = softmax(logits, 1) - logits.dtype.type(label_smoothing / classes)
    at_label = np.take_along_axis(d, labels, axis=1) - (1 - label_smoothing)
    np.put_along_axis(d, labels, at_label, axis=1)
    dx: Array = d * (g * valid.astype(logits.dtype))[:, None]
    return dx


def pixel_norm(x: Array, eps: float) -> Array:
    """x / sqrt(mean over axis 1 of x^2 + eps)."""
    y: Array = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + eps)
    return y


def pixel_norm_backward(g: Array, x: Array, eps: float) -> Array:
    """r (g - x r^2 mean(g x))."""
    square = 1 / (np.square(x).mean(axis=1, keepdims=True) + eps)
    dx: Array = np.sqrt(square) * (g - x * (square * (g * x).mean(axis=1, keepdims=True)))
    return dx


def _shifted_powers(x: Array, dim: int) -> tuple[Array, Array]:
    """(m, e^(x - m)) with the maximum m, so that nothing overflows; m = 0 where all are -inf."""
    top = x.max(axis=dim, keepdims=True)
    top = np.where(top == -np.inf, 0, top).astype(x.dtype, copy=False)
    return top, np.exp(x - top)


def _labels(target: Array, ignore_index: int) -> tuple[Array, Array]:
    """Labels (N,1,*spatial), 0 where ignored, and which positions (N,*spatial) count."""
    valid = target != ignore_index
    return np.where(valid, target, 0)[:, None].astype(np.int64, copy=False), valid
