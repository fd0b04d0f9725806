"""Sums, means, extremes and lengths over axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from opspec import Array, Case, OpSpec
from strategies import Draw, axes, cases, distinct, shapes, values

import minigan.functional as F


def over_axes(make: Any = values, min_side: int = 1) -> st.SearchStrategy[Case]:
    @cases
    def reduction(draw: Draw, rng: np.random.Generator) -> Case:
        shape = draw(shapes(0 if min_side == 1 else 1, 3, min_side))
        options = {"axis": draw(axes(len(shape))), "keepdims": draw(st.booleans())}
        return Case((make(rng, shape),), options)

    return reduction


@cases
def spreads(draw: Draw, rng: np.random.Generator) -> Case:
    """Two elements or more along every axis, so that either correction leaves a denominator."""
    shape = draw(shapes(1, 3, 2))
    options = {"axis": draw(axes(len(shape))), "keepdims": draw(st.booleans())}
    options["correction"] = draw(st.sampled_from([0, 1]))
    return Case((distinct(rng, shape),), options)  # distinct: std has no derivative at 0


@cases
def one_axis(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(1, 3))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return Case((distinct(rng, shape),), {"axis": axis})


@cases
def lengths(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(1, 3))
    options = {"axis": draw(axes(len(shape))), "keepdims": draw(st.booleans())}
    x = values(rng, shape, 0.3, 3.0) * rng.choice([-1.0, 1.0], shape)  # no length is near 0
    return Case((x,), {**options, "eps": draw(st.sampled_from([0.0, 1e-2]))})


def reference_var(x: Array, axis: Any, keepdims: bool, correction: int) -> Array:
    return np.asarray(np.var(x, axis=axis, keepdims=keepdims, ddof=correction))


def reference_norm(x: Array, axis: Any, keepdims: bool, eps: float) -> Array:
    return np.asarray(np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims) + eps))


SPECS = [
    OpSpec("sum", F.sum, np.sum, over_axes(), linear=(0,)),
    OpSpec("mean", F.mean, np.mean, over_axes(), linear=(0,)),
    OpSpec("var", F.var, reference_var, spreads),
    # A row repeated by the "broadcast" layout has no spread, and std no slope there.
    OpSpec(
        "std",
        F.std,
        lambda *a, **k: np.sqrt(reference_var(*a, **k)),
        spreads,
        layouts=("transposed", "reversed", "sliced", "fortran", "channels_last"),
    ),
    OpSpec("max", F.max, np.max, over_axes(distinct)),
    OpSpec("min", F.min, np.min, over_axes(distinct)),
    OpSpec("norm", F.norm, reference_norm, lengths),
    OpSpec("cumsum", F.cumsum, np.cumsum, one_axis, linear=(0,)),
    OpSpec(
        "argmax",
        F.argmax,
        np.argmax,
        one_axis,
        order=0,
        layouts=("transposed", "reversed", "sliced", "fortran", "channels_last"),
    ),
]
