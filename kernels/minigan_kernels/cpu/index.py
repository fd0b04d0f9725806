"""Gathering and its adjoint, scattering with addition in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.compiled import jit
from minigan_kernels.cpu.layout import from_planes, planes

Array = npt.NDArray[Any]


def take_rows(x: Array, index: Array) -> Array:
    """y[i] = x[index[i]]."""
    return np.take(x, index, axis=0)


def scatter_rows(g: Array, index: Array, rows: int) -> Array:
    """y = zeros(rows, ...); y[index[i]] += g[i].

    Sorting brings equal rows together (in their order: the sort is stable); each group is one sum.
    """
    tail = g.shape[index.ndim :]
    y = np.zeros((rows, *tail), g.dtype)
    if index.size:
        order = np.argsort(index, axis=None, kind="stable")
        targets = index.ravel()[order]
        starts = np.flatnonzero(np.diff(targets, prepend=targets[0] - 1))
        values = g.reshape(index.size, *tail)[order]
        y[targets[starts]] = np.add.reduceat(values, starts, axis=0)
    return y


def gather_positions(x: Array, index: Array) -> Array:
    """y[n, c, ...] = x[n, c] at the flat spatial position index[n, c or 0, ...]."""
    source, last = planes(x)
    positions = _positions(index, last)
    n, outer, *_, inner = source.shape
    out = index.shape[2:]
    y = np.empty((n, outer, math.prod(out), inner), x.dtype)
    _gather(source.reshape(n, outer, math.prod(x.shape[2:]), inner), positions, y)
    return from_planes(y.reshape(n, outer, *out, inner), last)


def scatter_positions(g: Array, index: Array, spatial: Sequence[int]) -> Array:
    """Add each g to its position in zeros (N, C, *spatial), one plane after another, in order."""
    source, last = planes(g)
    positions = _positions(index, last)
    n, outer, *_, inner = source.shape
    y = np.zeros((n, outer, math.prod(spatial), inner), g.dtype)
    _scatter(source.reshape(n, outer, math.prod(g.shape[2:]), inner), positions, y)
    return from_planes(y.reshape(n, outer, *spatial, inner), last)


def _positions(index: Array, last: bool) -> Array:
    """index (N, C or 1, *out) in the form of `planes`, with one spatial axis."""
    n, c = index.shape[:2]
    flat = index.reshape(n, c, math.prod(index.shape[2:]))
    if last:
        return np.ascontiguousarray(np.moveaxis(flat, 1, 2)[:, None], np.int32)
    return np.ascontiguousarray(flat[..., None], np.int32)


@jit()
def _gather(x: Array, index: Array, y: Array) -> None:
    n, outer, places, inner = y.shape
    per_outer, per_inner = index.shape[1] > 1, index.shape[3] > 1
    for i in range(n):
        for a in range(outer):
            ia = a if per_outer else 0
            for p in range(places):
                for b in range(inner):
                    y[i, a, p, b] = x[i, a, index[i, ia, p, b if per_inner else 0], b]


@jit()
def _scatter(g: Array, index: Array, y: Array) -> None:
    n, outer, places, inner = g.shape
    per_outer, per_inner = index.shape[1] > 1, index.shape[3] > 1
    for i in range(n):
        for a in range(outer):
            ia = a if per_outer else 0
            for p in range(places):
                for b in range(inner):
                    y[i, a, index[i, ia, p, b if per_inner else 0], b] += g[i, a, p, b]
