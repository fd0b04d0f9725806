"""Up-sample, filter, down-sample: how StyleGAN resizes and blurs without aliasing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minigan.autograd import Function
from minigan.backend import Array
from minigan.errors import ShapeError, UsageError
from minigan.tensor import Tensor

Pair = tuple[int, int]
Filter = Tensor | Array | Sequence[float]


class Upfirdn2d(Function):
    """y = down(f * pad(up(x))), each channel by itself.   dx: the same of g, up and down swapped.

    Pairs are (rows, columns), padding ((top, bottom), (left, right)); f is a constant.
    """

    f: Array
    up: Pair
    down: Pair
    padding: tuple[Pair, Pair]
    flip: bool

    def forward(self, x: Array) -> Array:
        y = self.kernels.upfirdn2d(x, self.f, self.up, self.down, self.padding, self.flip)
        self.source, self.result = x.shape[2:], y.shape[2:]
        return y

    def backward(self, g: Any) -> Any:
        # Output i meets input j through tap j up + before - i down; seen from the other side the
        # filter runs the other way and k - 1 - before elements precede. `after` fixes the length.
        padding = []
        for i, (k, up, down) in enumerate(zip(self.f.shape, self.up, self.down, strict=True)):
            n, m, before = self.source[i], self.result[i], self.padding[i][0]
            padding.append((k - 1 - before, n * up - m * down + before - up + 1))
        swapped = {"up": self.down, "down": self.up, "flip": not self.flip}
        return Upfirdn2d.on(g, f=self.f, padding=tuple(padding), **swapped)


def setup_filter(
    f: Filter | float | None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1.0,
    separable: bool | None = None,
) -> Array:
    """Make a float32 filter for `upfirdn2d` from taps such as [1, 3, 3, 1].

    Parameters
    ----------
    f : one or two axes of taps; None is [1].
    normalize : scale the sum to 1, so that constants pass unchanged.
    flip_filter : reverse the taps.
    gain : factor of the whole filter.
    separable : keep taps of one axis so (applied to rows, then columns) instead of forming
        their outer product; by default from 8 taps on.
    """
    taps = np.array(1.0 if f is None else f.numpy() if isinstance(f, Tensor) else f, np.float64)
    if taps.ndim > 2 or not taps.size:
        raise ShapeError(f"setup_filter: taps of shape {taps.shape}", why="one or two axes of taps")
    taps = np.atleast_1d(taps)
    if taps.ndim == 2 and separable:
        raise UsageError("setup_filter: a filter of two axes is not separable", fix="give one axis")
    if taps.ndim == 1 and not (taps.size >= 8 if separable is None else separable):
        taps = np.outer(taps, taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = np.flip(taps)
    return np.asarray(taps * gain ** (taps.ndim / 2), np.float32)


def upfirdn2d(
    x: Tensor,
    f: Filter | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros, pad, convolve each channel of x (N,C,H,W) with f, keep every down-th pixel.

    Arguments as in NVIDIA's function of this name, so pairs are (x, y): columns, then rows.

    Parameters
    ----------
    f : constant filter (kh, kw), or (k,) for a separable one; None is the identity. No gradient.
    up : one number or (x, y); up - 1 zeros follow each pixel.
    down : one number or (x, y).
    padding : zeros around the up-sampled image, one number, (x, y), or (left, right, top,
        bottom); negative numbers crop.
    flip_filter : False convolves, True correlates.
    gain : factor of the result.

    Returns
    -------
    (N, C, H', W') with H' = (H up + top + bottom - kh) // down + 1.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020).
    """
    taps = _taps(x, f)
    (up_x, up_y), (down_x, down_y) = _pair("up", up), _pair("down", down)
    left, right, top, bottom = _four(padding)
    taps = taps * float(gain) ** (taps.ndim / 2)
    if taps.ndim == 1:
        beside, above = ((0, 0), (left, right)), ((top, bottom), (0, 0))
        x = _apply(x, taps[None, :], (1, up_x), (1, down_x), beside, flip_filter)
        return _apply(x, taps[:, None], (up_y, 1), (down_y, 1), above, flip_filter)
    around = (top, bottom), (left, right)
    return _apply(x, taps, (up_y, up_x), (down_y, down_x), around, flip_filter)


