"""Softmax, its logarithm, and the logarithm of a sum of exponentials."""

from __future__ import annotations

from typing import Any

from minigan.autograd import Function
from minigan.backend import Array
from minigan.errors import ShapeError, not_tensors
from minigan.ops.elementwise import Exp
from minigan.tensor import Tensor


def _shifted_powers(xp: Any, x: Array, axis: int) -> tuple[Array, Array]:
    """(m, e^(x - m)) with the maximum m, so that nothing overflows; m = 0 where all are -inf."""
    top = x.max(axis=axis, keepdims=True)
    top = xp.where(top == -xp.inf, 0, top).astype(x.dtype, copy=False)
    return top, xp.exp(x - top)


class Softmax(Function):
    """y = e^x / sum e^x along an axis.   dx = y (g - sum g y).

    Where all x are -infinity (a row that is wholly masked) y is 0.
    """

    saves = ("out",)
    axis: int

    def forward(self, x: Array) -> Array:
        return self.kernels.softmax(x, self.axis)

    def backward(self, g: Any, out: Any) -> Any:
        if not isinstance(g, Tensor):
            return self.kernels.softmax_backward(g, out, self.axis)
        weighted = g * out
        return weighted - out * weighted.sum(axis=self.axis, keepdims=True)


class LogSoftmax(Function):
    """y = x - log sum e^x along an axis.   dx = g - e^y sum g."""

    saves = ("out",)
    axis: int

    def forward(self, x: Array) -> Array:
        return self.kernels.log_softmax(x, self.axis)

    def backward(self, g: Any, out: Any) -> Any:
        if not isinstance(g, Tensor):
            return self.kernels.log_softmax_backward(g, out, self.axis)
        return g - Exp.on(out) * g.sum(axis=self.axis, keepdims=True)


class LogSumExp(Function):
    """y = log sum e^x along an axis, which stays with length 1.   dx = g e^(x - y)."""

    saves = ("x",)
    axis: int

    def forward(self, x: Array) -> Array:
        top, powers = _shifted_powers(self.xp, x, self.axis)
        return top + self.xp.log(powers.sum(axis=self.axis, keepdims=True))

    def backward(self, g: Any, x: Any) -> Any:
        return g * Softmax.on(x, axis=self.axis)


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """e^x / sum e^x along axis `dim`: positive numbers that add up to 1.

    Cross entropy takes logits: never put a softmax before it.
    """
    return Softmax.apply(x, axis=_axis("softmax", x, dim))


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """log(softmax(x)), without taking the logarithm of a rounded 0."""
    return LogSoftmax.apply(x, axis=_axis("log_softmax", x, dim))


def logsumexp(x: Tensor, dim: int = -1, keepdims: bool = False) -> Tensor:
    """log sum e^x along axis `dim`."""
    axis = _axis("logsumexp", x, dim)
    y = LogSumExp.apply(x, axis=axis)
    return y if keepdims else y.reshape(x.shape[:axis] + x.shape[axis + 1 :])


def _axis(name: str, x: Tensor, dim: int) -> int:
    if not isinstance(x, Tensor):
        raise not_tensors(name, [x])
    if not -x.ndim <= dim < x.ndim:
        raise ShapeError(f"{name}: axis {dim} does not exist in a tensor of {x.ndim} axes")
    if x.shape[dim] == 0:
        raise ShapeError(f"{name}: axis {dim} of {x.shape} is empty")
    return dim % x.ndim
