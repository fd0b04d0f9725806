"""Normalisation and the activation after it on the CPU.

float32 goes through threaded kernels (`norm_threaded`), everything else through plain loops
(`norm_loops`). Both read x twice, once for the statistics and once to apply them, and keep nothing
of the activation: the gradient computes its input again from x.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import norm_loops, norm_threaded

Array = npt.NDArray[Any]


def norm(
    x: Array,
    scale: Array | None,
    shift: Array | None,
    axes: tuple[int, ...],
    eps: float,
    slope: float = 1.0,
    base: float = 0.0,
) -> tuple[Array, Array, Array]:
    """y = bend((x - mean) rstd (base + scale) + shift). See `reference.norm`."""
    if x.size == 0:
        statistics = np.zeros([1 if i in axes else n for i, n in enumerate(x.shape)])
        return np.empty_like(x), statistics, statistics
    threaded = norm_threaded.norm(x, scale, shift, axes, eps, slope, base)
    return threaded or norm_loops.norm(x, scale, shift, axes, eps, slope, base)


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
) -> tuple[Array | None, Array | None, Array | None]:
    """dx = rstd (h - E[h] - x^ E[h x^]), dscale, dshift. See `reference.norm_backward`."""
    if x.size == 0:
        zeros = None if scale is None else np.zeros_like(scale)
        return np.empty_like(x), zeros, zeros
    arguments = g, x, scale, shift, mean, rstd, axes, slope, base, needs
    return norm_threaded.norm_backward(*arguments) or norm_loops.norm_backward(*arguments)
