"""DiffAugment: a few strong, simple changes of colour and place, always applied.

Zhao, Liu, Lin, Zhu, Han: Differentiable Augmentation for Data-Efficient GAN Training (2020),
arXiv:2006.10738.

Policies, always in this order, with numbers of its own for each image:

    color        x + b;   (x - m_c) s + m_c;   (x - m) k + m
                 brightness b ~ U(-1/2, 1/2), saturation s ~ U(0, 2), contrast k ~ U(1/2, 3/2);
                 m_c is the mean over the channels of a pixel, m that over the image
    translation  moved by t_y, t_x pixels, |t| <= H / 8, W / 8, zeros where nothing comes from
    cutout       zeros in a window of H / 2 x W / 2, whose centre is anywhere in the image

In images of [-1, 1], zero is mid-grey. All are linear or affine in x and have gradients of every
order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan.augment.base import Augment, check_images, fed
from minigan.backend import Array, backend_of
from minigan.errors import UsageError, did_you_mean
from minigan.ops.indexing import GatherPositions
from minigan.tensor import Tensor

POLICIES = ("color", "translation", "cutout")
MOVED = 1 / 8  # of the height and width, at most
CUT = 1 / 2


class DiffAugment(Augment):
    """See above.

    Parameters
    ----------
    policy : some of "color", "translation", "cutout", separated by commas.
    """

    def __init__(self, policy: str = ",".join(POLICIES)) -> None:
        wanted = [name.strip() for name in policy.split(",")]
        for name in wanted:
            if name not in POLICIES:
                raise UsageError(
                    f"diffaugment: unknown policy '{name}'{did_you_mean(name, POLICIES)}",
                    fix=f"use some of {','.join(POLICIES)}",
                )
        self.policy = tuple(name for name in POLICIES if name in wanted)

    def __call__(self, x: Tensor) -> Tensor:
        check_images("diffaugment", x)
        n, _, *size = x.shape
        if "color" in self.policy:
            x = recoloured(x, fed(lambda rng: draw_colours(rng, n), x))
        if "translation" in self.policy:
            x = translated(x, fed(lambda rng: draw_shifts(rng, n, size), x))
        if "cutout" in self.policy:
            x = cut_out(x, fed(lambda rng: draw_centres(rng, n, size), x))
        return x


# The draws -------------------------------------------------------------------------------------


def draw_colours(rng: np.random.Generator, n: int) -> Array:
    """b, s, k, each (N, 1, 1, 1)."""
    low, high = np.array([[-0.5, 0.0, 0.5], [0.5, 2.0, 1.5]]).reshape(2, 3, 1, 1, 1, 1)
    return rng.uniform(low, high, (3, n, 1, 1, 1))


def draw_shifts(rng: np.random.Generator, n: int, size: list[int]) -> Array:
    """t_y, t_x of each image, (N, 2)."""
    most = [int(length * MOVED + 0.5) for length in size]
    return rng.integers([-m for m in most], [m + 1 for m in most], (n, 2))


def draw_centres(rng: np.random.Generator, n: int, size: list[int]) -> Array:
    """Of the windows, (N, 2). An even window has its centre left of a pixel, so n + 1 places."""
    ends = [length + 1 - window(length) % 2 for length in size]
    return rng.integers(0, ends, (n, 2))


def window(length: int) -> int:
    """How long the window is in an image of this length."""
    return int(length * CUT + 0.5)


# What they do ----------------------------------------------------------------------------------


def recoloured(x: Tensor, drawn: Tensor) -> Tensor:
    """Brightness, saturation, contrast."""
    brightness, saturation, contrast = drawn[0], drawn[1], drawn[2]
    x = x + brightness
    if x.shape[1] > 1:  # a single channel is its mean
        mean = x.mean(axis=1, keepdims=True)
        x = (x - mean) * saturation + mean
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return (x - mean) * contrast + mean


def translated(x: Tensor, shifts: Tensor) -> Tensor:
    """Pixel i of the result is pixel i - t of x, or 0 where there is none."""
    (height, width), (i, j) = x.shape[2:], places(x)
    rows, columns = i - of_each(shifts, 0), j - of_each(shifts, 1)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    index = rows.clip(0, height - 1) * width + columns.clip(0, width - 1)
    return GatherPositions.apply(x, index=index) * Tensor(inside.astype(x.dtype))


def cut_out(x: Tensor, centres: Tensor) -> Tensor:
    """Zero where both the row and the column lie in the window."""
    hole: Any = True
    for axis, here in enumerate(places(x)):
        length = window(x.shape[2 + axis])
        start = of_each(centres, axis) - length // 2
        hole = hole & (here >= start) & (here < start + length)
    return x * Tensor((~hole).astype(x.dtype))


def places(x: Tensor) -> tuple[Array, Array]:
    """Numbers of the rows (H, 1) and of the columns (1, W), beside x."""
    xp = backend_of(x.data).xp
    height, width = x.shape[2:]
    return xp.arange(height).reshape(-1, 1), xp.arange(width).reshape(1, -1)


def of_each(drawn: Tensor, column: int) -> Array:
    """One number of each image, (N, 1, 1, 1)."""
    return drawn.data[:, column].reshape(-1, 1, 1, 1)
