"""Definition of grid_sample: read an image at given places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tap = tuple[int, float, float]  # position, weight, derivative of the weight by the grid


def grid_sample(x: Array, grid: Array, mode: str, padding_mode: str, align_corners: bool) -> Array:
    """y[n, c, place] = sum over corners of weight * x[n, c, corner].

    Parameters
    ----------
    x : (N, C, *spatial) with 2 or 3 spatial axes.
    grid : (N, *out, axes); last axis x, y(, z) in [-1, 1] from the left, top edge to the right,
        bottom one. With `align_corners` -1 and 1 are the centres of the border pixels, without it
        their outer edges.
    mode : "bilinear" (trilinear for 5-d x) or "nearest" (halves go to the even neighbour).
    padding_mode : what lies outside: "zeros", "border" (the nearest pixel), "reflection".

    A coordinate that is NaN gives NaN, and so does a reflected infinity.
    """
    y = np.zeros((*x.shape[:2], *grid.shape[1:-1]), x.dtype)
    options = mode, padding_mode, align_corners
    for n, *place in np.ndindex(grid.shape[:-1]):
        for corner, weight, _ in _corners(grid[(n, *place)], x.shape[2:], *options):
            y[(n, slice(None), *place)] += weight * x[(n, slice(None), *corner)]
    return y


def grid_sample_backward(
    g: Array,
    x: Array,
    grid: Array,
    mode: str,
    padding_mode: str,
    align_corners: bool,
    needs: tuple[bool, bool] = (True, True),
) -> tuple[Array | None, Array | None]:
    """dx[corner] += weight g,   dgrid = sum over corners and channels of dweight/dgrid x g."""
    dx, dgrid = np.zeros_like(x), np.zeros_like(grid)
    options = mode, padding_mode, align_corners
    for n, *place in np.ndindex(grid.shape[:-1]):
        here = g[(n, slice(None), *place)]
        for corner, weight, slopes in _corners(grid[(n, *place)], x.shape[2:], *options):
            dx[(n, slice(None), *corner)] += weight * here
            dgrid[(n, *place)] += np.multiply(slopes, here @ x[(n, slice(None), *corner)])
    return dx if needs[0] else None, dgrid if needs[1] else None


def _corners(
    at: Array, spatial: Sequence[int], mode: str, padding_mode: str, align_corners: bool
) -> Iterator[tuple[tuple[int, ...], float, list[float]]]:
    """Pixels around one place: position, weight, and derivatives of the weight by x, y(, z)."""
    taps = [
        _taps(float(u), n, mode, padding_mode, align_corners)
        for u, n in zip(at[::-1], spatial, strict=True)
    ]
    for corner in product(*taps):
        weights = [w for _, w, _ in corner]
        slopes = [
            slope * math.prod(weights[:i]) * math.prod(weights[i + 1 :])
            for i, (_, _, slope) in enumerate(corner)
        ]
        yield tuple(j for j, _, _ in corner), math.prod(weights), slopes[::-1]


def _taps(u: float, n: int, mode: str, padding_mode: str, align_corners: bool) -> list[Tap]:
    """The one or two pixels of an axis of length n that surround the grid coordinate u."""
    slope = (n - 1) / 2 if align_corners else n / 2  # pixels per unit of u
    s = (u + 1) * slope - (0 if align_corners else 0.5)
    if padding_mode == "reflection":
        low, high = (0, n - 1) if align_corners else (-0.5, n - 0.5)
        s, slope = _reflect(s, slope, low, high)
    if math.isnan(s):
        return [(0, math.nan, math.nan)]
    if padding_mode == "zeros":
        s = min(max(s, -2.0), n + 1.0)
    else:
        if not 0 < s < n - 1:
            slope = 0.0
        s = min(max(s, 0.0), n - 1.0)
    j = math.floor(s)
    pair = [(j, 1 - (s - j), -slope), (j + 1, s - j, slope)]
    taps = [(round(s), 1.0, 0.0)] if mode == "nearest" else pair
    return [tap for tap in taps if 0 <= tap[0] < n]


def _reflect(s: float, slope: float, low: float, high: float) -> tuple[float, float]:
    """Fold the line at `low` and `high` until s lies between; the slope turns at every fold."""
    if not math.isfinite(s):
        return math.nan, math.nan
    if low == high:
        return low, 0.0
    while not low <= s <= high:
        s, slope = (2 * low - s if s < low else 2 * high - s), -slope
    return s, slope
