"""Numeric checks of derivatives, for our operations and for yours.

`gradcheck` compares analytic derivatives of any order with finite differences along random
directions; `adjoint` checks that a linear operation and its gradient are transposes. Both work in
float64 and raise `CheckFailed` with the place of the worst disagreement.

    mg.check.gradcheck(lambda x, w: F.conv2d(x, w).tanh(), [x, w], order=3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minigan.autograd import grad
from minigan.backend import Array
from minigan.errors import DtypeError, MiniganError
from minigan.random import generator
from minigan.tensor import Tensor

STEP = 1e-4  # of the four-point stencil: truncation and rounding both near 1e-12


class CheckFailed(MiniganError, AssertionError):
    """An analytic derivative and a numeric one disagree."""


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Sequence[Tensor | Array],
    order: int = 2,
    rtol: float = 1e-8,
    seed: int = 0,
) -> bool:
    """Check the derivatives of `fn` at `inputs`, orders 1 to `order`.

    The derivative of s(t) = <fn(x + t v), c> with random direction v and cotangent c is compared
    with a four-point difference; the check of order k + 1 is the check of order 1 on the function
    (x, c) -> <gradient of order k, random>.

    Parameters
    ----------
    fn : takes as many tensors as there are `inputs`, returns one Tensor; no randomness inside.
    inputs : float64 tensors or arrays, away from kinks by more than 1e-3.
    order : highest derivative to check.
    rtol : allowed difference relative to the sum of |gradient * direction|.
    seed : of directions and cotangents.

    Raises
    ------
    CheckFailed
        with the order, both values, and the input element that is most wrong.
    """
    arrays = [_float64(x) for x in inputs]
    rng = generator(seed, "gradcheck", order)
    cotangent = rng.standard_normal(fn(*[Tensor(a) for a in arrays]).shape)
    _check_order(fn, arrays, cotangent, rtol, rng, 1, order)
    return True


def _check_order(
    fn: Callable[..., Tensor],
    arrays: list[Array],
    cotangent: Array,
    rtol: float,
    rng: np.random.Generator,
    level: int,
    order: int,
) -> None:
    def value(points: Sequence[Array]) -> Array:
        return fn(*[Tensor(p) for p in points]).data * cotangent

    analytic = _gradient(fn, arrays, cotangent)
    directions = [rng.standard_normal(a.shape) for a in arrays]
    numeric = _derivative(value, arrays, directions)
    parts = [(g * v).sum() for g, v in zip(analytic, directions, strict=True)]
    size = sum(np.abs(g * v).sum() for g, v in zip(analytic, directions, strict=True))
    floor = 1e-11 * float(np.abs(value(arrays)).sum())  # rounding of the stencil itself
    error = abs(float(sum(parts)) - numeric)
    if not error <= rtol * max(float(size), abs(numeric)) + floor:
        _report(value, arrays, analytic, level, float(sum(parts)), numeric)
    if level == order:
        return
    weights = [rng.standard_normal(a.shape) for a in arrays]

    def next_fn(*points: Tensor) -> Tensor:
        *xs, c = points
        leaves = [x if x.requires_grad else _leaf(x.data) for x in xs]
        grads = grad(fn(*leaves), leaves, c, create_graph=True)
        total = (c * 0.0).sum()
        for g, w in zip(grads, weights, strict=True):
            if g is not None:
                total = total + (g * w).sum()
        return total

    _check_order(next_fn, [*arrays, cotangent], np.ones(()), rtol, rng, level + 1, order)


def _gradient(fn: Callable[..., Tensor], arrays: list[Array], cotangent: Array) -> list[Array]:
    leaves = [_leaf(a) for a in arrays]
    y = fn(*leaves)
    if not y.requires_grad:
        return [np.zeros_like(a) for a in arrays]
    grads = grad(y, leaves, cotangent)
    return [np.zeros_like(a) if g is None else g.data for g, a in zip(grads, arrays, strict=True)]


def _derivative(
    value: Callable[[Sequence[Array]], Array], arrays: list[Array], directions: list[Array]
) -> float:
    """d/dt of sum(value(x + t v)) at 0: (8 (s(h) - s(-h)) - (s(2h) - s(-2h))) / 12 h."""

    def s(t: float) -> Array:
        return value([a + t * v for a, v in zip(arrays, directions, strict=True)])

    near, far = s(STEP) - s(-STEP), s(2 * STEP) - s(-2 * STEP)  # differences before sums
    return float(((8 * near - far) / (12 * STEP)).sum())


def _report(
    value: Callable[[Sequence[Array]], Array],
    arrays: list[Array],
    analytic: list[Array],
    level: int,
    ours: float,
    numeric: float,
) -> None:
    worst = (0.0, 0, (), 0.0, 0.0)
    for i, a in enumerate(arrays):
        for index in np.ndindex(a.shape):
            directions = [np.zeros_like(b) for b in arrays]
            directions[i][index] = 1.0
            slope = _derivative(value, arrays, directions)
            error = abs(slope - analytic[i][index])
            if error > worst[0] or not np.isfinite(error):
                worst = (error, i, index, float(analytic[i][index]), slope)  # type: ignore[assignment]
    _, i, index, mine, slope = worst
    raise CheckFailed(
        f"gradcheck: derivative of order {level} is {ours:.10g}, finite differences say "
        f"{numeric:.10g}",
        where=f"worst at input {i}{list(index)}: {mine:.10g} against {slope:.10g}",
        why="the backward (or, at order 2 and more, the backward of the backward) is wrong, "
        "or the inputs lie on a kink",
    )


def adjoint(fn: Callable[[Tensor], Tensor], x: Tensor | Array, rtol: float = 1e-12) -> bool:
    """Check <fn(x), y> = <x, gradient of fn at y> for an `fn` that is linear in x.

    Parameters
    ----------
    fn : linear function of one tensor.
    x : where to evaluate; y is drawn at random.
    rtol : allowed difference relative to the sum of |products|.
    """
    leaf = _leaf(_float64(x))
    out = fn(leaf)
    y = generator(0, "adjoint", 0).standard_normal(out.shape)
    (g,) = grad(out, leaf, y)
    left, right = out.data * y, leaf.data * (0.0 if g is None else g.data)
    scale = max(float(np.abs(left).sum()), float(np.abs(right).sum()))
    if not abs(float(left.sum()) - float(right.sum())) <= rtol * scale:
        raise CheckFailed(
            f"adjoint: <f(x), y> = {left.sum():.15g} but <x, f'(y)> = {right.sum():.15g}",
            why="the gradient of a linear operation must be its transpose",
        )
    return True


def _leaf(array: Array) -> Tensor:
    leaf = Tensor(array)
    leaf.requires_grad = True
    return leaf


def _float64(x: Any) -> Array:
    array = x.data if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype != np.float64:
        raise DtypeError(
            f"gradcheck: inputs must be float64, not {array.dtype}",
            why="finite differences need the digits",
            fix="convert them with .astype('float64')",
        )
    return array
