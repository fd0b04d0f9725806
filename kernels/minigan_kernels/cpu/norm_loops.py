"""Normalisation by plain loops: float64, and whatever `norm_threaded` leaves.

`planes` explains the P,R,Q view. Sums are kept in float64, in a fixed order, so float32 data
of mean 1000 are normalised correctly and two runs agree bit by bit.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.planes import Planes

Array = npt.NDArray[Any]

# "reassoc" lets the compiler sum in vector lanes; NaN and infinity keep their meaning.
_jit = numba.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"}
)


def norm(
    x: Array,
    scale: Array | None,
    shift: Array | None,
    axes: tuple[int, ...],
    eps: float,
    slope: float,
    base: float,
) -> tuple[Array, Array, Array]:
    """See `reference.norm`."""
    scale = _from_base(scale, base)
    planes, mapped = _plan(x, axes, scale, shift)
    row = planes.flat(x)
    mean, rstd = _statistics(row, planes, axes, eps)
    y = _normalised(row, x.shape, planes, mapped, scale, shift, mean, rstd)
    if slope != 1:
        _bend(y, y <= 0, slope)
    return y, mean, rstd


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
    """dx = rstd (h - E[h] - x^ E[h x^]), h = g scale. See `reference.norm_backward`."""
    scale = _from_base(scale, base)
    if slope != 1:  # back through the activation, whose input is computed once more
        planes, mapped = _plan(x, axes, scale, shift)
        z = _normalised(planes.flat(x), x.shape, planes, mapped, scale, shift, mean, rstd)
        g = g.copy()
        _bend(g, z <= 0, slope)
    planes, mapped = _plan(x, axes, scale, None)
    if mapped and scale is not None:
        return _backward_of_maps(g, x, scale, mean, rstd, axes, needs, planes)
    row, g_row = planes.flat(x), planes.flat(g)
    sums, dots = _dots(g_row, row, planes, mean)
    dots = dots * rstd  # sums of g and of g x^ per plane
    dscale = None if scale is None or not needs[1] else _sum_to(dots, scale.shape, x.dtype)
    dshift = None if scale is None or not needs[2] else _sum_to(sums, scale.shape, x.dtype)
    if not needs[0]:
        return None, dscale, dshift
    count = prod(x.shape[i] for i in axes)
    if scale is not None:
        sums, dots = sums * scale, dots * scale
    mean_h = sums.sum(axis=axes, keepdims=True) / count
    mean_hx = dots.sum(axis=axes, keepdims=True) / count
    factor = rstd if scale is None else rstd * scale
    small = (mean, factor, -rstd * rstd * mean_hx, -rstd * mean_h)
    m, a, b, c = (planes.flat_small(each, x.dtype) for each in small)
    out = np.empty_like(row)
    _apply_backward(g_row, row, *planes.size, m, a, b, c, out)
    return planes.unflat(out, x.shape), dscale, dshift


def _backward_of_maps(
    g: Array,
    x: Array,
    scale: Array,
    mean: Array,
    rstd: Array,
    axes: tuple[int, ...],
    needs: tuple[bool, ...],
    planes: Planes,
) -> tuple[Array | None, Array | None, Array | None]:
    """The same where scale varies within a plane."""
    dx, dscale, dshift = None, None, None
    g, scale = planes.alongside(g), planes.alongside(scale)
    if needs[0]:
        only_dx = (True, False, False)
        dx, *_ = norm_backward(g * scale, x, None, None, mean, rstd, axes, 1.0, 0.0, only_dx)
    if needs[1]:
        product = (x - mean).astype(x.dtype, copy=False)
        product *= rstd
        product *= g
        dscale = _sum_to(product, scale.shape)
    if needs[2]:
        dshift = _sum_to(g, scale.shape)
    return dx, dscale, dshift


def _from_base(scale: Array | None, base: float) -> Array | None:
    """base + scale."""
    return scale if scale is None or base == 0 else scale + scale.dtype.type(base)


def _bend(v: Array, low: Array, slope: float) -> None:
    """Multiply v by the slope where `low` holds; a slope of 0 makes 0 even of infinity."""
    if slope == 0:
        np.copyto(v, 0, where=low)
    else:
        np.multiply(v, v.dtype.type(slope), out=v, where=low)


def _normalised(
    row: Array,
    shape: tuple[int, ...],
    planes: Planes,
    mapped: bool,
    scale: Array | None,
    shift: Array | None,
    mean: Array,
    rstd: Array,
) -> Array:
    """y = (x - mean) rstd scale + shift with given statistics."""
    center = mean.astype(row.dtype)
    factor, offset = rstd, (center - mean) * rstd  # offset mends the rounding of the mean
    if not mapped:
        factor = factor if scale is None else factor * scale
        offset = offset if scale is None else offset * scale
        offset = offset if shift is None else offset + shift
    out = np.empty_like(row)
    m, f, o = (planes.flat_small(a, row.dtype) for a in (center, factor, offset))
    _apply(row, *planes.size, m, f, o, out)
    y = planes.unflat(out, shape)
    if mapped and scale is not None:
        np.multiply(y, planes.alongside(scale), out=y)
    if mapped and shift is not None:
        np.add(y, planes.alongside(shift), out=y)
    return y


def _plan(
    x: Array, axes: tuple[int, ...], scale: Array | None, shift: Array | None
) -> tuple[Planes, bool]:
    """Planes on which scale and shift are constant; or, if there are none, (planes, True)."""
    affine = [a for a in (scale, shift) if a is not None]
    constant = [i for i in axes if all(a.shape[i] == 1 for a in affine)]
    mapped = len(constant) < len(axes) and all(x.shape[i] == 1 for i in constant)
    return Planes.of(x, axes if mapped else constant), mapped


def _statistics(
    row: Array, planes: Planes, axes: tuple[int, ...], eps: float
) -> tuple[Array, Array]:
    """mean and rstd over `axes` in float64, joined from the means and squares of planes."""
    before, length, after = planes.size
    means, squares = np.empty((2, before * after))
    _moments(row, before, length, after, means, squares)
    means, squares = (planes.unflat(a, planes.small) for a in (means, squares))
    mean = means.mean(axis=axes, keepdims=True)
    between = length * np.square(means - mean)  # squares of a plane about the common mean
    total = (squares + between).sum(axis=axes, keepdims=True)
    count = length * means.size // mean.size
    return mean, 1 / np.sqrt(total / count + eps)


def _dots(g_row: Array, row: Array, planes: Planes, mean: Array) -> tuple[Array, Array]:
    """Sums of g and of g (x - mean) for each plane, float64."""
    before, _, after = planes.size
    sums, dots = np.empty((2, before * after))
    _moments_backward(g_row, row, *planes.size, planes.flat_small(mean, row.dtype), sums, dots)
    return planes.unflat(sums, planes.small), planes.unflat(dots, planes.small)


def _sum_to(values: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """Sum over the axes where `shape` has 1."""
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and values.shape[i] != 1)
    if axes:
        values = values.sum(axis=axes, keepdims=True)
    return values.astype(dtype or values.dtype, copy=False)


# The loops. Rows of P planes when Q = 1, else blocks of R lines of Q numbers; of those, several
# lines at a time, since the running sums go through memory.


@_jit
def _moments(x: Array, P: int, R: int, Q: int, mean: Array, squares: Array) -> None:
    """Per plane: the mean, then the sum of squared deviations from it."""
    for p in range(P):
        if Q == 1:
            plane = x[p * R : (p + 1) * R]
            total = 0.0
            for r in range(R):
                total += plane[r]
            center = total / R
            total = 0.0
            for r in range(R):
                total += (plane[r] - center) ** 2
            mean[p], squares[p] = center, total
        else:
            m, s = mean[p * Q : (p + 1) * Q], squares[p * Q : (p + 1) * Q]
            lines = x[p * R * Q : (p + 1) * R * Q].reshape((R, Q))
            m[:], s[:] = 0.0, 0.0
            _add_lines(lines, m)
            for q in range(Q):
                m[q] /= R
            _add_squares(lines, m, s)


@_jit
def _add_lines(x: Array, total: Array) -> None:
    R, Q = x.shape
    for r in range(0, R - 3, 4):
        a, b, c, d = x[r], x[r + 1], x[r + 2], x[r + 3]
        for q in range(Q):
            total[q] += (np.float64(a[q]) + b[q]) + (np.float64(c[q]) + d[q])
    for r in range(R // 4 * 4, R):
        a = x[r]
        for q in range(Q):
            total[q] += a[q]


@_jit
def _add_squares(x: Array, mean: Array, total: Array) -> None:
    R, Q = x.shape
    for r in range(0, R - 3, 4):
        a, b, c, d = x[r], x[r + 1], x[r + 2], x[r + 3]
        for q in range(Q):
            m = mean[q]
            total[q] += ((a[q] - m) ** 2 + (b[q] - m) ** 2) + ((c[q] - m) ** 2 + (d[q] - m) ** 2)
    for r in range(R // 4 * 4, R):
        a = x[r]
        for q in range(Q):
            total[q] += (a[q] - mean[q]) ** 2


@_jit
def _apply(
    x: Array, P: int, R: int, Q: int, mean: Array, factor: Array, offset: Array, y: Array
) -> None:
    """y = (x - mean) factor + offset."""
    for p in range(P):
        if Q == 1:
            plane, out = x[p * R : (p + 1) * R], y[p * R : (p + 1) * R]
            m, f, o = mean[p], factor[p], offset[p]
            for r in range(R):
                out[r] = (plane[r] - m) * f + o
            continue
        ms, fs = mean[p * Q : (p + 1) * Q], factor[p * Q : (p + 1) * Q]
        os = offset[p * Q : (p + 1) * Q]
        for r in range(p * R, (p + 1) * R):
            line, out = x[r * Q : (r + 1) * Q], y[r * Q : (r + 1) * Q]
            for q in range(Q):
                out[q] = (line[q] - ms[q]) * fs[q] + os[q]


@_jit
def _moments_backward(
    g: Array, x: Array, P: int, R: int, Q: int, mean: Array, sums: Array, dots: Array
) -> None:
    """Per plane: the sum of g and the sum of g (x - mean)."""
    for p in range(P):
        if Q == 1:
            plane, gs = x[p * R : (p + 1) * R], g[p * R : (p + 1) * R]
            center, total, dot = mean[p], 0.0, 0.0
            for r in range(R):
                total += gs[r]
                dot += gs[r] * (plane[r] - center)
            sums[p], dots[p] = total, dot
        else:
            s, d = sums[p * Q : (p + 1) * Q], dots[p * Q : (p + 1) * Q]
            lines = x[p * R * Q : (p + 1) * R * Q].reshape((R, Q))
            gs_lines = g[p * R * Q : (p + 1) * R * Q].reshape((R, Q))
            s[:], d[:] = 0.0, 0.0
            _add_dots(gs_lines, lines, mean[p * Q : (p + 1) * Q], s, d)


@_jit
def _add_dots(g: Array, x: Array, mean: Array, sums: Array, dots: Array) -> None:
    R, Q = x.shape
    for r in range(0, R - 1, 2):
        a, b, ga, gb = x[r], x[r + 1], g[r], g[r + 1]
        for q in range(Q):
            m = mean[q]
            sums[q] += np.float64(ga[q]) + gb[q]
            dots[q] += np.float64(ga[q] * (a[q] - m)) + gb[q] * (b[q] - m)
    if R % 2:
        for q in range(Q):
            sums[q] += g[R - 1, q]
            dots[q] += g[R - 1, q] * (x[R - 1, q] - mean[q])


@_jit
def _apply_backward(
    g: Array, x: Array, P: int, R: int, Q: int, mean: Array, a: Array, b: Array, c: Array, dx: Array
) -> None:
    """dx = a g + b (x - mean) + c."""
    for p in range(P):
        if Q == 1:
            plane, gs, out = x[p * R : (p + 1) * R], g[p * R : (p + 1) * R], dx[p * R : (p + 1) * R]
            m, a0, b0, c0 = mean[p], a[p], b[p], c[p]
            for r in range(R):
                out[r] = gs[r] * a0 + (plane[r] - m) * b0 + c0
            continue
        ms, a1 = mean[p * Q : (p + 1) * Q], a[p * Q : (p + 1) * Q]
        b1, c1 = b[p * Q : (p + 1) * Q], c[p * Q : (p + 1) * Q]
        for r in range(p * R, (p + 1) * R):
            line, gs, out = x[r * Q : (r + 1) * Q], g[r * Q : (r + 1) * Q], dx[r * Q : (r + 1) * Q]
            for q in range(Q):
                out[q] = gs[q] * a1[q] + (line[q] - ms[q]) * b1[q] + c1[q]
