"""Gathering, scattering, classes; dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from minigan_kernels import reference
from opspec import Array, Case, OpSpec
from strategies import Draw, cases, integers, maps, shapes, values

import minigan as mg
import minigan.functional as F
from minigan.ops.indexing import GatherPositions, ScatterPositions, ScatterRows


@cases
def classes(draw: Draw, rng: np.random.Generator) -> Case:
    rows, features = rng.integers(1, 5, 2)
    index = integers(rng, draw(shapes(0, 2)), rows)
    return Case((index, values(rng, (rows, features))))


@cases
def scattered(draw: Draw, rng: np.random.Generator) -> Case:
    rows = int(rng.integers(1, 5))
    index = integers(rng, draw(shapes(0, 2, 0)), rows)
    return Case((values(rng, (*index.shape, 3)),), {"index": index, "rows": rows})


def positions(draw: Draw, rng: np.random.Generator) -> tuple[Any, Array, Any]:
    """(shape of maps, positions in them, shape of what is read there)."""
    shape = draw(maps(draw(st.integers(1, 3)), max_side=3))
    out = draw(shapes(1, 2, 1, 3))
    channels = draw(st.sampled_from([1, shape[1]]))
    index = integers(rng, (shape[0], channels, *out), int(np.prod(shape[2:])))
    return shape, index, (*shape[:2], *out)


@cases
def gathered(draw: Draw, rng: np.random.Generator) -> Case:
    shape, index, _ = positions(draw, rng)
    return Case((values(rng, shape),), {"index": index})


@cases
def put(draw: Draw, rng: np.random.Generator) -> Case:
    shape, index, out = positions(draw, rng)
    return Case((values(rng, out),), {"index": index, "spatial": shape[2:]})


@cases
def along_axis(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes(1, 3))
    axis = draw(st.integers(0, len(shape) - 1))
    size = [int(rng.integers(1, n + 1)) for n in shape]
    size[axis] = int(rng.integers(1, 6))
    options = {"axis": axis - draw(st.sampled_from([0, len(shape)]))}
    return Case((values(rng, shape),), {**options, "index": integers(rng, size, shape[axis])})


def reference_gather(x: Array, axis: int, index: Array) -> Array:
    y = np.empty(index.shape, x.dtype)
    for place in np.ndindex(*index.shape):
        source = list(place)
        source[axis] = index[place]
        y[place] = x[tuple(source)]
    return y


def reference_one_hot(index: Array, num_classes: int, axis: int) -> Array:
    y = np.zeros((*index.shape, num_classes))
    for place in np.ndindex(*index.shape):
        y[(*place, index[place])] = 1
    return np.moveaxis(y, -1, axis)


@cases
def labels(draw: Draw, rng: np.random.Generator) -> Case:
    index = integers(rng, draw(shapes(0, 3)), 4)
    axis = draw(st.integers(-index.ndim - 1, index.ndim))
    return Case((index,), {"num_classes": 4, "axis": axis})


def dropped(nd: int | None) -> st.SearchStrategy[Case]:
    @cases
    def drawn(draw: Draw, rng: np.random.Generator) -> Case:
        shape = draw(shapes(0, 3) if nd is None else maps(nd))
        return Case((values(rng, shape),), {"p": draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))})

    return drawn


def reference_dropout(x: Array, p: float, whole: bool) -> Array:
    shape = x.shape[:2] + (1,) * (x.ndim - 2) if whole else x.shape
    uniform = mg.random.generator(0, "dropout", 0).random(shape, np.float32)
    return x * np.where(uniform >= p, 1 / (1 - p) if p < 1 else 0, 0) if p else x


def a_dropout(name: str, nd: int | None) -> OpSpec:
    return OpSpec(
        name,
        getattr(F, name),
        lambda x, p: reference_dropout(x, p, nd is not None),
        dropped(nd),
        linear=(0,),
        deterministic=False,
    )


SPECS = [
    OpSpec("embedding", F.embedding, lambda i, w: reference.take_rows(w, i), classes, linear=(1,)),
    OpSpec(
        "scatter_rows",
        lambda x, **kwargs: ScatterRows.apply(x, **kwargs),
        reference.scatter_rows,
        scattered,
        linear=(0,),
    ),
    OpSpec(
        "gather_positions",
        lambda x, index: GatherPositions.apply(x, index=index),
        reference.gather_positions,
        gathered,
        linear=(0,),
    ),
    OpSpec(
        "scatter_positions",
        lambda x, **kwargs: ScatterPositions.apply(x, **kwargs),
        reference.scatter_positions,
        put,
        linear=(0,),
    ),
    OpSpec("gather", F.gather, reference_gather, along_axis, linear=(0,)),
    OpSpec(
        "one_hot",
        lambda i, **kwargs: F.one_hot(i, dtype=np.float64, **kwargs),
        reference_one_hot,
        labels,
        order=0,
    ),
    a_dropout("dropout", None),
    a_dropout("dropout1d", 1),
    a_dropout("dropout2d", 2),
    a_dropout("dropout3d", 3),
]
