"""Images read at turned, scaled and moved places, without aliasing.

An image is doubled in size by the wavelet filter sym6, sampled bilinearly at the places of a grid
of that density, and halved by the same filter. As the filter belongs to an orthogonal wavelet,
doubling and halving without a change of place in between is the identity. What lies outside is
the image reflected, again and again.

Where this departs from the paper: that one reflects before it doubles, and pads the images by as
much as the most unlucky one of the batch needs. Here the doubled image is reflected at the centres
of the outer pixels by folding the coordinates, so nothing depends on what was drawn but the
numbers; the difference is that behind an edge the filter runs the other way. All of it is linear in
x: two tables and `grid_sample`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

import minigan.functional as F
from minigan.backend import Array, backend_of
from minigan.ops.resample import Table, map_axes
from minigan.tensor import Tensor

# The low-pass filter of the symlet with six vanishing moments (Daubechies 1992, table 6.3), sum 1.
SYM6 = np.array([
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
]) / np.sqrt(2)  # fmt: skip
REACH = 5  # samples beyond the doubled image that halving reads on each side


def warped(x: Tensor, theta: Tensor) -> Tensor:
    """x (N,C,H,W) read at the places theta (N,2,3) (x, y, 1), in pixels from the centre."""
    height, width = x.shape[2:]
    doubled = map_axes(x, (doubling(height), doubling(width)))
    places = grid(theta, height, width)
    read = F.grid_sample(doubled, places, padding_mode="reflection", align_corners=True)
    return map_axes(read, (halving(height), halving(width)))


def grid(theta: Tensor, height: int, width: int) -> Tensor:
    """The places of the samples that halving needs, the centres of outer pixels at +-1."""
    xp, m = backend_of(theta.data).xp, theta.data
    y, x = (centred(xp, n).astype(theta.dtype) for n in (height, width))
    y, x = y.reshape(1, -1, 1), x.reshape(1, 1, -1)

    def along(axis: int, n: int) -> Any:
        a, b, c = (m[:, axis, k].reshape(-1, 1, 1) for k in range(3))
        return (a * x + b * y + c) * (2 / (n - 1))

    return Tensor(xp.stack([along(0, width), along(1, height)], axis=-1))


def centred(xp: Any, n: int) -> Array:
    """Samples -REACH .. 2n - 1 + REACH of a doubled axis, in pixels from the centre.

    Sample j stands at pixel j / 2, since the filter is nearly symmetric about k = REACH.
    """
    return (xp.arange(-REACH, 2 * n + REACH) - (n - 1)) / 2


@lru_cache(maxsize=64)
def doubling(n: int) -> Table:
    """Samples 0 .. 2n - 2 of a doubled axis: those between the centres of the outer pixels.

    Pixel i gives 2 h[k] of itself to sample j = 2i + k - REACH.
    """
    j = np.arange(2 * n - 1)[:, None]
    k = (j + REACH) % 2 + np.arange(0, len(SYM6), 2)
    return Table(folded((j + REACH - k) // 2, n), 2 * SYM6[k], n)


@lru_cache(maxsize=64)
def halving(n: int) -> Table:
    """n pixels from 2n + 2 REACH samples: pixel i takes h[k] of sample j = 2i + k - REACH."""
    k = np.arange(len(SYM6))
    index = 2 * np.arange(n)[:, None] + k
    return Table(index, np.broadcast_to(SYM6, index.shape).copy(), 2 * (n + REACH))


def folded(i: Array, n: int) -> Array:
    """Integer places brought into 0 .. n - 1 by reflection at both ends; n is at least 2."""
    i = i % (2 * n - 2)
    return np.minimum(i, 2 * n - 2 - i)
