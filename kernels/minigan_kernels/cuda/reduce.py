"""Sums over axes on the GPU. They wait for memory: each number is read once.

Float32 numbers are added up in float32 sixteen at a time, and those sums in double, so that the
error does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from minigan_kernels.cuda.device import Array, Device, integers, type_name
from minigan_kernels.cuda.memory_order import dense, order_of
from minigan_kernels.cuda.planes import THREADS, WARP, Side, Walk, picture, walk
from minigan_kernels.cuda.sources import Source

SIZES = (("float", 4), ("float", 1), ("double", 1))  # numbers, and how many in an access
SUMS = 16  # bytes of a cell of two sums

KERNELS = Source(
    "reduce.cu",
    (
        *(f"sum_planes<{t}, {v}>" for t, v in SIZES),
        *(f"add_cells<{t}>" for t in ("float", "double")),
    ),
)
SOURCES = (KERNELS,)


def axis_sum(device: Device, x: Array, axes: tuple[int, ...]) -> Array:
    """Sum of x over `axes`, which the result does not have."""
    if x.dtype not in (np.float32, np.float64):
        return device.xp.asarray(x.sum(axis=axes, dtype=x.dtype))
    axes = tuple(i % x.ndim for i in axes)
    kept = [i for i in range(x.ndim) if i not in axes]
    if x.size == 0:
        return zeros(device, [x.shape[i] for i in kept], x.dtype)
    x = dense(x)
    order = order_of(x)
    assert order is not None
    plan = _plan(x.shape, order, axes, x.itemsize)
    if plan is None:  # then in another order: one run of axes to keep, one to sum
        x = device.xp.ascontiguousarray(x.transpose((*kept, *axes)))
        return axis_sum(device, x, tuple(range(len(kept), x.ndim)))
    in_order = [i for i in order if i not in axes]
    y = device.empty([x.shape[i] for i in in_order], x.dtype)
    _sum(device, plan, x, y)
    return y.transpose([in_order.index(i) for i in kept])


@dataclass(frozen=True)
class _Plan:
    walk: Walk
    results: int
    joined: tuple[int, int, int]


@lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...], order: tuple[int, ...], axes: tuple[int, ...], item: int
) -> _Plan | None:
    found = picture([Side(shape[i], i in axes, i in axes) for i in order if shape[i] > 1])
    if found is None:
        return None
    found = found.with_wide_pixels()
    way = walk(*found.size, item)
    return _Plan(way, prod(found.groups[::2]), found.joined(way.chunks))


def _sum(device: Device, plan: _Plan, x: Array, y: Array) -> None:
    way, name = plan.walk, type_name(x.dtype)
    cells = device.empty((way.cells, 2), np.float64) if way.cells > plan.results else None
    device.launch(
        KERNELS,
        f"sum_planes<{name}, {way.vector}>",
        (way.blocks,),
        (THREADS,),
        *(way.structure, x, y, cells),
        shared=way.shared(SUMS),
    )
    if cells is not None:
        add_cells(device, cells, plan.results, plan.joined, y, None)


def add_cells(
    device: Device,
    cells: Array,
    results: int,
    joined: tuple[int, int, int],
    a: Array | None,
    b: Array | None,
) -> None:
    """Write the first and second sums of cells [.][B][D][E], joined over B and E."""
    found = a if a is not None else b
    if found is None:
        return
    join, grid = join_of(results, joined)
    device.launch(
        KERNELS, f"add_cells<{type_name(found.dtype)}>", grid, (THREADS,), join, cells, a, b
    )


@lru_cache(maxsize=1024)
def join_of(results: int, joined: tuple[int, int, int]) -> tuple[np.void, tuple[int]]:
    """The structure `Join` of the kernels, and the grid of one."""
    outer, kept, inner = joined
    lanes = 1
    while lanes < WARP and 2 * lanes < outer * inner:
        lanes *= 2
    structure = integers(results=results, outer=outer, kept=kept, inner=inner, lanes=lanes)
    return structure, (-(-results * lanes // THREADS),)


def zeros(device: Device, shape: Sequence[int], dtype: object) -> Array:
    """A sum of nothing."""
    return device.xp.zeros(tuple(shape), dtype)
