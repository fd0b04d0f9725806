"""Normalisation of float32 by threaded kernels: one pass over x to measure, one to apply.

Here the axes are sorted out; the kernels know P x R x Q numbers only (see `planes`). A norm that
does not fit into that picture gets None, and `norm` does it with plain loops.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.flat import dense_order, like
from minigan_kernels.cpu.norm_gradient import differentiate, sum_maps
from minigan_kernels.cpu.norm_kernels import (
    CELLS,
    COUNT,
    DSCALE,
    DSHIFT,
    FEW,
    normalise,
    rows_of_a_map,
)
from minigan_kernels.cpu.parallel import Kernel, address, run
from minigan_kernels.cpu.planes import Planes, planes_of
from minigan_kernels.cpu.scratch import Space, scratch
from minigan_kernels.cpu.simd import LANES

Array = npt.NDArray[Any]

CHUNK = 1 << 15  # numbers of a task
MOST = 32  # tasks that a large array is cut into

_PACK = struct.Struct(f"{COUNT}q4d")  # the cells


@dataclass(frozen=True)
class Plan:
    """How a norm of arrays of one shape and memory order is cut into tasks."""

    planes: Planes
    sizes: tuple[int, ...]  # the cells P to AFFINE_TASKS
    sums: int  # float64 that the sums take
    rows: int  # float64 that the rows of the planes take
    count: int  # elements of a statistic
    statistics: tuple[int, ...]  # their shape, axes in memory order
    mapped: bool  # scale and shift vary within planes
    shared: bool  # the same map for all p
    spread: bool  # scale and shift must be written out for each plane
    steps: tuple[int, ...]  # tasks of each step of normalise
    gradient_steps: tuple[int, ...]  # of differentiate

    def dense(self, a: Array) -> Array:
        """An array in the memory order of x, itself if it is so already."""
        return np.ascontiguousarray(a.transpose(self.planes.order), np.float32)

    def affine(self, a: Array | None) -> Array | None:
        """Scale or shift as the kernels read it."""
        if a is None:
            return None
        return self.planes.flat_small(a, np.float32) if self.spread else self.dense(a)

    def back(self, a: Array) -> Array:
        """Axes in memory order -> axes of x."""
        return a.transpose(self.planes.back)


def norm(
    x: Array,
    scale: Array | None,
    shift: Array | None,
    axes: tuple[int, ...],
    eps: float,
    slope: float,
    base: float,
) -> tuple[Array, Array, Array] | None:
    """See `reference.norm`; None if this norm has to go another way."""
    x, plan = _planned(x, axes, scale, shift)
    if plan is None:
        return None
    y = like(x)
    mean, rstd = np.empty((2, *plan.statistics))
    with scratch() as space:
        arrays = x, None, y, plan.affine(scale), plan.affine(shift), mean, rstd, None, None
        work = _work(plan, space, arrays, (eps, slope, base))
        _run_steps(normalise, plan, plan.steps, work)
    return y, plan.back(mean), plan.back(rstd)


def norm_backward(
    g: Array,
    x: Array,
    scale: Array | None,
    shift: Array | None,
    mean: Array,
    rstd: Array,
    axes: tuple[int, ...],
    slope: float,
    base: float,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None] | None:
    """See `reference.norm_backward`; None if this norm has to go another way."""
    x, plan = _planned(x, axes, scale, shift)
    if plan is None:
        return None
    order = plan.planes.order
    mean, rstd = (np.ascontiguousarray(a.transpose(order), np.float64) for a in (mean, rstd))
    dx = like(x) if needs[0] else None
    unchanged = plan.mapped and not plan.shared and slope == 1  # then dshift is g
    dscale = _affine_gradient(plan, scale) if needs[1] else None
    dshift = _affine_gradient(plan, scale) if needs[2] and not unchanged else None
    arrays = x, plan.dense(g), dx, plan.affine(scale), plan.affine(shift), mean, rstd
    gradients = (None, None) if plan.shared else (dscale, dshift)
    with scratch() as space:
        work = _work(plan, space, (*arrays, *gradients), (0.0, slope, base))
        steps = plan.gradient_steps if needs[0] else plan.gradient_steps[:-1]
        _run_steps(differentiate, plan, steps, work)
        if plan.shared and (needs[1] or needs[2]):
            work[DSCALE : DSHIFT + 1].view(np.int64)[:] = _address(dscale), _address(dshift)
            _, length, after = plan.planes.size
            run(sum_maps, -(-length // rows_of_a_map(after)), work)
    shape = () if scale is None else scale.shape
    dshift = g if unchanged and needs[2] else _summed(plan, dshift, shape)
    return dx, _summed(plan, dscale, shape), dshift


def _planned(
    x: Array, axes: tuple[int, ...], scale: Array | None, shift: Array | None
) -> tuple[Array, Plan | None]:
    """x without gaps, and the plan if there is one."""
    affine = None if scale is None else scale.shape
    if x.dtype != np.float32 or (shift is not None and shift.shape != affine):
        return x, None
    order = dense_order(x.shape, x.strides)
    if order is None:
        x = np.array(x, order="K")
        order = dense_order(x.shape, x.strides)
    return x, None if order is None else _plan(x.shape, order, axes, affine)


@lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...],
    order: tuple[int, ...],
    axes: tuple[int, ...],
    affine: tuple[int, ...] | None,
) -> Plan | None:
    free = tuple(i for i in axes if affine is None or affine[i] == 1)
    mapped = len(free) < len(axes) and all(shape[i] == 1 for i in free)
    planes = planes_of(shape, order, axes if mapped else free, prod(shape))
    map_p = _map_step(shape, affine, planes) if mapped else 0
    small = [i for i in order if planes.small[i] > 1]
    joined = _joined([(shape[i], i in axes) for i in small])
    if joined is None or map_p is None:
        return None
    varies = [(shape[i], affine is None or mapped or affine[i] != 1) for i in small]
    joined, period, spread = _period(joined, _suffix(varies))
    before, length, after = planes.size
    many, lanes = before * after, _lanes(joined)
    p_chunk, r_chunk = _chunks(before, length, after)
    chunks = -(-length // r_chunk)
    tasks = -(-before // p_chunk) * chunks
    finish = joined[0] * -(-joined[2] // FEW)
    affine_tasks = 0 if mapped or affine is None else period // lanes * -(-lanes // FEW)
    sizes = before, length, after, p_chunk, r_chunk, chunks, *joined, period, mapped, map_p
    return Plan(
        planes,
        (*sizes, tasks, finish, affine_tasks),
        -(-2 * chunks * many // 8) * 8,  # whole cache lines
        5 * -(-many // LANES) * LANES // 2,
        prod(shape[i] for i in axes),
        tuple(1 if i in axes else shape[i] for i in order),
        mapped,
        mapped and map_p == 0,
        spread,
        (tasks, finish, tasks),
        (finish, tasks, finish + affine_tasks, tasks),
    )


def _map_step(shape: tuple[int, ...], affine: tuple[int, ...] | None, planes: Planes) -> int | None:
    """How far apart two p are in a map: 0 if they share it; None if it is neither."""
    before, length, after = planes.size
    assert affine is not None
    varying = _suffix([(shape[i], affine[i] != 1) for i in planes.order if shape[i] > 1])
    if varying == before * length * after:
        return length * after
    return 0 if varying == length * after else None


def _period(joined: tuple[int, int, int], period: int) -> tuple[tuple[int, int, int], int, bool]:
    """After how many planes the scale repeats itself, with `joined` cut to that.

    If it does so in no way that a kernel knows, it is written out for each plane (True).
    """
    before, among, after = joined
    planes = before * among * after
    lanes = _lanes(joined) if among > 1 else 1
    spread = period < min(planes, LANES) or period % lanes > 0
    period = planes if spread else period
    return (joined if among > 1 else (planes // period, 1, period)), period, spread


def _lanes(joined: tuple[int, int, int]) -> int:
    """Neighbouring planes that the kernels treat together."""
    _, among, after = joined
    return among if after == 1 else after


def _suffix(axes: list[tuple[int, bool]]) -> int:
    """Product of the marked sizes if these are the last ones, else 0."""
    marks = [marked for _, marked in axes]
    return prod(n for n, marked in axes if marked) if marks == sorted(marks) else 0


def _joined(axes: list[tuple[int, bool]]) -> tuple[int, int, int] | None:
    """Products of the sizes before, at and after the marked ones if these are neighbours."""
    marks = [i for i, (_, marked) in enumerate(axes) if marked]
    start, stop = (marks[0], marks[-1] + 1) if marks else (0, 0)
    if len(marks) < stop - start:
        return None
    sizes = [n for n, _ in axes]
    return prod(sizes[:start]), prod(sizes[start:stop]), prod(sizes[stop:])


def _chunks(before: int, length: int, after: int) -> tuple[int, int]:
    """How many p, or how many rows of one p, make a task."""
    if length * after < CHUNK:
        return CHUNK // (length * after), length
    rows = max(-(-CHUNK // after), -(-before * length // MOST))
    return 1, min(length, -(-rows // LANES) * LANES)


def _work(
    plan: Plan, space: Space, arrays: tuple[Array | None, ...], options: tuple[float, ...]
) -> Array:
    """The cells of a call, then the sums, then the rows of the planes; `arrays` must live as long.

    One piece of memory for all: asking for memory and for addresses is what a small norm costs.
    """
    work = space.array((CELLS + plan.sums + plan.rows,), np.float64)
    sums = address(work) + 8 * CELLS
    addresses = *map(_address, arrays), sums, sums + 8 * plan.sums
    _PACK.pack_into(work.data, 0, *addresses, *plan.sizes, plan.count, *options)
    return work


def _run_steps(kernel: Kernel, plan: Plan, steps: tuple[int, ...], work: Array) -> None:
    """A small array is one task of all steps: threads are not worth their start."""
    if plan.steps[0] == 1:
        run(kernel, 1, work, sum(steps))
    else:
        run(kernel, steps, work, 1)


def _address(a: Array | None) -> int:
    return 0 if a is None else address(a)


def _affine_gradient(plan: Plan, scale: Array | None) -> Array | None:
    """Where a kernel writes the gradient of a scale or shift."""
    if scale is None:
        return None
    if plan.spread:
        return np.empty(plan.planes.packed_small, np.float32)
    return np.empty([scale.shape[i] for i in plan.planes.order], np.float32)


def _summed(plan: Plan, d: Array | None, shape: tuple[int, ...]) -> Array | None:
    """That gradient with the axes of x, and summed if it was written out for each plane."""
    if d is None:
        return None
    d = plan.back(d)
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and d.shape[i] > 1)
    return d.sum(axis=axes, keepdims=True) if axes else d