def filter2d(
    x: Tensor,
    f: Filter | None,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Filter x; the result has x's size, plus `padding`. See `upfirdn2d`."""
    kx, ky = _lengths(x, f)
    extra = (kx // 2, (kx - 1) // 2, ky // 2, (ky - 1) // 2)
    return upfirdn2d(x, f, padding=_sum(padding, extra), flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: Tensor,
    f: Filter | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Enlarge x `up` times and filter; constants keep their value if f sums to 1."""
    (kx, ky), (ux, uy) = _lengths(x, f), _pair("up", up)
    extra = ((kx + ux - 1) // 2, (kx - ux) // 2, (ky + uy - 1) // 2, (ky - uy) // 2)
    gain *= ux * uy  # of up^2 pixels only one is not zero
    return upfirdn2d(x, f, up, 1, _sum(padding, extra), flip_filter, gain)


def downsample2d(
    x: Tensor,
    f: Filter | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Filter x and keep every down-th pixel."""
    (kx, ky), (dx, dy) = _lengths(x, f), _pair("down", down)
    extra = ((kx - dx + 1) // 2, (kx - dx) // 2, (ky - dy + 1) // 2, (ky - dy) // 2)
    return upfirdn2d(x, f, 1, down, _sum(padding, extra), flip_filter, gain)


def _apply(
    x: Tensor, f: Array, up: Pair, down: Pair, padding: tuple[Pair, Pair], flip: bool
) -> Tensor:
    for name, n, k, u, (before, after) in zip(
        ("rows", "columns"), x.shape[2:], f.shape, up, padding, strict=True
    ):
        if n * u + min(before, 0) + min(after, 0) < 0 or n * u + before + after < k:
            raise ShapeError(
                f"upfirdn2d: a filter of {k} {name} does not fit {n * u + before + after} {name}",
                where=f"x {x.shape}, up {u}, padding ({before}, {after})",
                why="the up-sampled and padded image must hold the filter once",
            )
    return Upfirdn2d.apply(x, f=f, up=up, down=down, padding=padding, flip=bool(flip))


def _taps(x: Tensor, f: Filter | None) -> Array:
    """The filter as a float array of one or two axes."""
    if x.ndim != 4:
        raise ShapeError(f"upfirdn2d: x {x.shape} is not (N, C, H, W)")
    if isinstance(f, Tensor) and f.requires_grad:
        raise UsageError(
            "upfirdn2d: the filter asks for a gradient",
            why="filters are constants here",
            fix="detach() it, or use a depthwise conv2d",
        )
    taps = np.asarray([[1.0]] if f is None else f.numpy() if isinstance(f, Tensor) else f)
    if taps.ndim not in (1, 2) or not taps.size:
        raise ShapeError(f"upfirdn2d: filter of shape {taps.shape}", why="(kh, kw) or (k,)")
    return taps if taps.dtype.kind == "f" else taps.astype(x.dtype)


def _lengths(x: Tensor, f: Filter | None) -> Pair:
    """Columns and rows of the filter."""
    taps = _taps(x, f)
    return taps.shape[-1], taps.shape[0]


def _pair(name: str, value: int | Sequence[int]) -> Pair:
    """(x, y) from one number or two."""
    values = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(values) != 2 or min(values) < 1:
        raise UsageError(f"upfirdn2d: {name} {value}", why="one integer >= 1, or two: (x, y)")
    return int(values[0]), int(values[1])


def _four(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) from one number, two or four."""
    values = [padding] * 4 if isinstance(padding, int | np.integer) else list(padding)
    if len(values) == 2:
        values = [values[0], values[0], values[1], values[1]]
    if len(values) != 4:
        raise UsageError(
            f"upfirdn2d: padding {padding}",
            why="one integer, two (x, y) or four (left, right, top, bottom)",
        )
    left, right, top, bottom = map(int, values)
    return left, right, top, bottom


def _sum(padding: int | Sequence[int], extra: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(_four(padding), extra, strict=True)]
