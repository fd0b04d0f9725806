"""Sums, means, extremes and lengths over axes."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minigan.autograd import Function
from minigan.backend import CPU, Array, as_array
from minigan.errors import ShapeError
from minigan.ops.elementwise import Sqrt
from minigan.ops.shape import BroadcastTo
from minigan.tensor import Axis, Tensor

LARGE = 1 << 15  # numbers from which the kernels' threads beat NumPy's one


class Reduce(Function):
    """Common part: which axes go, and how a result spreads back over them."""

    axis: Axis
    keepdims: bool

    def shapes(self, x: Array) -> tuple[int, ...]:
        self.source = x.shape
        self.axes = axes = normalize_axes(type(self).__name__.lower(), self.axis, x.ndim)
        self.kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        return axes

    def spread(self, g: Any) -> Any:
        return BroadcastTo.on(g.reshape(self.kept), shape=self.source)

    def total(self, x: Array, axes: tuple[int, ...]) -> Array:
        if x.size < LARGE and self.backend is CPU:
            return as_array(x.sum(axis=axes, keepdims=self.keepdims, dtype=x.dtype))
        y: Array = self.kernels.axis_sum(x, axes)
        return y.reshape(self.kept) if self.keepdims else y

    def forward(self, x: Array) -> Array:
        raise ShapeError("Reduce is the common part of Sum, Mean and Max; apply one of those")


class Sum(Reduce):
    """y = sum of x over axes.   dx = g, repeated along them."""

    def forward(self, x: Array) -> Array:
        return self.total(x, self.shapes(x))

    def backward(self, g: Any) -> Any:
        return self.spread(g)


class Mean(Reduce):
    """y = mean of x over axes of n elements.   dx = g / n, repeated along them."""

    def forward(self, x: Array) -> Array:
        axes = self.shapes(x)
        self.n = math.prod(x.shape[i] for i in axes)
        if x.size < LARGE and self.backend is CPU:
            return as_array(x.mean(axis=axes, keepdims=self.keepdims, dtype=x.dtype))
        return as_array(self.total(x, axes) / x.dtype.type(self.n))

    def backward(self, g: Any) -> Any:
        return self.spread(g / self.n)


class Max(Reduce):
    """y = max of x over axes.   The largest element takes g; equal ones share it evenly."""

    def forward(self, x: Array) -> Array:
        axes = self.shapes(x)
        y = x.max(axis=axes, keepdims=True)
        winners = (x == y).astype(x.dtype)
        self.share = winners / winners.sum(axis=axes, keepdims=True)
        return as_array(y if self.keepdims else y.reshape(_drop(x.shape, axes)))

    def backward(self, g: Any) -> Any:
        return self.spread(g) * self.share


class Norm(Reduce):
    """y = sqrt(sum x^2) over axes.   dx = g x / y, and 0 where y = 0.

    The mask keeps the second derivative 0 there as well, where sqrt alone would give NaN: the
    usual cause of NaN in gradient penalties.
    """

    saves = ("x", "out")

    def forward(self, x: Array) -> Array:
        axes = self.shapes(x)
        y = np.sqrt((x * x).sum(axis=axes, keepdims=True))
        self.positive = (y > 0).astype(x.dtype)
        return as_array(y if self.keepdims else y.reshape(_drop(x.shape, axes)))

    def backward(self, g: Any, x: Any, out: Any) -> Any:
        length = out.reshape(self.kept) + (1 - self.positive)
        return x * self.spread(g.reshape(self.kept) * self.positive / length)


class CumSum(Function):
    """y_i = x_0 + ... + x_i along an axis.   dx_i = g_i + ... + g_last."""

    axis: int

    def forward(self, x: Array) -> Array:
        return np.cumsum(x, axis=self.axis, dtype=x.dtype)

    def backward(self, g: Any) -> Any:
        back = (slice(None),) * (self.axis % g.ndim) + (slice(None, None, -1),)
        return CumSum.on(g[back], axis=self.axis)[back]


def normalize_axes(name: str, axis: Axis, ndim: int) -> tuple[int, ...]:
    """Axes as a sorted tuple of numbers >= 0."""
    if axis is None:
        return tuple(range(ndim))
    axes = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    if any(not -ndim <= a < ndim for a in axes) or len({a % ndim for a in axes}) != len(axes):
        raise ShapeError(f"{name}: axis {axis} is not valid for a tensor of {ndim} axes")
    return tuple(sorted(int(a) % ndim for a in axes))


def _drop(shape: Sequence[int], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def _check_not_empty(name: str, x: Tensor, axis: Axis) -> None:
    axes = normalize_axes(name, axis, x.ndim)
    if builtins.any(x.shape[i] == 0 for i in axes):
        raise ShapeError(
            f"{name}: no elements along axes {axes} of {x.shape}",
            why="it is not defined for nothing",
        )


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis` (all axes by default)."""
    return Sum.apply(x, axis=axis, keepdims=keepdims)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis` (all axes by default)."""
    _check_not_empty("mean", x, axis)
    return Mean.apply(x, axis=axis, keepdims=keepdims)


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Tensor:
    """Mean squared distance from the mean; n - correction in the denominator (torch's default 1).

    Two passes, so a large mean costs no accuracy.
    """
    _check_not_empty("var", x, axis)
    axes = normalize_axes("var", axis, x.ndim)
    n = math.prod(x.shape[i] for i in axes)
    if n <= correction:
        raise ShapeError(
            f"var: {n} elements along axes {axes} of {x.shape}, correction {correction}",
            fix="use correction=0 for the biased variance",
        )
    centred = x - Mean.apply(x, axis=axes, keepdims=True)
    return Sum.apply(centred * centred, axis=axes, keepdims=keepdims) / (n - correction)


def std(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Tensor:
    """Square root of `var`."""
    return Sqrt.apply(var(x, axis, keepdims, correction))


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Largest element over `axis`; equal ones share the gradient evenly."""
    _check_not_empty("max", x, axis)
    return Max.apply(x, axis=axis, keepdims=keepdims)


def min(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Smallest element over `axis`; equal ones share the gradient evenly."""
    return -max(-x, axis, keepdims)


def norm(x: Tensor, axis: Axis = None, keepdims: bool = False, eps: float = 0.0) -> Tensor:
    """Euclidean length sqrt(sum x^2 + eps) over `axis`.

    With eps = 0 the gradient and the second derivative at the origin are 0.
    """
    if eps:
        return Sqrt.apply(Sum.apply(x * x, axis=axis, keepdims=keepdims) + eps)
    return Norm.apply(x, axis=axis, keepdims=keepdims)


def cumsum(x: Tensor, axis: int) -> Tensor:
    """Running sum along `axis`."""
    (axis,) = normalize_axes("cumsum", axis, x.ndim)
    return CumSum.apply(x, axis=axis)


def argmax(x: Tensor, axis: int | None = None) -> Tensor:
    """Position of the first largest element; an integer constant."""
    _check_not_empty("argmax", x, axis)
    return Tensor(as_array(x.data.argmax(axis=axis)))
