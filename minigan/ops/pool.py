"""Averages and maxima of windows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minigan.autograd import Function
from minigan.backend import Array
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.ops.indexing import ScatterPositions
from minigan.ops.resample import Table, map_axes
from minigan.tensor import Tensor

Sizes = int | Sequence[int]


# Average ---------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def window_table(n: int, k: int, s: int, p: int, ceil_mode: bool, count_include_pad: bool) -> Table:
    """The table that averages windows of length k, s apart, along an axis of length n."""
    start = np.arange(_window_count(n, k, s, p, 1, ceil_mode)) * s - p
    place = start[:, None] + np.arange(k)
    inside = (place >= 0) & (place < n)
    padded = np.minimum(start + k, n + p) - start  # what lies beyond the padding never counts
    count = padded if count_include_pad else inside.sum(axis=1)
    weight = np.where(inside, 1 / count[:, None], 0.0)
    return Table(np.where(inside, place, -1).astype(np.int64), weight, n)


@lru_cache(maxsize=256)
def adaptive_table(n: int, out: int) -> Table:
    """The table that averages from floor(i n / out) up to ceil((i + 1) n / out)."""
    i = np.arange(out)
    start, end = i * n // out, -(-(i + 1) * n // out)
    place = start[:, None] + np.arange(int((end - start).max()))
    inside = place < end[:, None]
    weight = np.where(inside, 1 / (end - start)[:, None], 0.0)
    return Table(np.where(inside, place, -1).astype(np.int64), weight, n)


def _avg_pool(
    name: str,
    nd: int,
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor:
    options = _windows(name, nd, x, kernel_size, stride, padding, 1, ceil_mode)
    if x.dtype.kind != "f":
        raise DtypeError(f"{name}: cannot average {x.dtype} values")
    rule = bool(ceil_mode), bool(count_include_pad)
    return map_axes(
        x,
        [
            None if (k, s, p) == (1, 1, 0) else window_table(n, k, s, p, *rule)
            for n, k, s, p, _ in options
        ],
    )


def avg_pool1d(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window of x (N,C,L); see `avg_pool2d`."""
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window of x (N,C,H,W).

    Parameters
    ----------
    kernel_size, stride, padding : one number, or one per spatial axis. `stride` is `kernel_size`
        by default; `padding` is at most half of `kernel_size`.
    ceil_mode : let a last window hang over the end, if it starts inside.
    count_include_pad : True divides by all elements of the window, zeros of the padding
        included; False (SPADE's and pix2pixHD's image pyramids) by those of x alone.
    """
    return _avg_pool("avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool3d(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window of x (N,C,D,H,W); see `avg_pool2d`."""
    return _avg_pool("avg_pool3d", 3, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def adaptive_avg_pool(x: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """Means over windows that cover the spatial axes of x and give `output_size` of them.

    Window i of an axis runs from floor(i n / out) up to ceil((i + 1) n / out); neighbours
    overlap where out does not divide n. None keeps the length of an axis.
    """
    spatial = x.shape[2:]
    wanted = [output_size] * len(spatial) if isinstance(output_size, int) else list(output_size)
    if len(wanted) != len(spatial) or not spatial:
        raise ShapeError(f"adaptive_avg_pool: size {output_size} for a tensor of shape {x.shape}")
    out = [n if m is None else int(m) for m, n in zip(wanted, spatial, strict=True)]
    if min(out) < 1 or 0 in spatial:
        raise ShapeError(f"adaptive_avg_pool: cannot average {spatial} to {tuple(out)}")
    return map_axes(
        x, [None if n == m else adaptive_table(n, m) for n, m in zip(spatial, out, strict=True)]
    )


def adaptive_avg_pool2d(x: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """Means over windows that cover x (N,C,H,W); see `adaptive_avg_pool`."""
    if x.ndim != 4:
        raise ShapeError(f"adaptive_avg_pool2d: x {x.shape} is not (N, C, H, W)")
    return adaptive_avg_pool(x, output_size)


# Maximum ---------------------------------------------------------------------------------------


class MaxPool(Function):
    """y = largest element of each window.   dx = g at the place of the first largest one.

    The places are integers kept from forward, so higher derivatives are gathers and scatters.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    def forward(self, x: Array) -> Array:
        self.spatial = x.shape[2:]
        options = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        y, self.index = self.kernels.max_pool(x, *options)
        return y

    def backward(self, g: Any) -> Any:
        return ScatterPositions.on(g, index=self.index, spatial=self.spatial)


def _max_pool(
    name: str,
    nd: int,
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> Tensor:
    options = _windows(name, nd, x, kernel_size, stride, padding, dilation, ceil_mode)
    for n, k, s, p, d in options:
        if not _all_meet(n, k, s, p, d, bool(ceil_mode)):
            raise ShapeError(
                f"{name}: a window of length {k} (dilation {d}) meets only padding",
                where=f"x {x.shape}, padding {p}",
                fix="use less padding or dilation",
            )
    _, kernels, strides, paddings, dilations = zip(*options, strict=True)
    return MaxPool.apply(
        x,
        kernel_size=kernels,
        stride=strides,
        padding=paddings,
        dilation=dilations,
        ceil_mode=bool(ceil_mode),
    )


@lru_cache(maxsize=256)
def _all_meet(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> bool:
    """Whether every window along an axis has an element in it."""
    start = np.arange(_window_count(n, k, s, p, d, ceil_mode)) * s - p
    place = start[:, None] + d * np.arange(k)
    return bool(((place >= 0) & (place < n)).any(axis=1).all())


def max_pool1d(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest element of each window of x (N,C,L); see `max_pool2d`."""
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest element of each window of x (N,C,H,W); the first of equal ones takes the gradient.

    Parameters
    ----------
    kernel_size, stride, padding, dilation : one number, or one per spatial axis. `stride` is
        `kernel_size` by default; `padding` (never a maximum) is at most half of `kernel_size`.
    ceil_mode : let a last window hang over the end, if it starts inside.
    """
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d(
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest element of each window of x (N,C,D,H,W); see `max_pool2d`."""
    return _max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode)


# Windows ---------------------------------------------------------------------------------------


def _window_count(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """Number of windows; with ceil_mode a last one may hang over, if it starts before n."""
    span = n + 2 * p - d * (k - 1) - 1
    count = (-(-span // s) if ceil_mode else span // s) + 1
    return count - 1 if ceil_mode and (count - 1) * s >= n + p else count


def _windows(
    name: str,
    nd: int,
    x: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> list[tuple[int, int, int, int, int]]:
    """(length, kernel, stride, padding, dilation) of each spatial axis, checked."""
    if x.ndim != nd + 2:
        raise ShapeError(
            f"{name}: x has shape {x.shape}", why=f"it needs {nd + 2} axes: N, C and {nd} spatial"
        )
    k = per_axis(name, "kernel_size", kernel_size, nd, 1)
    s = k if stride is None else per_axis(name, "stride", stride, nd, 1)
    p = per_axis(name, "padding", padding, nd, 0)
    d = per_axis(name, "dilation", dilation, nd, 1)
    for axis, (n, ki, pi, di) in enumerate(zip(x.shape[2:], k, p, d, strict=True), start=2):
        if 2 * pi > ki:
            raise UsageError(
                f"{name}: padding {pi} is more than half of kernel_size {ki}",
                why="some windows would lie in the padding alone",
            )
        if n + 2 * pi < di * (ki - 1) + 1:
            raise ShapeError(
                f"{name}: windows of length {di * (ki - 1) + 1} do not fit axis {axis} "
                f"of length {n} with padding {pi}",
                where=f"x {x.shape}",
                fix="use a smaller kernel_size or a larger input",
            )
    return list(zip(x.shape[2:], k, s, p, d, strict=True))


def per_axis(name: str, option: str, value: Sizes, nd: int, low: int) -> tuple[int, ...]:
    """`value` as one int >= low for each of `nd` spatial axes."""
    values: tuple[Any, ...] = (value,) * nd if np.ndim(value) == 0 else tuple(value)  # type: ignore[arg-type]
    if len(values) != nd or any(v < low or int(v) != v for v in values):
        raise UsageError(
            f"{name}: {option} {value}",
            why=f"{option} is one integer >= {low}, or one for each of {nd} spatial axes",
        )
    return tuple(int(v) for v in values)
