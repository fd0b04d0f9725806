"""Linear maps along one axis by a table, and what is built on them: resizing.

An `AxisMap` multiplies along one axis by a sparse matrix, kept as a table of positions and weights.
Its gradient is the same operation with the transposed table, so the family is closed and exact to
every order. Resizing, average pooling and reflected borders differ only in the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from minigan.autograd import Function
from minigan.backend import Array
from minigan.errors import DtypeError, ShapeError, UsageError, did_you_mean
from minigan.tensor import Tensor


@dataclass(frozen=True, eq=False)
class Table:
    """A matrix of few entries per row: output i is the sum over k of weight[i, k] x[index[i, k]].

    Attributes
    ----------
    index : (out, taps) int64; -1 means that there is no such tap.
    weight : (out, taps) float64.
    length : of the input axis (the number of columns).
    """

    index: Array
    weight: Array
    length: int

    @cached_property
    def transposed(self) -> Table:
        """The table of the transposed matrix: for each input, the outputs that it enters."""
        out, tap = np.nonzero(self.index >= 0)
        source = self.index[out, tap]
        order = np.argsort(source, kind="stable")
        out, tap, source = out[order], tap[order], source[order]
        count = np.bincount(source, minlength=self.length)
        slot = np.arange(len(source)) - (np.cumsum(count) - count)[source]
        shape = (self.length, max(1, int(count.max(initial=0))))
        index, weight = np.full(shape, -1, np.int64), np.zeros(shape)
        index[source, slot] = out
        weight[source, slot] = self.weight[out, tap]
        return Table(index, weight, len(self.index))


class AxisMap(Function):
    """y = M x along one axis.   dx = M^T g."""

    axis: int
    table: Table

    def forward(self, x: Array) -> Array:
        return self.kernels.axis_map(x, self.axis, self.table.index, self.table.weight)

    def backward(self, g: Any) -> Any:
        return AxisMap.on(g, axis=self.axis, table=self.table.transposed)


class PlaneMap(Function):
    """y = M x along the rows, then along the columns.   dx = the same with M^T."""

    rows: Table
    columns: Table

    def forward(self, x: Array) -> Array:
        rows, columns = self.rows, self.columns
        return self.kernels.plane_map(x, rows.index, rows.weight, columns.index, columns.weight)

    def backward(self, g: Any) -> Any:
        return PlaneMap.on(g, rows=self.rows.transposed, columns=self.columns.transposed)


def map_axes(x: Tensor, tables: Sequence[Table | None]) -> Tensor:
    """Apply one table to each spatial axis (None leaves it alone), shrinking axes first."""
    if len(tables) == 2 and x.ndim == 4 and x.dtype.kind == "f":
        rows, columns = tables
        if rows is not None and columns is not None:
            return PlaneMap.apply(x, rows=rows, columns=columns)
    steps = [(axis, table) for axis, table in enumerate(tables, start=2) if table is not None]
    for axis, table in sorted(steps, key=lambda step: len(step[1].index) / step[1].length):
        x = AxisMap.apply(x, axis=axis, table=table)
    return x


# Interpolation ---------------------------------------------------------------------------------

_KINDS = {
    "nearest": "nearest",
    "nearest-exact": "nearest-exact",
    "linear": "linear",
    "bilinear": "linear",
    "trilinear": "linear",
    "bicubic": "cubic",
}
_AXES_OF_MODE = {"linear": 1, "bilinear": 2, "trilinear": 3, "bicubic": 2}


@lru_cache(maxsize=256)
def interpolation_table(
    n: int, out: int, factor: float | None, kind: str, align_corners: bool
) -> Table:
    """The table that resizes an axis of length n to `out`; `factor` where the user gave a scale.

    With s_i the place of output i among the inputs, nearest takes x[floor(s_i)], linear mixes the
    two neighbours of s_i, cubic the four (Keys 1981, a = -0.75).
    """
    i = np.arange(out)
    if kind in ("nearest", "nearest-exact"):
        half = 0.5 if kind == "nearest-exact" else 0.0
        if factor is None:
            place = np.floor((i + half) * n / out)
        else:  # torch computes in float32 here, and pixels hang on its rounding
            place = np.floor((i + half).astype(np.float32) * np.float32(1 / factor))
        index = np.minimum(place, n - 1)[:, None]
        return Table(index.astype(np.int64), np.ones((out, 1)), n)
    if align_corners:
        place = i * (n - 1) / max(out - 1, 1)
    else:
        place = (i + 0.5) * (n / out if factor is None else 1 / factor) - 0.5
    first = np.floor(place)
    t = (place - first)[:, None]
    if kind == "linear":
        reach, weight = np.array([0, 1]), np.concatenate([1 - t, t], axis=1)
    else:
        reach = np.array([-1, 0, 1, 2])
        weight = _cubic(np.abs(t - reach))
    index = np.clip(first[:, None] + reach, 0, n - 1)
    return Table(index.astype(np.int64), weight, n)


def _cubic(t: Array) -> Array:
    a = -0.75
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.asarray(np.where(t <= 1, near, far))


def interpolate(
    x: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """Resize the spatial axes of x (N,C,*spatial). Same pixels as torch's function of this name.

    Parameters
    ----------
    size : output length of every spatial axis, or one for all.
    scale_factor : output per input length, instead of `size`; lengths are rounded down.
    mode : "nearest": input floor(i in / out), the upper left one of equals.
        "nearest-exact": floor((i + 1/2) in / out), as image libraries do.
        "linear", "bilinear", "trilinear" for 1, 2, 3 spatial axes: mixes the neighbours of
        (i + 1/2) in / out - 1/2, held at the border. No low-pass filter when shrinking.
        "bicubic" for 2 spatial axes. "area": means over the covered input.
    align_corners : the centres of corner pixels stay where they are; for the (bi/tri)linear and
        cubic modes.

    Raises
    ------
    UsageError
        for an unknown mode, or both or none of size and scale_factor.
    ShapeError
        if x has another number of spatial axes than the mode or the sizes.
    """
    spatial = _check_interpolate(x, mode, align_corners)
    out, factors = _output_lengths(spatial, size, scale_factor)
    if mode == "area":
        from minigan.ops.pool import adaptive_avg_pool  # pool stands on this module

        return adaptive_avg_pool(x, out)
    kind = _KINDS[mode]
    axes = zip(spatial, out, factors, strict=True)
    return map_axes(
        x,
        [
            None
            if n == m and factor in (None, 1)
            else interpolation_table(n, m, factor, kind, bool(align_corners))
            for n, m, factor in axes
        ],
    )


def _check_interpolate(x: Tensor, mode: str, align_corners: bool) -> tuple[int, ...]:
    modes = [*_KINDS, "area"]
    if mode not in modes:
        raise UsageError(
            f"interpolate: unknown mode '{mode}'{did_you_mean(mode, modes)}",
            fix=f"use one of {', '.join(modes)}",
        )
    nd = x.ndim - 2
    if not 1 <= nd <= 3 or nd != _AXES_OF_MODE.get(mode, nd):
        raise ShapeError(
            f"interpolate: mode '{mode}' does not fit a tensor of shape {x.shape}",
            why="x is (N, C, *spatial); linear takes 1 spatial axis, bilinear and bicubic 2, "
            "trilinear 3, the others 1 to 3",
        )
    if 0 in x.shape[2:]:
        raise ShapeError(f"interpolate: a spatial axis of {x.shape} is empty")
    if align_corners and mode in ("nearest", "nearest-exact", "area"):
        raise UsageError(
            f"interpolate: align_corners means nothing for mode '{mode}'",
            fix="leave it out, or use a linear or cubic mode",
        )
    if x.dtype.kind != "f" and not mode.startswith("nearest"):
        raise DtypeError(
            f"interpolate: mode '{mode}' cannot mix {x.dtype} values",
            fix="use mode 'nearest' for labels, or convert with astype('float32')",
        )
    return x.shape[2:]


def _output_lengths(
    spatial: tuple[int, ...],
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    if (size is None) == (scale_factor is None):
        raise UsageError("interpolate: give size or scale_factor, one of the two")
    given: Any = size if scale_factor is None else scale_factor
    values = (given,) * len(spatial) if np.ndim(given) == 0 else tuple(given)
    name = "size" if scale_factor is None else "scale_factor"
    if len(values) != len(spatial):
        raise ShapeError(
            f"interpolate: {name} {values} has {len(values)} entries, "
            f"x has {len(spatial)} spatial axes",
            where=f"spatial axes {spatial}",
        )
    if scale_factor is None:
        out = tuple(int(v) for v in values)
    else:
        out = tuple(math.floor(n * v) for n, v in zip(spatial, values, strict=True))
    if min(out) < 1:
        raise ShapeError(
            f"interpolate: {name} {given} gives output lengths {out} from {spatial}",
            fix="every output length must be at least 1",
        )
    factors = (None,) * len(spatial) if scale_factor is None else tuple(map(float, values))
    return out, factors
