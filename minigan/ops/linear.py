"""Matrix products."""

from __future__ import annotations

from typing import Any

from minigan.autograd import Function
from minigan.backend import Array
from minigan.errors import ShapeError
from minigan.ops.shape import reshape, sum_to
from minigan.tensor import Tensor


def _swap(x: Any) -> Any:
    """x with its last two axes exchanged. Arrays or Tensors."""
    return x.transpose((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


class MatMul(Function):
    """z = a b for stacks of matrices.   da = g b^T,   db = a^T g."""

    saves = ("a", "b")

    def forward(self, a: Array, b: Array) -> Array:
        return self.kernels.matmul(a, b)

    def backward(self, g: Any, a: Any, b: Any) -> Any:
        product = matmul if isinstance(g, Tensor) else self.kernels.matmul
        return (
            sum_to(product(g, _swap(b)), a.shape) if self.needs[0] else None,
            sum_to(product(_swap(a), g), b.shape) if self.needs[1] else None,
        )


class Linear(Function):
    """y = x W^T + b.   dx = g W,   dW = g^T x,   db = sum of g over rows."""

    saves = ("x", "weight")

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        y = self.kernels.matmul(x, weight.T)
        if bias is not None:
            y += bias
        return y

    def backward(self, g: Any, x: Any, weight: Any) -> Any:
        product = matmul if isinstance(g, Tensor) else self.kernels.matmul
        return (
            product(g, weight) if self.needs[0] else None,
            product(g.transpose((1, 0)), x) if self.needs[1] else None,
            g.sum(axis=0) if self.needs[2] else None,
        )


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Matrix product of the last two axes; leading axes are equal, or of length 1 on one side.

    A 2-d right side multiplies every matrix of a stack on the left.
    """
    fits = (
        x.ndim >= 2
        and y.ndim >= 2
        and x.shape[-1] == y.shape[-2]
        and (x.ndim == y.ndim or y.ndim == 2)
        and all(m == n or 1 in (m, n) for m, n in zip(x.shape[:-2], y.shape[:-2], strict=False))
    )
    if not fits:
        raise ShapeError(
            f"matmul: {x.shape} and {y.shape} do not multiply",
            why="(..., n, k) times (..., k, m) needs equal k and matching leading axes",
            fix="transpose or reshape one side; vectors need two axes, (n, 1) or (1, n)",
        )
    if x.ndim > 2 and y.ndim == 2:
        flat = MatMul.apply(reshape(x, (-1, x.shape[-1])), y) if x.size else None
        if flat is not None:
            return reshape(flat, (*x.shape[:-1], y.shape[-1]))
        y = reshape(y, (1,) * (x.ndim - 2) + y.shape)
    return MatMul.apply(x, y)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b on the last axis.

    Parameters
    ----------
    x : (..., in)
    weight : (out, in)
    bias : (out,)
    """
    fits = (
        x.ndim >= 1
        and weight.ndim == 2
        and x.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
    )
    if not fits:
        raise ShapeError(
            f"linear: input has {x.shape[-1] if x.ndim else 0} features, "
            f"weight {weight.shape} expects {weight.shape[-1] if weight.ndim else 0}",
            where=f"input {x.shape}, weight {weight.shape}, "
            f"bias {None if bias is None else bias.shape}",
            why="weight is (out_features, in_features), bias (out_features,)",
            fix="build the layer with in_features equal to the last axis of its input",
        )
    if x.ndim == 2:
        return Linear.apply(x, weight, bias)
    rows = x.size // weight.shape[1] if weight.shape[1] else 0
    flat = Linear.apply(reshape(x, (rows, weight.shape[1])), weight, bias)
    return reshape(flat, (*x.shape[:-1], weight.shape[0]))
