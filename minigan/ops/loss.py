"""Losses. They take logits (scores before any sigmoid or softmax) and demand equal shapes.

`reduction` is "mean" (over all elements), "sum", or "none".
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from minigan_kernels import recording

from minigan.autograd import Function, Fused
from minigan.backend import CPU, Array, backend_of, beside
from minigan.errors import DtypeError, ShapeError, UsageError, not_tensors
from minigan.ops.activation import Sigmoid, relu, softplus
from minigan.ops.elementwise import clamp
from minigan.ops.elementwise import exp as _exp
from minigan.ops.softmax import Softmax
from minigan.tensor import Tensor

# Sums in one pass -------------------------------------------------------------------------------

LARGE = 1 << 10  # elements from which a loss and its mean are one operation
_SINGLE = np.dtype(np.float32)


class LossSum(Fused):
    """factor times the sum of the losses of all elements, which are never stored.

    dx = factor g l'(x, y),   dy = -dx, for "bce" -factor g x. What the losses are: `reference`.
    """

    saves = ("x", "target")
    kind: str
    sign: float
    factor: float
    number: float | None = None  # the target of all elements, where it is one number

    def forward(self, x: Array, target: Array | None) -> Array:
        y = self.number if target is None else target
        total = self.kernels.loss_sum(x, y, self.kind, self.sign)
        return beside(total * self.factor, x).astype(x.dtype, copy=False)

    def backward_kernel(self, g: Array, x: Array, target: Array | None) -> Any:
        factor: Any = g * self.factor
        if self.backend is CPU:
            factor = float(factor)  # elsewhere it stays an array, and nobody waits for it
        y = self.number if target is None else target
        dx: Any = None
        dy: Any = None
        if self.needs[0] or self.kind != "bce":
            dx = self.kernels.loss_gradient(x, y, self.kind, self.sign, factor)
        if self.needs[1]:
            dy = x * -factor if self.kind == "bce" else -dx
        return dx if self.needs[0] else None, dy

    def reference(self, x: Tensor, target: Tensor | None) -> Tensor:
        y = self.number if target is None else target
        return _each(self.kind, x, y, self.sign).sum() * self.factor


def _each(kind: str, x: Tensor, target: Tensor | float | None, sign: float = 1.0) -> Tensor:
    """The losses of that kind, one per element."""
    if target is None:
        signed = x if sign == 1 else -x
        return relu(1.0 - signed) if kind == "hinge" else softplus(-signed)
    y = _spread(x, target)
    if kind == "bce":
        return BinaryCrossEntropyWithLogits.apply(x, y)
    d = x - y
    return d.square() if kind == "mse" else d.abs()


def _loss(
    name: str, kind: str, x: Tensor, target: Tensor | float | None, sign: float, reduction: str
) -> Tensor:
    if x.size < LARGE or reduction not in ("mean", "sum") or x.dtype != _SINGLE:
        return _reduce(name, _each(kind, x, target, sign), reduction)
    options = {"kind": kind, "sign": sign, "factor": 1 / x.size if reduction == "mean" else 1.0}
    if isinstance(target, float):
        return LossSum.apply(x, None, number=target, **options)
    return LossSum.apply(x, target, **options)


# Two classes -----------------------------------------------------------------------------------


class BinaryCrossEntropyWithLogits(Function):
    """l = max(t, 0) - t y + log(1 + e^-|t|) = -y log p - (1 - y) log(1 - p),   p = sigmoid(t).

    dt = g (p - y),   dy = -g t.
    """

    saves = ("logits", "target")

    def forward(self, logits: Array, target: Array) -> Array:
        xp = self.xp
        loss = xp.log1p(xp.exp(-xp.abs(logits)))
        return loss + xp.maximum(logits, 0) - logits * target

    def backward(self, g: Any, logits: Any, target: Any) -> Any:
        return (
            g * (Sigmoid.on(logits) - target) if self.needs[0] else None,
            -(g * logits) if self.needs[1] else None,
        )


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor | Array | float, *, reduction: str = "mean"
) -> Tensor:
    """-y log p - (1 - y) log(1 - p) with p = sigmoid(input), without overflow for any input.

    Parameters
    ----------
    input : logits of any shape.
    target : y in [0, 1]: shaped like `input`, or one number for all (0.9 smooths real labels).
    reduction : "mean", "sum" or "none".
    """
    name = "binary_cross_entropy_with_logits"
    y = _like(name, input, target)
    return _loss(name, "bce", input, y, 1.0, reduction)


def hinge_loss(logits: Tensor, real: bool, *, reduction: str = "mean") -> Tensor:
    """The discriminator's hinge term: max(0, 1 - t) for real, max(0, 1 + t) for fake samples.

    The generator's term is -t, without a hinge.
    """
    return _loss("hinge_loss", "hinge", logits, None, 1.0 if real else -1.0, reduction)


def softplus_loss(logits: Tensor, real: bool, *, reduction: str = "mean") -> Tensor:
    """-log p for real, -log(1 - p) for fake: softplus(-t) and softplus(t).

    D minimises both. G minimises softplus_loss(fake, True), the non-saturating loss, or
    -softplus_loss(fake, False), the original minimax one, which vanishes when D is sure.
    """
    return _loss("softplus_loss", "softplus", logits, None, 1.0 if real else -1.0, reduction)


# Many classes ----------------------------------------------------------------------------------


class CrossEntropy(Function):
    """l = log sum e^t - sum q t = -sum q log p over axis 1,   p = softmax(t).   dt = g (p - q).

    q is 1 - s at the label plus s / C everywhere; ignored positions have l = 0 and dt = 0.
    """

    saves = ("logits",)
    labels: Array  # (N,*spatial), each in [0, C) or `ignore_index`
    ignore_index: int
    smoothing: float

    def forward(self, logits: Array) -> Array:
        return self.kernels.cross_entropy(logits, self.labels, self.ignore_index, self.smoothing)

    def backward(self, g: Any, logits: Any) -> Any:
        if not isinstance(g, Tensor):
            return self.kernels.cross_entropy_backward(
                g, logits, self.labels, self.ignore_index, self.smoothing
            )
        index, valid = _without_ignored(self.labels, self.ignore_index)
        hot = _one_hot(self.xp, index, logits.shape[1]).astype(logits.dtype)
        q = hot * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        weight = g * valid.astype(logits.dtype)
        return (Softmax.on(logits, axis=1) - q) * weight.reshape(_with_class_axis(weight.shape))


class NllLoss(Function):
    """l = -x at the label along axis 1, 0 where ignored.   dx = -g there.   Linear in x."""

    labels: Array  # (N,*spatial), each in [0, C); anything where not `valid`
    valid: Array  # (N,*spatial), booleans

    def forward(self, x: Array) -> Array:
        self.classes = x.shape[1]
        at_label = self.xp.take_along_axis(x, self.labels[:, None], axis=1)[:, 0]
        return self.xp.where(self.valid, -at_label, 0).astype(x.dtype, copy=False)

    def backward(self, g: Any) -> Any:
        taken = _one_hot(self.xp, self.labels, self.classes) & self.valid[:, None]
        return g.reshape(_with_class_axis(g.shape)) * -taken.astype(g.dtype)


def cross_entropy(
    input: Tensor,
    target: Tensor | Array,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log of the probability that softmax(input) gives to the right class.

    Parameters
    ----------
    input : logits (N,C,*spatial), before any softmax.
    target : integer labels (N,*spatial) in [0, C).
    ignore_index : positions with this label count for nothing.
    reduction : "mean" over the positions that count (0 if there are none), "sum" or "none".
    label_smoothing : share s of the target spread evenly over all classes.

    Warns
    -----
    UserWarning
        when every row of `input` is a probability distribution: a softmax too many.
    """
    if not 0 <= label_smoothing <= 1:
        raise UsageError(f"cross_entropy: label_smoothing {label_smoothing} is not in [0, 1]")
    labels, count = _labels("cross_entropy", input, target, ignore_index)
    _warn_about_probabilities(input.data)
    options = {"labels": labels, "ignore_index": ignore_index, "smoothing": float(label_smoothing)}
    return _reduce("cross_entropy", CrossEntropy.apply(input, **options), reduction, count)


