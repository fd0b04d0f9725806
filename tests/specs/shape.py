"""Operations that move elements and compute nothing: all are linear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from opspec import Array, Case, OpSpec
from strategies import Draw, Shape, cases, integers, masks, shapes, values

import minigan.functional as F


def with_options(options: Any, min_dims: int = 1) -> st.SearchStrategy[Case]:
    """A random array and the kwargs that `options(draw, rng, shape)` makes for it."""

    @cases
    def drawn(draw: Draw, rng: np.random.Generator) -> Case:
        shape = draw(shapes(min_dims, 3))
        return Case((values(rng, shape),), options(draw, rng, shape))

    return drawn


def an_axis(draw: Draw, shape: Shape) -> int:
    return int(draw(st.integers(-len(shape), len(shape) - 1)))


def new_shape(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    size = math.prod(shape)
    divisor = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    return {"shape": draw(st.sampled_from([(divisor, size // divisor), (-1, divisor), (size,)]))}


def an_order(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    order = draw(st.permutations(range(len(shape))))
    return {"axes": draw(st.sampled_from([tuple(order), None]))}


def a_stretch(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(1, 3))
    thin = tuple(n if keep else 1 for n, keep in zip(shape, masks(rng, (len(shape),)), strict=True))
    return Case((values(rng, thin),), {"shape": shape})


def widths(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    return {"widths": [tuple(int(n) for n in rng.integers(0, 3, 2)) for _ in shape]}


def cuts(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    ends = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
    return {"widths": [(int(a), n - int(b)) for (a, b), n in zip(ends, shape, strict=True)]}


def a_key(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    """Basic slices, negative steps, integer arrays with repeats, masks, mixtures."""
    n = shape[0]
    return {
        "key": draw(
            st.sampled_from(
                [
                    0,
                    -1,
                    slice(None, None, -1),
                    slice(0, n, 2),
                    (Ellipsis, slice(0, 1)),
                    (None, slice(1, None)),
                    integers(rng, (5,), n),  # longer than the axis: positions repeat
                    (integers(rng, (2, 2), n), Ellipsis),
                    masks(rng, shape[:1]),
                    masks(rng, shape),
                ]
            )
        )
    }


@cases
def replacements(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(2, 3))
    x = values(rng, shape)
    key = draw(st.sampled_from([0, slice(0, 1), rng.permutation(shape[0])[:2], masks(rng, shape)]))
    return Case((x, values(rng, x[key].shape)), {"key": key})


def reference_index_put(x: Array, v: Array, key: Any) -> Array:
    y = x.copy()
    y[key] = v
    return y


@cases
def rows_of_parts(draw: Draw, rng: np.random.Generator) -> Case:
    """Three arrays that differ in their length along one axis."""
    shape = draw(shapes(1, 3))
    axis = an_axis(draw, shape)
    parts = [list(shape) for _ in range(3)]
    for part in parts:
        part[axis] = int(rng.integers(0, 4))
    return Case(tuple(values(rng, p) for p in parts), {"axis": axis})


@cases
def equal_parts(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(0, 2))
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    return Case((values(rng, shape), values(rng, shape)), {"axis": axis})


def pieces(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    axis = an_axis(draw, shape)
    first = int(rng.integers(0, shape[axis] + 1))
    return {"sizes": [first, shape[axis] - first], "axis": axis, "part": int(rng.integers(2))}


def a_chunk(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    axis = an_axis(draw, shape)
    return {"chunks": int(rng.integers(1, shape[axis] + 1)), "axis": axis}


def reference_chunk(x: Array, chunks: int, axis: int) -> Array:
    size = -(-x.shape[axis] // chunks)
    return np.take(x, range(size * ((x.shape[axis] - 1) // size), x.shape[axis]), axis)


def reference_pad(x: Array, widths: Any) -> Array:
    y = np.zeros([a + n + b for (a, b), n in zip(widths, x.shape, strict=True)], x.dtype)
    y[tuple(slice(a, a + n) for (a, _), n in zip(widths, x.shape, strict=True))] = x
    return y


def reference_crop(x: Array, widths: Any) -> Array:
    return x[tuple(slice(a, n - b) for (a, b), n in zip(widths, x.shape, strict=True))]


def times(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    return {"times": int(rng.integers(1, 4)), "axis": an_axis(draw, shape)}


def shifts(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    return {"shift": int(rng.integers(-5, 6)), "axis": an_axis(draw, shape)}


def unit_axis(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(0, 2))
    axis = draw(st.integers(0, len(shape)))
    return Case((values(rng, (*shape[:axis], 1, *shape[axis:])),), {"axis": axis})


def span(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    start = int(rng.integers(0, len(shape)))
    return {"start": start, "end": int(rng.integers(start, len(shape)))}


def reference_flatten(x: Array, start: int, end: int) -> Array:
    return x.reshape(*x.shape[:start], -1, *x.shape[end + 1 :])


def flips(draw: Draw, rng: np.random.Generator, shape: Shape) -> dict[str, Any]:
    return {"axis": draw(st.sampled_from([0, -1, tuple(range(len(shape)))]))}


def one(name: str, reference: Any, drawn: Any, fn: Any = None) -> OpSpec:
    return OpSpec(name, fn or getattr(F, name), reference, drawn, linear=(0,))


SPECS = [
    one("reshape", np.reshape, with_options(new_shape, 0)),
    one("flatten", reference_flatten, with_options(span)),
    one("squeeze", np.squeeze, cases(unit_axis)),
    one(
        "unsqueeze",
        np.expand_dims,
        with_options(lambda d, r, s: {"axis": int(r.integers(-len(s) - 1, len(s) + 1))}, 0),
    ),
    one("transpose", np.transpose, with_options(an_order)),
    one("broadcast_to", np.broadcast_to, cases(a_stretch)),
    one("index", lambda x, key: x[key], with_options(a_key)),
    OpSpec(
        "index_put",
        lambda x, v, key: F.index_put(x, key, v),
        reference_index_put,
        replacements,
        linear=(0, 1),
    ),
    one("flip", np.flip, with_options(flips)),
    one("pad_zeros", reference_pad, with_options(widths, 0)),
    one("crop", reference_crop, with_options(cuts, 0)),
    OpSpec(
        "concat",
        lambda *xs, axis: F.concat(xs, axis),
        lambda *xs, axis: np.concatenate(xs, axis),
        rows_of_parts,
        linear=(0, 1, 2),
    ),
    OpSpec(
        "stack",
        lambda *xs, axis: F.stack(xs, axis),
        lambda *xs, axis: np.stack(xs, axis),
        equal_parts,
        linear=(0, 1),
    ),
    one(
        "split",
        lambda x, sizes, axis, part: np.split(x, [sizes[0]], axis)[part],
        with_options(pieces),
        lambda x, sizes, axis, part: F.split(x, sizes, axis)[part],
    ),
    one(
        "chunk",
        reference_chunk,
        with_options(a_chunk),
        lambda x, chunks, axis: F.chunk(x, chunks, axis)[-1],
    ),
    one("repeat", lambda x, times, axis: np.repeat(x, times, axis), with_options(times)),
    one("tile", lambda x, times, axis: np.concatenate([x] * times, axis), with_options(times)),
    one("roll", np.roll, with_options(shifts)),
]
