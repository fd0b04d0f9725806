"""Hypothesis strategies for the inputs of operations.

Hypothesis draws shapes, options and a seed; values come from a NumPy generator of that seed.
Drawing each value by hypothesis would be a hundred times slower and mostly give arrays of equal
entries, which hide mistakes of transposition and broadcasting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from opspec import Array, Case

Draw = Callable[[st.SearchStrategy[Any]], Any]
Shape = tuple[int, ...]


def rngs(purpose: int = 0) -> st.SearchStrategy[np.random.Generator]:
    """A NumPy generator with a drawn seed; generators of different purposes never agree."""
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng([seed, purpose]))


def cases(make: Callable[[Draw, np.random.Generator], Case]) -> st.SearchStrategy[Case]:
    """Decorator: a function (draw, rng) -> Case becomes a strategy of Cases."""

    @st.composite
    def strategy(draw: Draw) -> Case:
        rng = draw(rngs())
        return make(draw, rng)

    return strategy()


# Shapes ----------------------------------------------------------------------------------------


def shapes(
    min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4
) -> st.SearchStrategy[Shape]:
    """Shapes of few axes, each of few elements."""
    side = st.integers(min_side, max_side)
    return st.lists(side, min_size=min_dims, max_size=max_dims).map(tuple)


def maps(
    nd: int = 2, max_batch: int = 2, max_channels: int = 3, min_side: int = 1, max_side: int = 4
) -> st.SearchStrategy[Shape]:
    """Shapes (N, C, *spatial) of feature maps with `nd` spatial axes."""
    return st.tuples(
        st.integers(1, max_batch),
        st.integers(1, max_channels),
        *[st.integers(min_side, max_side)] * nd,
    )


@st.composite
def broadcast_shapes(
    draw: Draw, count: int = 2, min_dims: int = 0, max_dims: int = 3, max_side: int = 4
) -> tuple[Shape, ...]:
    """`count` shapes of equal rank that broadcast together: some axes of length 1."""
    full = draw(shapes(min_dims, max_dims, 1, max_side))
    keep = st.tuples(*[st.booleans()] * len(full))
    return tuple(
        tuple(n if k else 1 for n, k in zip(full, draw(keep), strict=True)) for _ in range(count)
    )


def axes(ndim: int) -> st.SearchStrategy[Any]:
    """What `axis=` takes for an array of `ndim` axes: None, one axis (also negative), several."""
    if not ndim:
        return st.none()
    one = st.integers(-ndim, ndim - 1)
    several = st.lists(st.integers(0, ndim - 1), min_size=1, max_size=ndim, unique=True).map(tuple)
    return st.one_of(st.none(), one, several)


# Values ----------------------------------------------------------------------------------------


def values(
    rng: np.random.Generator,
    shape: Sequence[int],
    low: float = -3.0,
    high: float = 3.0,
    kinks: Sequence[float] = (),
    gap: float = 2e-2,
) -> Array:
    """Uniform float64 values in [low, high], at least `gap` away from every kink."""
    x = np.asarray(rng.uniform(low, high, tuple(shape)))
    for kink in kinks:
        near = np.abs(x - kink) < gap
        x = np.where(near, kink + gap * np.where(x < kink, -2.0, 2.0), x)
    return np.asarray(x)


def positive(
    rng: np.random.Generator, shape: Sequence[int], low: float = 0.3, high: float = 3.0
) -> Array:
    """Values for logarithms, roots and denominators."""
    return values(rng, shape, low, high)


def nonzero(rng: np.random.Generator, shape: Sequence[int], low: float = 0.3) -> Array:
    """Values of either sign with absolute value in [low, 3]."""
    return np.asarray(positive(rng, shape, low) * rng.choice([-1.0, 1.0], tuple(shape)))


def distinct(rng: np.random.Generator, shape: Sequence[int], span: float = 3.0) -> Array:
    """Values in [-span, span], evenly spaced in random order: no two are near each other.

    For maxima, sorting and pooling, whose kinks are ties.
    """
    size = math.prod(shape)
    spread = np.linspace(-span, span, size) if size > 1 else np.full(size, 0.5)
    return np.asarray(rng.permutation(spread).reshape(tuple(shape)))


def integers(rng: np.random.Generator, shape: Sequence[int], high: int, low: int = 0) -> Array:
    """int64 values in [low, high): labels, indices."""
    return np.asarray(rng.integers(low, high, tuple(shape), dtype=np.int64))


def masks(rng: np.random.Generator, shape: Sequence[int]) -> Array:
    """Booleans."""
    return np.asarray(rng.integers(0, 2, tuple(shape)).astype(bool))


# Convolutions ----------------------------------------------------------------------------------


def per_axis(draw: Draw, nd: int, low: int, high: int) -> Shape:
    """One integer in [low, high] per spatial axis."""
    return tuple(draw(st.integers(low, high)) for _ in range(nd))


@st.composite
def conv_setup(draw: Draw, nd: int = 2, max_side: int = 5) -> tuple[Shape, Shape, dict[str, Any]]:
    """(x shape, weight shape (O, C/groups, *k), kwargs) of a convolution with valid output.

    kwargs: stride, padding, dilation (tuples, one entry per axis) and groups.
    """
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group = st.integers(1, 1 if nd == 3 else 2)
    channels, filters = groups * draw(per_group), groups * draw(per_group)
    kernel = per_axis(draw, nd, 1, 3 if nd < 3 else 2)
    dilation = per_axis(draw, nd, 1, 2)
    stride = per_axis(draw, nd, 1, 3)
    padding = per_axis(draw, nd, 0, 2)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sides = tuple(
        draw(st.integers(max(1, r - 2 * p), max(max_side if nd < 3 else 3, r - 2 * p)))
        for r, p in zip(reach, padding, strict=True)
    )
    batch = draw(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (batch, channels, *sides), (filters, channels // groups, *kernel), options


@st.composite
def conv_transpose_setup(
    draw: Draw, nd: int = 2, max_side: int = 3
) -> tuple[Shape, Shape, dict[str, Any]]:
    """(x shape, weight shape (C, O/groups, *k), kwargs) of a transposed convolution.

    kwargs: stride, padding, output_padding, dilation and groups; the output has at least one
    element along each axis and output_padding < max(stride, dilation).
    """
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group = st.integers(1, 1 if nd == 3 else 2)
    channels, filters = groups * draw(per_group), draw(per_group)
    kernel = per_axis(draw, nd, 1, 3 if nd < 3 else 2)
    dilation = per_axis(draw, nd, 1, 2)
    stride = per_axis(draw, nd, 1, 3)
    sides = per_axis(draw, nd, 1, max_side if nd < 3 else 2)
    extra = tuple(
        draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
    )
    full = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(sides, stride, dilation, kernel, extra, strict=True)
    ]
    padding = tuple(draw(st.integers(0, min(2, (n - 1) // 2))) for n in full)
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": extra,
        "dilation": dilation,
        "groups": groups,
    }
    return (draw(st.integers(1, 2)), channels, *sides), (channels, filters, *kernel), options
