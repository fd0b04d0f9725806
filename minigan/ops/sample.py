"""Reading an image at any places: affine grids and grid_sample."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from minigan.autograd import Fused
from minigan.backend import Array, beside
from minigan.errors import DtypeError, ShapeError, UsageError, did_you_mean
from minigan.ops.indexing import GatherPositions
from minigan.ops.linear import matmul
from minigan.tensor import Tensor

_MODES = ("bilinear", "nearest")
_PADDING_MODES = ("zeros", "border", "reflection")


class GridSample(Fused):
    """y[n,c,place] = sum of w x[n,c,corner] over the corners around each place.

    dx[corner] += w g,   dgrid = sum over corners and channels of g x dw/dgrid.
    """

    saves = ("x", "grid")
    mode: str
    padding_mode: str
    align_corners: bool

    def forward(self, x: Array, grid: Array) -> Array:
        return self.kernels.grid_sample(x, grid, self.mode, self.padding_mode, self.align_corners)

    def backward_kernel(self, g: Array, x: Array, grid: Array) -> Any:
        options = self.mode, self.padding_mode, self.align_corners
        return self.kernels.grid_sample_backward(g, x, grid, *options, self.needs)

    def reference(self, x: Tensor, grid: Tensor) -> Tensor:
        spatial = x.shape[2:]
        taps = [self._taps(grid[..., -1 - i], n) for i, n in enumerate(spatial)]
        total: Any = 0.0
        for corner in product(*taps):
            flat: Any = 0
            weight: Any = 1.0
            for n, (position, factor) in zip(spatial, corner, strict=True):
                flat, weight = flat * n + position, weight * factor
            here = GatherPositions.apply(x, index=flat[:, None])
            total = here * weight.reshape(flat[:, None].shape) + total
        return total

    def _taps(self, u: Tensor, n: int) -> list[tuple[Array, Tensor]]:
        """Positions and weights of the pixels around each u on an axis of length n.

        Whatever the padding mode, the place in pixels is a line in u wherever it has a derivative.
        """
        slope, offset = _lines(u.data, n, self.padding_mode, self.align_corners)
        s = u * slope + offset
        if self.mode == "nearest":
            taps = [(np.rint(s.data), Tensor(np.ones_like(s.data) + 0 * s.data))]
        else:
            first = np.floor(s.data)
            taps = [(first, (first + 1) - s), (first + 1, s - first)]
        inside = [((j >= 0) & (j < n)) | np.isnan(j) for j, _ in taps]
        return [
            (np.nan_to_num(j).clip(0, n - 1).astype(np.int64), w * ok.astype(s.dtype))
            for (j, w), ok in zip(taps, inside, strict=True)
        ]


def _lines(u: Array, n: int, padding_mode: str, align_corners: bool) -> tuple[Array, Array]:
    """slope and offset of s(u) = slope u + offset, the place in pixels, at each u."""
    scale = (n - 1) / 2 if align_corners else n / 2
    slope = np.full_like(u, scale)
    offset = np.full_like(u, scale - (0.0 if align_corners else 0.5))
    if padding_mode == "reflection":
        low, span = (0.0, n - 1.0) if align_corners else (-0.5, float(n))
        folds = np.floor((slope * u + offset - low) / span) if span else np.zeros_like(u)
        offset = offset - folds * span
        odd = folds % 2 != 0
        slope, offset = np.where(odd, -slope, slope), np.where(odd, 2 * low + span - offset, offset)
    if padding_mode != "zeros":
        s = slope * u + offset
        outside = (s <= 0) | (s >= n - 1)
        slope, offset = np.where(outside, 0, slope), np.where(outside, s.clip(0, n - 1), offset)
    return slope.astype(u.dtype), offset.astype(u.dtype)


def grid_sample(
    x: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """Read x (N,C,H,W) at the places of `grid`, with gradients in both.

    Parameters
    ----------
    x : (N, C, H, W), or (N, C, D, H, W).
    grid : (N, H', W', 2) of (x, y), or (N, D', H', W', 3) of (x, y, z), in [-1, 1] from the left
        and top to the right and bottom of the image.
    mode : "bilinear" (trilinear for volumes) or "nearest" (gradient in x only).
    padding_mode : what lies outside: "zeros", "border" (the nearest pixel) or "reflection".
    align_corners : whether -1 and 1 are the centres of the border pixels, or their outer edges.

    Source: Jaderberg et al., "Spatial Transformer Networks" (2015), equation 5.
    """
    for option, value, choices in (
        ("mode", mode, _MODES),
        ("padding_mode", padding_mode, _PADDING_MODES),
    ):
        if value not in choices:
            raise UsageError(
                f"grid_sample: unknown {option} '{value}'{did_you_mean(value, choices)}",
                fix=f"use one of {', '.join(choices)}",
            )
    axes = x.ndim - 2
    fits = axes in (2, 3) and grid.ndim == x.ndim and grid.shape[-1] == axes
    if not fits or grid.shape[0] != x.shape[0] or 0 in x.shape[2:]:
        raise ShapeError(
            f"grid_sample: x {x.shape} and grid {grid.shape} do not fit",
            why="x (N, C, H, W) takes a grid (N, H', W', 2), x (N, C, D, H, W) one of "
            "(N, D', H', W', 3); no spatial axis of x is empty",
        )
    if x.dtype.kind != "f":
        raise DtypeError(f"grid_sample: x is {x.dtype}", fix="convert with astype('float32')")
    return GridSample.apply(
        x, grid, mode=mode, padding_mode=padding_mode, align_corners=bool(align_corners)
    )


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """The grid at which `grid_sample` reads an image moved by theta.

    Place (x, y) of the result is theta @ (x, y, 1) in the image.

    Parameters
    ----------
    theta : (N, 2, 3) for images, (N, 3, 4) for volumes.
    size : (N, C, H, W) or (N, C, D, H, W) of the result.
    align_corners : as for `grid_sample`.

    Returns
    -------
    (N, H, W, 2) or (N, D, H, W, 3)
    """
    axes = len(size) - 2
    if axes not in (2, 3) or theta.shape != (size[0], axes, axes + 1) or min(size[2:]) < 1:
        raise ShapeError(
            f"affine_grid: theta {theta.shape} does not fit size {tuple(size)}",
            why="(N, 2, 3) goes with (N, C, H, W), (N, 3, 4) with (N, C, D, H, W)",
        )
    lines = [_centres(n, align_corners) for n in size[2:]]
    places = np.meshgrid(*lines, indexing="ij")[::-1]  # x varies fastest and comes first
    homogeneous = np.stack([*places, np.ones_like(places[0])], -1).reshape(1, -1, axes + 1)
    known = Tensor(beside(homogeneous.astype(theta.dtype), theta.data))
    flat = matmul(known, theta.transpose(0, 2, 1))
    return flat.reshape(size[0], *size[2:], axes)


def _centres(n: int, align_corners: bool) -> Array:
    """Coordinates in [-1, 1] of the n pixels of an axis."""
    if align_corners:
        return np.linspace(-1, 1, n) if n > 1 else np.zeros(1)
    return (2 * np.arange(n) + 1) / n - 1
