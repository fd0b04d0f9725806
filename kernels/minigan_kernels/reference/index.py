"""Definitions of gathering and its adjoint, scattering with addition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def take_rows(x: Array, index: Array) -> Array:
    """y[i] = x[index[i]]; x (rows, ...), index of any shape with values in [0, rows)."""
    y = np.empty((index.size, *x.shape[1:]), x.dtype)
    for i, row in enumerate(index.ravel()):
        y[i] = x[row]
    return y.reshape(*index.shape, *x.shape[1:])


def scatter_rows(g: Array, index: Array, rows: int) -> Array:
    """y = zeros(rows, ...); y[index[i]] += g[i], i in order. The adjoint of take_rows."""
    tail = g.shape[index.ndim :]
    y = np.zeros((rows, *tail), g.dtype)
    for row, value in zip(index.ravel(), g.reshape(index.size, *tail), strict=True):
        y[row] += value
    return y


def gather_positions(x: Array, index: Array) -> Array:
    """y[n, c, ...] = x[n, c] at the flat spatial position index[n, c, ...].

    Parameters
    ----------
    x : (N, C, *spatial)
    index : (N, C, *out), or (N, 1, *out) for the same positions in every channel.
    """
    y = np.empty((*x.shape[:2], *index.shape[2:]), x.dtype)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[n, c] = x[n, c].ravel()[index[n, c if index.shape[1] > 1 else 0]]
    return y


def scatter_positions(g: Array, index: Array, spatial: Sequence[int]) -> Array:
    """Add each g to its position in zeros (N, C, *spatial). The adjoint of gather_positions."""
    y = np.zeros((*g.shape[:2], int(np.prod(spatial))), g.dtype)
    for n in range(g.shape[0]):
        for c in range(g.shape[1]):
            positions = index[n, c if index.shape[1] > 1 else 0]
            for j, value in zip(positions.ravel(), g[n, c].ravel(), strict=True):
                y[n, c, j] += value
    return y.reshape(*g.shape[:2], *spatial)
