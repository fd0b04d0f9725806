"""Arithmetic and elementary functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from opspec import Array, Case, OpSpec
from strategies import (
    Draw,
    broadcast_shapes,
    cases,
    distinct,
    masks,
    nonzero,
    positive,
    rngs,
    shapes,
    values,
)

import minigan.functional as F
from minigan.tensor import Tensor

Values = Callable[[np.random.Generator, Sequence[int]], Array]


def unary(make: Values = values) -> st.SearchStrategy[Case]:
    return st.builds(lambda rng, shape: Case((make(rng, shape),)), rngs(), shapes(0, 3))


def binary(left: Values = values, right: Values = values) -> st.SearchStrategy[Case]:
    @cases
    def pair(draw: Draw, rng: np.random.Generator) -> Case:
        a, b = draw(broadcast_shapes())
        return Case((left(rng, a), right(rng, b)))

    return pair


def away_from(*kinks: float) -> Values:
    return lambda rng, shape: values(rng, shape, kinks=kinks)


@cases
def scalar_operand(draw: Draw, rng: np.random.Generator) -> Case:
    """A tensor of any rank and a 0-d tensor: the one pair whose ranks may differ."""
    return Case((values(rng, draw(shapes(1, 3))), nonzero(rng, ())))


@cases
def numbers(draw: Draw, rng: np.random.Generator) -> Case:
    c = draw(st.sampled_from([2, -3, 0.5, -1.25, np.float64(1.5), np.float32(0.25), np.int64(3)]))
    return Case((nonzero(rng, draw(shapes(0, 3))),), {"c": c})


@cases
def powers(draw: Draw, rng: np.random.Generator) -> Case:
    exponent = draw(st.sampled_from([0, 1, 2, 3, -1, -2, 0.5, 1.5, -0.7]))
    make = positive if isinstance(exponent, float) else nonzero
    return Case((make(rng, draw(shapes(0, 3))),), {"exponent": exponent})


@cases
def ties_apart(draw: Draw, rng: np.random.Generator) -> Case:
    """Two operands that are nowhere nearly equal."""
    a_shape, b_shape = draw(broadcast_shapes())
    a, b = distinct(rng, (2, 64))
    a, b = rng.permutation(a), rng.permutation(b)
    return Case(
        (
            a[: np.prod(a_shape, dtype=int)].reshape(a_shape),
            b[: np.prod(b_shape, dtype=int)].reshape(b_shape),
        )
    )


@cases
def choices(draw: Draw, rng: np.random.Generator) -> Case:
    mask_shape, a, b = draw(broadcast_shapes(3))
    return Case((values(rng, a), values(rng, b)), {"mask": masks(rng, mask_shape)})


@cases
def limits(draw: Draw, rng: np.random.Generator) -> Case:
    low, high = draw(st.sampled_from([(-1.0, 1.5), (None, 0.5), (-0.5, None), (0.25, 0.75)]))
    kinks = [k for k in (low, high) if k is not None]
    return Case((values(rng, draw(shapes(0, 3)), kinks=kinks),), {"low": low, "high": high})


@cases
def blends(draw: Draw, rng: np.random.Generator) -> Case:
    a, b, w = draw(broadcast_shapes(3))
    return Case((values(rng, a), values(rng, b), values(rng, w)))


@cases
def blends_by_number(draw: Draw, rng: np.random.Generator) -> Case:
    a, b = draw(broadcast_shapes(2))
    return Case((values(rng, a), values(rng, b)), {"weight": draw(st.sampled_from([0, 0.3, 1]))})


def ours_where(a: Tensor, b: Tensor, mask: Any) -> Tensor:
    return F.where(mask, a, b)


SPECS = [
    OpSpec("add", F.add, np.add, binary(), linear=(0, 1)),
    OpSpec("sub", F.sub, np.subtract, binary(), linear=(0, 1)),
    OpSpec("mul", F.mul, np.multiply, binary(), linear=(0, 1)),
    OpSpec("div", F.div, np.divide, binary(right=nonzero), linear=(0,)),
    OpSpec("add-scalar-tensor", F.add, np.add, scalar_operand, linear=(0, 1)),
    OpSpec("mul-scalar-tensor", F.mul, np.multiply, scalar_operand, linear=(0, 1)),
    OpSpec("div-scalar-tensor", F.div, np.divide, scalar_operand, linear=(0,)),
    OpSpec("neg", F.neg, np.negative, unary(), linear=(0,)),
    OpSpec("shift", lambda x, c: x + c, lambda x, c: x + float(c), numbers, linear=(0,)),
    OpSpec("scale", lambda x, c: x * c, lambda x, c: x * float(c), numbers, linear=(0,)),
    OpSpec("number-minus", lambda x, c: c - x, lambda x, c: float(c) - x, numbers, linear=(0,)),
    OpSpec("number-over", lambda x, c: c / x, lambda x, c: float(c) / x, numbers),
    OpSpec("over-number", lambda x, c: x / c, lambda x, c: x / float(c), numbers, linear=(0,)),
    OpSpec(
        "pow-number",
        lambda x, exponent: x**exponent,
        lambda x, exponent: x ** float(exponent),
        powers,
    ),
    OpSpec("pow", F.pow, np.power, binary(positive, values)),
    OpSpec("number-pow", lambda x, c: np.abs(c) ** x, lambda x, c: np.abs(float(c)) ** x, numbers),
    OpSpec("exp", F.exp, np.exp, unary()),
    OpSpec("expm1", F.expm1, np.expm1, unary()),
    OpSpec("log", F.log, np.log, unary(positive)),
    OpSpec("log1p", F.log1p, np.log1p, unary(positive)),
    OpSpec("sqrt", F.sqrt, np.sqrt, unary(positive)),
    OpSpec("rsqrt", F.rsqrt, lambda x: x**-0.5, unary(positive)),
    OpSpec("square", F.square, lambda x: x * x, unary()),
    OpSpec("abs", F.abs, np.abs, unary(away_from(0))),
    # 1 - y^2 cancels where y is near 1: the slope loses two digits in float32.
    OpSpec("tanh", F.tanh, np.tanh, unary(), float32_slack=8),
    OpSpec("sin", F.sin, np.sin, unary()),
    OpSpec("cos", F.cos, np.cos, unary()),
    OpSpec("maximum", F.maximum, np.maximum, ties_apart),
    OpSpec("minimum", F.minimum, np.minimum, ties_apart),
    OpSpec("where", ours_where, lambda a, b, mask: np.where(mask, a, b), choices, linear=(0, 1)),
    OpSpec("clamp", F.clamp, lambda x, low, high: np.clip(x, low, high), limits),
    OpSpec("lerp", F.lerp, lambda a, b, w: a + w * (b - a), blends, linear=(0, 1, 2)),
    OpSpec(
        "lerp-number",
        F.lerp,
        lambda a, b, weight: a + weight * (b - a),
        blends_by_number,
        linear=(0, 1),
    ),
    OpSpec("sign", F.sign, np.sign, unary(away_from(0)), order=0),
]
