"""The kernel distance (KID): the squared maximum mean discrepancy of two sets of features.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),      k(x, y) = (x.y / D + 1)^3

Binkowski et al.: Demystifying MMD GANs (2018), arXiv:1801.01401. Pairs of a point with itself are
left out, so the estimate is unbiased for any N: around 0, also below it, for equal distributions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import DataError
from minigan.random import generator

Array = npt.NDArray[Any]


def mmd2(x: Array, y: Array) -> float:
    """The unbiased estimate from all pairs of x (N, D) and y (M, D)."""
    n, m, dims = len(x), len(y), x.shape[1]

    def kernel(a: Array, b: Array) -> Array:
        return (a @ b.T / dims + 1) ** 3

    xx, yy = kernel(x, x), kernel(y, y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * kernel(x, y).mean())


def kid(real: Array, fake: Array, block: int = 1000) -> tuple[float, float]:
    """Return the mean of `mmd2` over disjoint blocks, and the standard error of that mean.

    Disjoint blocks are independent, so their spread tells how far to trust the mean; subsets
    drawn with overlap, as is usual, understate it. There are at least two blocks.
    """
    count = min(len(real), len(fake))
    size = min(block, count // 2)
    if size < 2:
        raise DataError(f"kid: {count} samples are too few", fix="use at least four")
    blocks = count // size
    x = real[generator(0, "kid real", 0).permutation(len(real))[: blocks * size]]
    y = fake[generator(0, "kid fake", 0).permutation(len(fake))[: blocks * size]]
    found = [mmd2(a, b) for a, b in zip(np.split(x, blocks), np.split(y, blocks), strict=True)]
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(blocks))