def nll_loss(
    input: Tensor, target: Tensor | Array, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-input at the label, for log-probabilities (N,C,*spatial) such as log_softmax gives.

    Parameters as for `cross_entropy`, which is log_softmax and nll_loss in one.
    """
    labels, count = _labels("nll_loss", input, target, ignore_index)
    index, valid = _without_ignored(labels, ignore_index)
    loss = NllLoss.apply(input, labels=index, valid=valid)
    return _reduce("nll_loss", loss, reduction, count)


# Distances -------------------------------------------------------------------------------------


def mse_loss(input: Tensor, target: Tensor | Array | float, *, reduction: str = "mean") -> Tensor:
    """(input - target)^2."""
    y = _like("mse_loss", input, target)
    return _loss("mse_loss", "mse", input, y, 1.0, reduction)


def l1_loss(input: Tensor, target: Tensor | Array | float, *, reduction: str = "mean") -> Tensor:
    """|input - target|, with derivative 0 at 0."""
    return _loss("l1_loss", "l1", input, _like("l1_loss", input, target), 1.0, reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor | Array | float,
    *,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d^2 / (2 beta) where d = |input - target| < beta, else d - beta / 2."""
    if beta <= 0:
        raise UsageError(f"smooth_l1_loss: beta must be positive, not {beta}", fix="use l1_loss")
    d = (input - _spread(input, _like("smooth_l1_loss", input, target))).abs()
    near = clamp(d, high=beta)
    return _reduce("smooth_l1_loss", near * (d - near * 0.5) * (1 / beta), reduction)


def huber_loss(
    input: Tensor,
    target: Tensor | Array | float,
    *,
    reduction: str = "mean",
    delta: float = 1.0,
) -> Tensor:
    """d^2 / 2 where d = |input - target| < delta, else delta (d - delta / 2)."""
    return smooth_l1_loss(input, target, reduction=reduction, beta=delta) * delta


def kl_normal(mu: Tensor, logvar: Tensor, *, reduction: str = "sum") -> Tensor:
    """KL divergence of N(mu, e^logvar) from N(0, 1): -sum (1 + logvar - mu^2 - e^logvar) / 2.

    Parameters
    ----------
    mu, logvar : mean and log-variance that an encoder gives, of one shape.
    reduction : "sum" over all elements, as variational autoencoders and SPADE have it.
    """
    _same_shape("kl_normal", mu, logvar)
    return _reduce("kl_normal", (mu.square() + _exp(logvar) - logvar - 1.0) * 0.5, reduction)


# Common parts ----------------------------------------------------------------------------------


def _reduce(name: str, loss: Tensor, reduction: str, count: int | None = None) -> Tensor:
    """Mean over `count` elements (all by default), sum, or the losses themselves."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction != "mean":
        raise UsageError(
            f"{name}: unknown reduction '{reduction}'", fix="use 'mean', 'sum' or 'none'"
        )
    count = loss.size if count is None else count
    if loss.size == 0:
        raise ShapeError(f"{name}: the mean over no elements", where=f"shape {loss.shape}")
    return loss.mean() if count == loss.size else loss.sum() / max(count, 1)


def _like(name: str, input: Tensor, target: Tensor | Array | float) -> Tensor | float:
    """The target as a Tensor of the input's shape, or as a number for all elements."""
    if not isinstance(input, Tensor):
        raise not_tensors(name, [input])
    if isinstance(target, int | float | np.generic):
        return float(target)
    y = target if isinstance(target, Tensor) else Tensor(target)
    _same_shape(name, input, y)
    return y


def _spread(input: Tensor, target: Tensor | float) -> Tensor:
    """A target of the input's shape."""
    if isinstance(target, float):
        return Tensor(backend_of(input.data).xp.full(input.shape, target, input.dtype))
    return target


def _same_shape(name: str, input: Tensor, target: Tensor) -> None:
    if input.shape == target.shape:
        return
    why = "losses do not broadcast"
    if sorted((input.ndim, target.ndim)) == [1, 2] and 1 in (input.shape + target.shape)[1:]:
        why += ": (N,) against (N, 1) would silently compare every element with every other, N x N"
    raise ShapeError(
        f"{name}: input has shape {input.shape}, target {target.shape}",
        why=why,
        fix="reshape one of them, or pass a single number as the target",
    )


def _labels(
    name: str, input: Tensor, target: Tensor | Array, ignore_index: int
) -> tuple[Array, int]:
    """A copy of the labels, and how many positions count."""
    if not isinstance(input, Tensor):
        raise not_tensors(name, [input])
    labels = beside(target.data if isinstance(target, Tensor) else target, input.data)
    if labels.dtype.kind not in "iu":
        raise DtypeError(
            f"{name}: the labels have dtype {labels.dtype}",
            fix="pass class numbers as integers; probabilities as targets are not supported",
        )
    expected = (*input.shape[:1], *input.shape[2:])
    if input.ndim < 2 or labels.shape != expected:
        raise ShapeError(
            f"{name}: labels {labels.shape} do not fit the input {input.shape}",
            why="the class axis of the input is axis 1",
            fix=f"labels must have shape {expected}" if input.ndim > 1 else "add a class axis",
        )
    classes = input.shape[1]
    plain = not 0 <= ignore_index < classes  # then labels in [0, C) all count
    if recording.current() is not None:  # nothing can be read; the kernels answer others with NaN
        return labels.astype(np.int64, copy=False), labels.size
    if plain and labels.size and labels.min() >= 0 and labels.max() < classes:
        return labels.astype(np.int64), labels.size
    valid = labels != ignore_index
    wrong = valid & ((labels < 0) | (labels >= classes))
    if wrong.any():
        place = tuple(int(i[0]) for i in np.nonzero(wrong))
        index = place[0] if len(place) == 1 else place
        raise UsageError(
            f"{name}: label {labels[place]} at index {index} is not one of {classes} classes",
            why=f"labels run from 0 to {classes - 1}",
            fix=f"correct the data or the number of classes; mark pixels to skip with "
            f"ignore_index ({ignore_index} here)",
        )
    return labels.astype(np.int64), int(valid.sum())


def _without_ignored(labels: Array, ignore_index: int) -> tuple[Array, Array]:
    """Labels with 0 at ignored positions, and which positions count."""
    valid = labels != ignore_index
    return np.where(valid, labels, 0), valid


def _one_hot(xp: Any, labels: Array, classes: int) -> Array:
    """(N,C,*spatial): true where the class is the label."""
    numbers = xp.arange(classes).reshape(1, -1, *[1] * (labels.ndim - 1))
    hot: Array = labels[:, None] == numbers
    return hot


def _warn_about_probabilities(x: Array) -> None:
    """Logits hardly ever lie in [0, 1] and add up to 1: that is a softmax before the loss.

    Numbers of a device are not looked at: that would mean to wait for them.
    """
    if not isinstance(x, np.ndarray) or x.size == 0 or x.shape[1] < 2:
        return
    place: Any = (0, slice(None), *[0] * (x.ndim - 2))
    first = x[place]  # nearly always tells
    if first.min() < 0 or first.max() > 1 or abs(first.sum() - 1) > 2e-4:
        return
    if x.min() < 0 or x.max() > 1 or not np.allclose(x.sum(axis=1), 1, atol=1e-4):
        return
    warnings.warn(
        "cross_entropy: every row of the input adds up to 1 and lies in [0, 1]; it takes logits, "
        "so leave out the softmax before it",
        stacklevel=3,
    )


def _with_class_axis(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], 1, *shape[1:])
