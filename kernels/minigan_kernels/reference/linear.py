"""The matrix product by its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def matmul(a: Array, b: Array) -> Array:
    """c[.., i, j] = sum over k of a[.., i, k] b[.., k, j]; leading axes are broadcast.

    Parameters
    ----------
    a : (..., n, k)
    b : (..., k, m)
    """
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
    c = np.zeros((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    for k in range(a.shape[-1]):
        c += a[..., :, k, None] * b[..., None, k, :]
    return c
