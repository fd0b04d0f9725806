"""Definitions of resampling: maps along one axis, interpolation and padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def axis_map(x: Array, axis: int, index: Array, weight: Array) -> Array:
    """y[.., i, ..] = sum over k of weight[i, k] x[.., index[i, k], ..].

    Parameters
    ----------
    x : any shape.
    axis : the axis that the map works along; it gets as many elements as the table has rows.
    index : (out, taps) integers; -1 means that there is no such tap.
    weight : (out, taps); converted to x's dtype.
    """
    rows = np.moveaxis(x, axis, 0)
    y = np.zeros((len(index), *rows.shape[1:]), x.dtype)
    for i, taps in enumerate(index):
        for k, j in enumerate(taps):
            if j >= 0:
                y[i] += weight[i, k].astype(x.dtype) * rows[j]
    return np.moveaxis(y, 0, axis)


def plane_map(
    x: Array, row_index: Array, row_weight: Array, column_index: Array, column_weight: Array
) -> Array:
    """axis_map of axis 2 (rows of images) by the first table, then of axis 3 by the second."""
    return axis_map(axis_map(x, 2, row_index, row_weight), 3, column_index, column_weight)


def interpolate(
    x: Array,
    size: Sequence[int],
    scale: Sequence[float | None],
    mode: str,
    align_corners: bool = False,
) -> Array:
    """Resize the spatial axes of x (N,C,*spatial), one after another.

    y_i = sum over j of h(s_i - j) x_j, where s_i is the place of output i among the inputs, h is
    the hat function ("linear") or Keys' cubic ("cubic"), and j is held inside the input.

    Parameters
    ----------
    size : output lengths.
    scale : output per input length where the user gave one, else None (then out / in counts).
    mode : "nearest", "nearest-exact", "linear" or "cubic".

    As in PyTorch, "nearest" with a given scale rounds like float32.
    """
    for axis, (out, factor) in enumerate(zip(size, scale, strict=True), start=2):
        rows = np.moveaxis(x, axis, 0)
        y = np.zeros((out, *rows.shape[1:]), x.dtype)
        for i in range(out):
            for j, w in _taps(i, len(rows), out, factor, mode, align_corners):
                if w:
                    y[i] += w * rows[min(max(j, 0), len(rows) - 1)]
        x = np.moveaxis(y, 0, axis)
    return x


def _taps(
    i: int, n: int, out: int, factor: float | None, mode: str, align_corners: bool
) -> list[tuple[int, float]]:
    """Positions and weights of the inputs that make output i."""
    step = 1 / factor if factor else n / out  # inputs per output
    if mode.startswith("nearest"):
        s = i + (0.5 if mode == "nearest-exact" else 0.0)
        exact = math.floor(s * n / out)
        return [(math.floor(np.float32(s) * np.float32(step)) if factor else exact, 1.0)]
    if align_corners:
        s = i * (n - 1) / (out - 1) if out > 1 else 0.0
    else:
        s = (i + 0.5) * step - 0.5
    if mode == "linear":
        s = max(s, 0.0)
        return [(j, max(0.0, 1 - abs(s - j))) for j in range(math.floor(s), math.floor(s) + 2)]
    return [(j, _cubic(abs(s - j))) for j in range(math.floor(s) - 1, math.floor(s) + 3)]


def _cubic(t: float, a: float = -0.75) -> float:
    """Keys' piecewise cubic (1981) with the slope that PyTorch and OpenCV use."""
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def pad(x: Array, widths: Sequence[tuple[int, int]], mode: str, value: float = 0.0) -> Array:
    """Elements before and after each axis of x; a negative width crops.

    `mode`: "constant"; "reflect" mirrors at the edge element; "replicate" repeats it; "circular"
    continues at the other end.
    """
    added = [(max(a, 0), max(b, 0)) for a, b in widths]
    if mode == "constant":
        y = np.pad(x, added, constant_values=value)
    else:
        y = np.pad(x, added, mode={"reflect": "reflect", "replicate": "edge"}.get(mode, "wrap"))  # type: ignore[call-overload]
    cut = [slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(widths, y.shape, strict=True)]
    return np.asarray(y[tuple(cut)])
