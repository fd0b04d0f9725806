"""Reading an image at given places, and both gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.compiled import jit

Array = npt.NDArray[Any]
_ZEROS, _BORDER, _REFLECTION = 0, 1, 2
_PADDING = {"zeros": _ZEROS, "border": _BORDER, "reflection": _REFLECTION}


def grid_sample(x: Array, grid: Array, mode: str, padding_mode: str, align_corners: bool) -> Array:
    """y[n, c, place] = sum over corners of weight * x[n, c, corner]; channels-last inside."""
    source, places = _channels_last(x), _three_axes(grid)
    y = np.zeros((*places.shape[:2], x.shape[1]), x.dtype)
    _sample(source, places, mode == "nearest", _PADDING[padding_mode], align_corners, y)
    return np.moveaxis(y.reshape(*grid.shape[:-1], x.shape[1]), -1, 1)


def grid_sample_backward(
    g: Array,
    x: Array,
    grid: Array,
    mode: str,
    padding_mode: str,
    align_corners: bool,
    needs: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:
    """dx[corner] += weight g,   dgrid = sum over corners and channels of dweight/dgrid x g.

    One place after another in a fixed order, so two runs give the same bits.
    """
    source, places = _channels_last(x), _three_axes(grid)
    here = np.ascontiguousarray(np.moveaxis(g, 1, -1)).reshape(*places.shape[:2], x.shape[1])
    options = mode == "nearest", _PADDING[padding_mode], align_corners
    dx = np.zeros_like(source) if needs[0] else np.empty((0, 1, 1, 1, 1), x.dtype)
    dgrid = np.zeros_like(places) if needs[1] else np.empty((0, 1, 3), x.dtype)
    _sample_backward(here, source, places, *options, dx, dgrid)
    axes = grid.shape[-1]
    return (
        np.moveaxis(dx.reshape(x.shape[0], *x.shape[2:], x.shape[1]), -1, 1) if needs[0] else None,
        np.ascontiguousarray(dgrid[..., :axes]).reshape(grid.shape) if needs[1] else None,
    )


def _channels_last(x: Array) -> Array:
    """x (N,C,[D,]H,W) as a dense N,D,H,W,C array."""
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return last if x.ndim == 5 else last[:, None]


def _three_axes(grid: Array) -> Array:
    """grid as (N, places, 3). A depth of 1 is read at z = 0, which is its centre."""
    flat = grid.reshape(grid.shape[0], math.prod(grid.shape[1:-1]), grid.shape[-1])
    if grid.shape[-1] == 3:
        return np.ascontiguousarray(flat)
    return np.concatenate([flat, np.zeros((*flat.shape[:2], 1), grid.dtype)], axis=2)


@jit()
def _locate(u: float, n: int, nearest: bool, padding: int, align: bool) -> Any:
    """First corner on an axis of length n, weight of the second, its derivative by u."""
    slope = (n - 1) / 2 if align else n / 2  # pixels per unit of u
    s = (u + 1) * slope - (0.0 if align else 0.5)
    if padding == _REFLECTION:
        low = 0.0 if align else -0.5
        span = n - 1.0 if align else float(n)
        if span == 0:
            s, slope = 0.0 * s, 0.0
        else:
            folds = np.floor((s - low) / span)
            s -= folds * span
            if folds % 2:
                s, slope = 2 * low + span - s, -slope
    if s != s:
        return 0, np.nan, np.nan
    if padding == _ZEROS:
        s = min(max(s, -2.0), n + 1.0)  # as far outside as matters, and fit for an integer
    else:
        if not 0 < s < n - 1:
            slope = 0.0
        s = min(max(s, 0.0), n - 1.0)
    if nearest:
        return int(np.rint(s)), 0.0, 0.0
    first = np.floor(s)
    return int(first), s - first, slope


@jit()
def _sample(x: Array, grid: Array, nearest: bool, padding: int, align: bool, y: Array) -> None:
    n, depth, height, width, channels = x.shape
    for place in range(n * grid.shape[1]):
        i, p = place // grid.shape[1], place % grid.shape[1]
        x0, tx, _ = _locate(grid[i, p, 0], width, nearest, padding, align)
        y0, ty, _ = _locate(grid[i, p, 1], height, nearest, padding, align)
        z0, tz, _ = _locate(grid[i, p, 2], depth, nearest, padding, align)
        for corner in range(1 if nearest else 8):
            a, b, c = corner // 4, corner // 2 % 2, corner % 2
            weight = (tz if a else 1 - tz) * (ty if b else 1 - ty) * (tx if c else 1 - tx)
            inside = 0 <= z0 + a < depth and 0 <= y0 + b < height and 0 <= x0 + c < width
            if inside:
                for k in range(channels):
                    y[i, p, k] += x.dtype.type(weight) * x[i, z0 + a, y0 + b, x0 + c, k]


@jit()
def _sample_backward(
    g: Array,
    x: Array,
    grid: Array,
    nearest: bool,
    padding: int,
    align: bool,
    dx: Array,
    dgrid: Array,
) -> None:
    n, depth, height, width, channels = x.shape
    for place in range(n * grid.shape[1]):
        i, p = place // grid.shape[1], place % grid.shape[1]
        x0, tx, sx = _locate(grid[i, p, 0], width, nearest, padding, align)
        y0, ty, sy = _locate(grid[i, p, 1], height, nearest, padding, align)
        z0, tz, sz = _locate(grid[i, p, 2], depth, nearest, padding, align)
        for corner in range(1 if nearest else 8):
            a, b, c = corner // 4, corner // 2 % 2, corner % 2
            z, r, q = z0 + a, y0 + b, x0 + c
            if not (0 <= z < depth and 0 <= r < height and 0 <= q < width):
                continue
            wz, wy, wx = (tz if a else 1 - tz), (ty if b else 1 - ty), (tx if c else 1 - tx)
            if len(dx):
                weight = g.dtype.type(wz * wy * wx)
                for k in range(channels):
                    dx[i, z, r, q, k] += weight * g[i, p, k]
            if len(dgrid) and not nearest:
                value = 0.0
                for k in range(channels):
                    value += g[i, p, k] * x[i, z, r, q, k]
                dgrid[i, p, 0] += value * wz * wy * (sx if c else -sx)
                dgrid[i, p, 1] += value * wz * wx * (sy if b else -sy)
                dgrid[i, p, 2] += value * wy * wx * (sz if a else -sz)
